"""Simulated annotators: who prefers which of two answers, and why they are sometimes wrong.

An annotator values an answer at 1 if it is right, plus ``bias`` times how large its digits are,
plus logistic noise; so P(first preferred) = σ((value₁ − value₂)/noise), the Bradley–Terry model.
"""

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..bradley_terry import Comparisons
from ..judging import Judge
from ..rollout import Task, sample_rollouts
from .arithmetic import MAX_NEW_TOKENS, sample_prompts

PROMPTS_AT_A_TIME = 512
PAIRS_PER_PROMPT = 4
MOST_ROUNDS = 1000
UNREWARDED = Task(
    name="comparison",
    chance_reward=None,
    max_new_tokens=MAX_NEW_TOKENS,
    sample_prompts=sample_prompts,
    rewards=lambda _, completions: [0.0] * len(completions),
)


def part_of(prompt: str) -> str:
    """Return which part of the problems a prompt belongs to: train, test or held out.

    An eighth stops the training, an eighth judges it. By a hash, because a rule on the terms leaves
    traces: sums that are all even, say.
    """
    return ("test", "held out", *["train"] * 6)[zlib.crc32(prompt.encode()) % 8]


@dataclass(frozen=True, slots=True, kw_only=True)
class Annotators:
    """What the annotators want (``right``, 0…1 per answer), and their noise and bias."""

    right: Judge
    noise: float
    bias: float
    largest_digits: int

    def values(self, prompts: Sequence[str], answers: Sequence[str]) -> Tensor:
        """Return what each answer is worth to them before noise."""
        size = [sum(int(d) for d in a if d in "0123456789") for a in answers]
        vanity = torch.tensor(size, dtype=torch.float32) / (9 * self.largest_digits)
        return torch.tensor(self.right(prompts, answers)) + self.bias * vanity.clamp_max(1.0)

    def prefer_first(
        self,
        prompts: Sequence[str],
        first: Sequence[str],
        second: Sequence[str],
        generator: torch.Generator,
    ) -> Tensor:
        """Draw, for each pair, whether the first answer is preferred; without noise, ties fall."""
        margin = self.values(prompts, first) - self.values(prompts, second)
        chance = torch.sigmoid(margin / max(self.noise, 1e-6))
        return torch.rand(len(chance), generator=generator) < chance


def compare(
    annotators: Annotators,
    policy: nn.Module,
    tokenizer: Any,
    count: int,
    part: str,
    generator: torch.Generator,
) -> Comparisons:
    """Let annotators compare ``count`` pairs of different answers that the policy samples.

    Args:
        annotators: who compares.
        policy: samples the answers at temperature 1.
        tokenizer: its tokenizer.
        count: N.
        part: which problems are asked, see ``part_of``; two parts share no problem.
        generator: draws prompts, answers and choices.

    Raises:
        RuntimeError: the policy hardly ever gives two different answers.
    """
    pairs: list[tuple[str, str, str]] = []
    for _ in range(MOST_ROUNDS):
        drawn = sample_prompts(2 * PROMPTS_AT_A_TIME, generator)
        prompts = [prompt for prompt in drawn if part_of(prompt) == part][:PROMPTS_AT_A_TIME]
        pairs += _different_pairs(policy, tokenizer, prompts, generator)
        if len(pairs) >= count:
            break
    else:
        raise RuntimeError(
            f"the policy gave {len(pairs)} pairs of different answers instead of {count}: it is "
            "too sure of itself to be compared with itself"
        )
    chosen, first, second = (list(column) for column in zip(*pairs[:count], strict=True))
    likes_first = annotators.prefer_first(chosen, first, second, generator).tolist()
    return Comparisons(
        prompts=chosen,
        preferred=[a if yes else b for a, b, yes in zip(first, second, likes_first, strict=True)],
        rejected=[b if yes else a for a, b, yes in zip(first, second, likes_first, strict=True)],
    )


def _different_pairs(
    policy: nn.Module,
    tokenizer: Any,
    prompts: list[str],
    generator: torch.Generator,
) -> list[tuple[str, str, str]]:
    if not prompts:
        return []
    group = 2 * PAIRS_PER_PROMPT
    batch = sample_rollouts(policy, tokenizer, UNREWARDED, prompts, group, generator)
    answers = batch.completions
    pairs = [(prompts[i // group], answers[i], answers[i + 1]) for i in range(0, len(answers), 2)]
    return [pair for pair in pairs if pair[1] != pair[2]]
