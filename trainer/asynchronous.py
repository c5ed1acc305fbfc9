"""Real asynchrony: rollout workers generate while the learner updates, and staleness is what it is.

Batches are numbered by the learner step that first learns from them, and are taken in that order.
With E updates per batch, batch n is given to a worker once the weights of learner step
n + (E − 1) − S are published: whenever it is begun, its oldest token is at most S learner steps old
when it is last learned from, and nothing has to be thrown away. A fast worker runs out of batches
that it may begin and waits; a fast learner waits for its next batch. Where a run stands in the
queue is the learner step it has reached: one that goes on has the batches that were under way
sampled again, of the same prompts.
"""

import time
from pathlib import Path
from typing import Any

from torch import Tensor

from storage.engine import home

from .config import TrainerConfig
from .crew import Crew
from .hooks import Hooks
from .learner import Learner, Sampled
from .outcome import HELD_BATCHES, Outcome
from .rollout import Rollouts, Task
from .rollout_processes import Processes
from .rollout_worker import Assignment


class Asynchronous(Learner):
    """A learner whose rollouts other processes sample at the same time.

    Whoever takes learner steps without ``train`` closes it in the end.
    """

    def __init__(self, run_id: str, config: TrainerConfig, task: Task, start: Path) -> None:
        """Load the policy from ``start``; the workers build their own task from ``config``."""
        super().__init__(run_id, config, task, start)
        self._crew: Crew[Any] | None = None
        self._recent: dict[int, Tensor] = {}  # weights by version that rollouts may come from
        self._requested = 0
        self._most_ahead = config.max_staleness - (config.updates_per_batch - 1)
        """Learner steps from the weights that begin a batch to the first that learns from it."""

    def train(self, hooks: Hooks) -> Outcome:
        """Run to the end as every learner does; workers begin with it and end with it."""
        self._workers()
        try:
            return super().train(hooks)
        finally:
            self.close()

    def close(self) -> None:
        """End the workers."""
        if self._crew is not None:
            self._crew.close()
        self._crew, self._recent = None, {}

    def _workers(self) -> Crew[Any]:
        if self._crew is None:
            assignment = Assignment(config=self.config, home=home().resolve())
            if self.config.engine == "ray":
                from .rollout_actors import Actors  # Ray is optional

                self._crew = Crew(self.config, Actors(assignment))
            else:
                processes = Processes(assignment, self.weights.vector.numel())
                self._crew = Crew(self.config, processes)
        return self._crew

    def _sample(self, step: int) -> Sampled:
        if step not in self._recent:  # the first learner step of this process
            self._requested = step
            self._publish(step)
        if step >= self.config.steps:  # the run is extended, which nobody could know before
            batches = HELD_BATCHES * self.config.updates_per_batch
            self._admit(step, self.config.steps + batches)
        started = time.perf_counter()
        delivery = self._workers().take(step)
        waited = time.perf_counter() - started
        batch = delivery.rollouts.to(self.device)
        versions_B_T = _versions(batch)
        oldest_B = versions_B_T.amin(dim=1)
        version = int(oldest_B.min())
        if step - version > self._most_ahead:
            raise RuntimeError(f"batch {step} was begun at version {version}, which is too early")
        return Sampled(
            version=version,
            behavior=self._recent[version],
            batch=batch,
            mean_version=float(oldest_B.double().mean()),
            seconds_generate=delivery.seconds_generate,
            seconds_wait=waited,
            extra={
                "token_staleness_mean": step - _token_mean(versions_B_T, batch),
                "rollouts_across_versions": _share_across(versions_B_T),
                "seconds_worker_idle": delivery.seconds_idle,
            },
        )

    def _update(self, step: int, grad_norm: Tensor, learning_rate: float) -> None:
        super()._update(step, grad_norm, learning_rate)
        self._publish(step + 1)

    def _publish(self, version: int) -> None:
        """Let workers have the present weights, and admit what may be begun with them."""
        vector = self.weights.snapshot()
        self._recent[version] = vector
        for old in [each for each in self._recent if each < version - self.config.max_staleness]:
            del self._recent[old]
        self._workers().publish(version, vector)
        self._admit(version, self.config.steps)

    def _admit(self, version: int, end: int) -> None:
        """Request the batches before ``end`` that weights of ``version`` are fresh enough for."""
        while self._requested <= version + self._most_ahead and self._requested < end:
            self._workers().request(self._requested)
            self._requested += self.config.updates_per_batch

    def _notices(self) -> list[str]:
        if self._crew is None:
            return []
        deaths, self._crew.deaths = self._crew.deaths, []
        return deaths


def _versions(batch: Rollouts) -> Tensor:
    """Return the version of each response token, on padding that of the first token, [B, T]."""
    if batch.versions_B_T is None:
        raise RuntimeError("rollouts of a worker carry the versions that sampled them")
    return batch.versions_B_T.where(batch.mask_B_T.bool(), batch.versions_B_T[:, :1])


def _token_mean(versions_B_T: Tensor, batch: Rollouts) -> float:
    return float(versions_B_T[batch.mask_B_T.bool()].double().mean())


def _share_across(versions_B_T: Tensor) -> float:
    """Return the share of the rollouts whose tokens more than one version sampled."""
    crossed_B = versions_B_T.amin(dim=1) < versions_B_T.amax(dim=1)
    return float(crossed_B.double().mean())
