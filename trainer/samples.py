"""A few rollouts of a batch as text, for a person who wants to see what the policy says."""

from dataclasses import dataclass

import torch
from torch import Tensor

from storage.records import Sample

from .rollout import Rollouts

LONGEST_TEXT = 2000


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """The batch of one learner step, with what the learner made of it: A [B] and ℓ [B, T]."""

    step: int
    staleness: int
    batch: Rollouts
    advantage_B: Tensor
    log_ratio_B_T: Tensor


def samples_of(run_id: str, learned: Learned, count: int) -> list[Sample]:
    """Return about ``count`` rollouts of a batch in its order, numbered by their row.

    Whole groups are taken, evenly spread over the batch, so that advantages can be compared; the
    last group is cut where ``count`` is reached. ``ratio`` is exp(Σ ℓ) over the response.
    """
    batch = learned.batch
    gold_B = None if batch.gold_P_G is None else batch.gold_P_G.reshape(-1).tolist()
    rewards_B, advantages_B = batch.rewards_P_G.reshape(-1).tolist(), learned.advantage_B.tolist()
    ratios_B = _sequence_ratio(learned.log_ratio_B_T, batch.mask_B_T).tolist()
    group_size = batch.rewards_P_G.shape[1]
    return [
        Sample(
            run_id=run_id,
            step=learned.step,
            number=row,
            prompt=shortened(batch.prompts[row // group_size]),
            completion=shortened(batch.completions[row]),
            reward=rewards_B[row],
            gold=None if gold_B is None else gold_B[row],
            advantage=advantages_B[row],
            staleness=learned.staleness,
            ratio=ratios_B[row],
        )
        for row in chosen_rows(len(batch.prompts), group_size, count)
    ]


def chosen_rows(prompts: int, group_size: int, count: int) -> list[int]:
    """Return which rows of a batch of P·G are kept: of each chosen group its first members."""
    groups = min(prompts, -(-count // group_size))
    first_rows = [group * prompts // groups * group_size for group in range(groups)]
    rows = [first + member for first in first_rows for member in range(group_size)]
    return rows[:count]


@torch.no_grad()
def _sequence_ratio(log_ratio_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    return (log_ratio_B_T * mask_B_T).sum(dim=1).exp()


def shortened(text: str) -> str:
    """Return a text of at most 2 000 characters; a longer one is cut and ends in "…"."""
    return text if len(text) <= LONGEST_TEXT else text[: LONGEST_TEXT - 1] + "…"
