"""How a training by another trainer ended, by the rewards that it logged (theory.md §6)."""

import math
import statistics
from collections.abc import Sequence
from typing import Any

from storage.records import StepMetrics

from ..outcome import Outcome, Start, judge

STARTING_ROWS, LEAST_REWARDS = 10, 20
ENDS_OVER_STEPS = 20


def outcome_of(
    rewards: Sequence[float], spreads: Sequence[float], versions: Sequence[int]
) -> tuple[Outcome, Start] | None:
    """Judge logged batch rewards; the start is what the first ten of them tell of it.

    Args:
        rewards: mean reward of each batch that has one.
        spreads: standard deviations of the rewards within them, where logged.
        versions: the learner step whose weights sampled each batch.

    Returns:
        The verdict and the start it is judged against; None where there are under 20 rewards.
    """
    if len(rewards) < LEAST_REWARDS:
        return None
    first = rewards[:STARTING_ROWS]
    batch_sd = statistics.stdev(first)
    own = statistics.fmean(spreads[:STARTING_ROWS]) if spreads else batch_sd
    rollouts = max(1, round((own / batch_sd) ** 2 * len(first))) if batch_sd > 0 else len(first)
    start = Start(reward=statistics.fmean(first), reward_std=own, rollouts=rollouts)
    return judge(rewards, versions, start, None), start


class Ending:
    """Keeps the rewards of a training, to say at its end how it went."""

    def __init__(self) -> None:
        """Begin without a learner step."""
        self._rewards: list[float] = []
        self._spreads: list[float] = []
        self._versions: list[int] = []
        self._steps: list[int] = []
        self._last = 0
        self._broken: int | None = None

    def observe(self, row: StepMetrics) -> None:
        """Take in a learner step."""
        self._last = row.step
        numbers = (row.reward_mean, row.loss, row.grad_norm)
        if self._broken is None and any(x is not None and not math.isfinite(x) for x in numbers):
            self._broken = row.step
        if row.reward_mean is None or math.isnan(row.reward_mean):
            return
        self._rewards.append(row.reward_mean)
        self._versions.append(max(0, row.step - round(row.staleness_mean or 0.0)))
        self._steps.append(row.step)
        if row.reward_std is not None and math.isfinite(row.reward_std):
            self._spreads.append(row.reward_std)

    def fields(self) -> dict[str, Any]:
        """Return the fields of the run's record that are known; None where they are not."""
        pairs = list(zip(self._steps, self._rewards, strict=True))
        ends = {
            "reward_first": [reward for step, reward in pairs if step < ENDS_OVER_STEPS],
            "reward_last": [r for step, r in pairs if step > self._last - ENDS_OVER_STEPS],
        }
        found: dict[str, Any] = {k: statistics.fmean(v) if v else None for k, v in ends.items()}
        if self._broken is not None:
            why = f"a non-finite reward, loss or gradient at step {self._broken}"
            return {**found, "outcome": "diverged", "outcome_reason": why}
        judged = outcome_of(self._rewards, self._spreads, self._versions)
        if judged is None:
            few = f"{len(self._rewards)} logged rewards are too few to judge; 20 are needed"
            return {**found, "outcome": "undetermined", "outcome_reason": few}
        outcome, _ = judged
        return {
            **found,
            "outcome": outcome.verdict,
            "outcome_reason": outcome.reason,
            "collapse_step": outcome.onset if outcome.verdict == "collapsed" else None,
            "slide_step": outcome.slide,
            "reward_best": outcome.reward_best,
        }
