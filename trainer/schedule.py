"""Which past weights sample the rollouts of a learner step."""

from collections import deque
from collections.abc import Mapping
from typing import Any

from torch import Tensor


class BehaviorSchedule:
    """Which past weights sample the rollouts of learner step t.

    ``cyclic``: θ of the newest multiple of S+1, so staleness runs 0…S and is S/2 on average.
    ``constant``: θ_{t−S}, and θ_0 while t < S (theory.md §2). With E updates per batch the rollouts
    of a batch are E−1 learner steps older at its last update than at its first: the cycle is the
    largest multiple of E up to S+1, and a batch is sampled from weights that are S−(E−1) old.
    """

    def __init__(self, schedule: str, max_staleness: int, updates_per_batch: int = 1) -> None:
        """Begin with no snapshot; S is at least E − 1."""
        self._cycle = (max_staleness + 1) // updates_per_batch * updates_per_batch
        self._lag = max_staleness - (updates_per_batch - 1)
        self._cyclic = schedule == "cyclic"
        self._snapshots: deque[tuple[int, Tensor]] = deque()

    def behavior(self, step: int, weights: Tensor) -> tuple[int, Tensor]:
        """Return the version and the weights of φ for a batch first learned from at this step.

        Call it at every learner step, with θ = weights.
        """
        if self._cyclic:
            if step % self._cycle == 0:
                self._snapshots.clear()
                self._snapshots.append((step, weights.clone()))
        else:
            self._snapshots.append((step, weights.clone()))
            while len(self._snapshots) > self._lag + 1:
                self._snapshots.popleft()
        return self._snapshots[0]

    def state_dict(self) -> dict[str, Any]:
        """Return the snapshots that are still to sample from, each with its version."""
        return {"snapshots": list(self._snapshots)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Hand out what another schedule of the same kind would have."""
        self._snapshots = deque((version, weights) for version, weights in state["snapshots"])
