"""Starting weights for the built-in workloads: supervised steps until the policy is half good.

The result is saved with ``save_pretrained`` under the hash of everything it depends on, and loaded
through the same ``from_pretrained`` that a user's own checkpoint takes.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from .cache import cached_folder
from .policy import FlatWeights

CARD = "warm_start.json"


class WarmStartFailed(RuntimeError):
    """The supervised steps did not bring the success rate into its band."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """How a policy is warm-started.

    ``identity`` is everything the weights depend on; its hash names the cache folder.
    ``loss(model, generator)`` is the supervised loss of a fresh batch; ``success_rate(model)`` the
    probability, at temperature 1, of a right answer, in 0…1. Training stops at the first test
    with ``low`` ≤ rate ≤ ``high``.
    """

    identity: Mapping[str, Any]
    build: Callable[[], tuple[Any, Any]]
    loss: Callable[[nn.Module, torch.Generator], Tensor]
    success_rate: Callable[[nn.Module], float]
    low: float
    high: float
    learning_rate: float
    test_every: int = 10
    max_steps: int = 20_000


def warm_started(recipe: Recipe, home: Path, progress: Callable[[str], None]) -> Path:
    """Return the folder of the warm-started policy, training it first if it is not cached.

    Raises:
        WarmStartFailed: the band was not reached within ``recipe.max_steps``.
    """

    def make(folder: Path) -> dict[str, Any]:
        model, tokenizer = recipe.build()
        steps, rate = _train(model, recipe, progress)
        model.save_pretrained(folder)
        tokenizer.save_pretrained(folder)
        progress(f"warm start: done after {steps} supervised steps, success rate {rate:.3f}")
        return {"steps": steps, "success_rate": rate}

    return cached_folder(home / "warm_starts", CARD, recipe.identity, make)


def _train(model: nn.Module, recipe: Recipe, progress: Callable[[str], None]) -> tuple[int, float]:
    """Train into the band; return the number of steps and the success rate.

    A test that lands above the band goes back to the weights of the test before and halves the
    learning rate: near the band the rate moves fast.
    """
    weights = FlatWeights(model)
    parameter = nn.Parameter(weights.vector)
    parameter.grad = weights.gradient
    optimizer = torch.optim.AdamW([parameter], betas=(0.9, 0.95), weight_decay=0.0)
    generator = torch.Generator().manual_seed(0)
    learning_rate, kept = recipe.learning_rate, weights.snapshot()
    for step in range(recipe.max_steps):
        if step % recipe.test_every == 0:
            rate = recipe.success_rate(model)
            if step % (10 * recipe.test_every) == 0:
                progress(f"warm start: {step} supervised steps, success rate {rate:.3f}")
            if recipe.low <= rate <= recipe.high:
                return step, rate
            if rate > recipe.high:
                weights.load(kept)
                learning_rate /= 2
            kept = weights.snapshot()
        optimizer.param_groups[0]["lr"] = learning_rate * min(1.0, (step + 1) / 50)
        weights.gradient.zero_()
        torch.autograd.backward(recipe.loss(model, generator))
        nn.utils.clip_grad_norm_([parameter], 1.0)
        optimizer.step()
    raise WarmStartFailed(
        f"after {recipe.max_steps} supervised steps the success rate is {rate:.3f}, outside "
        f"{recipe.low}…{recipe.high}; try another hidden size or number of layers"
    )
