"""What a recommendation is held against: the true largest safe learning rate of a cell.

Pure. A cell is one setting. Its truth is read off runs at the rates of a grid at ratio √2, three
seeds each: the largest rate at and below which no seed is unsafe. The grid goes up until two rates
in a row fail on every seed, and down until the final reward has passed its best, but no further
than a factor of 8 below the largest safe rate, where it is flat.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from storage.records import RunInfo

UNSAFE = ("collapsed", "diverged", "damaged")
RATIO = math.sqrt(2)
FAILING_IN_A_ROW = 2
FALLING_IN_A_ROW = 2
FAR_BELOW = 6
"""Steps of the grid below the largest safe rate at which the search for the best one ends."""
MOST_RATES = 24
"""A cell whose truth needs more rates than this was begun too far from it."""


def grid_rate(index: int) -> float:
    """Return 1e-4·√2^index, to three digits: the grid that all cells share."""
    return float(f"{1e-4 * RATIO**index:.3g}")


@dataclass(frozen=True, slots=True, kw_only=True)
class RateOutcome:
    """The runs of a cell at one rate: how many, how many unsafe, and the mean final reward.

    ``reward`` is of the reward that matters at θ_T, gold where there is one; None if no run has it.
    """

    runs: int
    collapsed: int
    diverged: int
    damaged: int
    reward: float | None

    @property
    def unsafe(self) -> int:
        """How many of the runs are unsafe."""
        return self.collapsed + self.diverged + self.damaged


def rate_outcome(runs: Sequence[RunInfo]) -> RateOutcome:
    """Count the outcomes of ended runs of one cell at one rate."""
    rewards = [value for run in runs if (value := decisive_final(run)) is not None]
    return RateOutcome(
        runs=len(runs),
        collapsed=sum(run.outcome == "collapsed" for run in runs),
        diverged=sum(run.outcome == "diverged" for run in runs),
        damaged=sum(run.outcome == "damaged" for run in runs),
        reward=statistics.fmean(rewards) if rewards else None,
    )


def decisive_final(run: RunInfo) -> float | None:
    """Return the final reward that matters: gold where there is one."""
    return run.reward_final if run.gold_reward_final is None else run.gold_reward_final


def next_rates(found: Mapping[int, RateOutcome], first: int) -> list[int]:
    """Return the grid indices to run next; none when the truth of the cell is known.

    Args:
        found: what was run so far, by grid index; neighbors without a gap.
        first: where to begin.
    """
    if not found:
        return [first, first + 2]
    low, high = min(found), max(found)
    gaps = [i for i in range(low, high) if i not in found]
    if gaps:
        return gaps
    if len(found) >= MOST_RATES:
        return []
    wanted = []
    top = [found[i] for i in range(max(low, high - FAILING_IN_A_ROW + 1), high + 1)]
    if len(top) < FAILING_IN_A_ROW or not all(o.runs and o.unsafe == o.runs for o in top):
        wanted.append(high + 1)
    if not _passed_its_best(found):
        wanted.append(low - 1)
    return wanted


def _passed_its_best(found: Mapping[int, RateOutcome]) -> bool:
    """Whether the lowest rates are safe and end below the best, for two rates in a row."""
    lowest = sorted(found)[:FALLING_IN_A_ROW]
    largest = largest_safe_index(found)
    if largest is not None and largest - lowest[0] >= FAR_BELOW:
        return True
    rewards = {i: o.reward for i, o in found.items() if o.reward is not None and o.unsafe == 0}
    if any(found[i].unsafe or not found[i].runs for i in lowest) or not all(
        i in rewards for i in lowest
    ):
        return False
    return max(rewards, key=lambda i: rewards[i]) > lowest[-1]


def largest_safe_index(found: Mapping[int, RateOutcome]) -> int | None:
    """Return the grid index of the true η_max; None if the lowest rate already has an unsafe run.

    The run of safe rates is followed from the lowest one up to the first that is not.
    """
    best = None
    for index in sorted(found):
        if found[index].unsafe or not found[index].runs:
            break
        best = index
    return best


def best_index(found: Mapping[int, RateOutcome]) -> int | None:
    """Return the grid index whose runs end best on average."""
    rewards = {
        i: o.reward for i, o in found.items() if o.reward is not None and math.isfinite(o.reward)
    }
    return max(rewards, key=lambda i: rewards[i]) if rewards else None
