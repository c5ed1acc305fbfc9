"""The rewards of a run for its record: over its first and last steps, and of its last policy."""

import statistics
from dataclasses import dataclass, field

from storage.records import Evaluation

ENDS_OF_A_RUN = 20
"""``reward_first`` and ``reward_last`` are means over this many learner steps."""


@dataclass(slots=True)
class Ends:
    """The first and the last rewards of a run."""

    first: list[float] = field(default_factory=list)
    last: list[float] = field(default_factory=list)

    def add(self, reward: float | None) -> None:
        """Take in the reward of one learner step; None where it was not measured."""
        if reward is None:
            return
        if len(self.first) < ENDS_OF_A_RUN:
            self.first.append(reward)
        self.last = [*self.last, reward][-ENDS_OF_A_RUN:]


@dataclass(slots=True)
class RunRewards:
    """What a run was rewarded with, and gold beside it; ``final`` is the newest evaluation."""

    reward: Ends = field(default_factory=Ends)
    gold: Ends = field(default_factory=Ends)
    final: Evaluation | None = None

    def add(self, reward: float | None, gold: float | None) -> None:
        """Take in one learner step."""
        self.reward.add(reward)
        self.gold.add(gold)

    def summary(self, steps: int) -> dict[str, float | None]:
        """Return the columns of a run with so many steps; None for what was not measured.

        An evaluation before the last step, or before the first, says nothing of the last policy.
        """
        final = self.final
        if final is None or final.step != steps or steps == 0:
            final = None
        return {
            "reward_first": _mean(self.reward.first),
            "reward_last": _mean(self.reward.last),
            "reward_final": final.reward if final else None,
            "gold_reward_first": _mean(self.gold.first),
            "gold_reward_last": _mean(self.gold.last),
            "gold_reward_final": final.gold if final else None,
        }


def _mean(values: list[float]) -> float | None:
    return statistics.fmean(values) if values else None
