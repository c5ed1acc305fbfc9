"""Fit a reward model to comparisons: P(a preferred to b) = σ(score(a) − score(b))."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .policy import FlatWeights
from .reward_model import RewardModel

PAIRS_PER_STEP = 128
LEARNING_RATE = 2e-3
WARMUP_STEPS = 20
CYCLE_STEPS = 600
TEST_EVERY = 20
MOST_STEPS = 3600


class RewardModelFailed(RuntimeError):
    """The reward model does not predict the comparisons as well as it was to."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparisons:
    """N pairs of different answers to the same prompt, each with the one that was preferred."""

    prompts: list[str]
    preferred: list[str]
    rejected: list[str]


def fit(
    model: RewardModel,
    train: Comparisons,
    test: Comparisons,
    accuracy: float,
    generator: torch.Generator,
    progress: Callable[[str], None],
) -> int:
    """Minimise −mean log σ(score(preferred) − score(rejected)) until the model is good enough.

    How fast accuracy grows differs much between seeds; stopping at an accuracy, not at a step,
    makes reward models that are equally easy to exploit.

    Args:
        model: is changed in place.
        train: comparisons to learn from, drawn with replacement, 128 a step.
        test: other comparisons, on which its accuracy is tested every twenty steps.
        accuracy: share of these, 0…1, that it shall predict.
        generator: draws the training pairs.
        progress: told about every test.

    Returns:
        The number of optimizer steps.

    Raises:
        RewardModelFailed: 3600 steps were not enough.
    """
    weights = FlatWeights(model.model)
    parameter = nn.Parameter(weights.vector)
    parameter.grad = weights.gradient
    optimizer = torch.optim.AdamW([parameter], betas=(0.9, 0.95), weight_decay=0.0)
    both = model.encode([*train.prompts, *train.prompts], [*train.preferred, *train.rejected])
    for step in range(MOST_STEPS):
        if step % TEST_EVERY == 0:
            reached = pair_accuracy(model, test)
            progress(f"reward model: {step} steps, pair accuracy {reached:.3f} of {accuracy:g}")
            if reached >= accuracy:
                return step
        chosen = torch.randint(len(train.prompts), (PAIRS_PER_STEP,), generator=generator)
        rows = torch.cat([chosen, chosen + len(train.prompts)]).to(model.device)
        better, worse = model.scores({n: v[rows] for n, v in both.items()}).chunk(2)
        weights.gradient.zero_()
        torch.autograd.backward(-nn.functional.logsigmoid(better - worse).mean())
        nn.utils.clip_grad_norm_([parameter], 1.0)
        optimizer.param_groups[0]["lr"] = _learning_rate(step)
        optimizer.step()
    raise RewardModelFailed(
        f"after {MOST_STEPS} steps the reward model predicts {reached:.3f} of the comparisons, not "
        f"{accuracy:g}; lower reward_model_accuracy or annotator_noise, or raise comparisons"
    )


def _learning_rate(step: int) -> float:
    """Warm up linearly, then fall linearly to a tenth; a fit that is not done by then begins anew.

    Whether 600 steps are enough is chance: of the same data and start, one processor's rounding got
    there and another's stood still at 0.77 until the rate rose again.
    """
    place = step % CYCLE_STEPS
    warm = min(1.0, (place + 1) / WARMUP_STEPS)
    return LEARNING_RATE * warm * max(0.1, 1 - place / CYCLE_STEPS)


def pair_accuracy(model: RewardModel, pairs: Comparisons) -> float:
    """Return the share of comparisons that the model predicts, 0…1; 0.5 is chance."""
    return float(prefers_first(model, pairs).float().mean())


@torch.no_grad()
def prefers_first(model: RewardModel, pairs: Comparisons) -> Tensor:
    """Return, for each pair, whether the preferred answer has the higher score."""
    preferred = model.scores(model.encode(pairs.prompts, pairs.preferred))
    return preferred > model.scores(model.encode(pairs.prompts, pairs.rejected))
