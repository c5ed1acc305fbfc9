"""Which past weights sample the rollouts of a learner step."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from torch import Tensor


class BehaviorSchedule:
    """Which past weights sample the rollouts of learner step t.

    ``cyclic``: θ of the newest multiple of S+1, so staleness runs 0…S and is S/2 on average.
    ``constant``: θ_{t−S}, and θ_0 while t < S (theory.md §2).
    """

    def __init__(self, schedule: str, max_staleness: int) -> None:
        """Begin with no snapshot."""
        self.max_staleness = max_staleness
        self._cyclic = schedule == "cyclic"
        self._snapshots: deque[tuple[int, Tensor]] = deque()

    def behavior(self, step: int, weights: Tensor) -> tuple[int, Tensor]:
        """Return the version and the weights of φ for learner step ``step`` with θ = weights."""
        if self._cyclic:
            if step % (self.max_staleness + 1) == 0:
                self._snapshots.clear()
                self._snapshots.append((step, weights.clone()))
        else:
            self._snapshots.append((step, weights.clone()))
            while len(self._snapshots) > self.max_staleness + 1:
                self._snapshots.popleft()
        return self._snapshots[0]

    def state_dict(self) -> dict[str, Any]:
        """Return the snapshots that are still to sample from, each with its version."""
        return {"snapshots": list(self._snapshots)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hand out what another schedule of the same kind would have."""
        self._snapshots = deque((version, weights) for version, weights in state["snapshots"])
