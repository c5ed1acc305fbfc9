"""What measuring costs: the same learner steps with and without, alternating in one process.

    python -m benchmarks.measuring [--rounds N] [--json]

Learners of equal seed take turns step by step: one bare, one with the always-on metrics (the KL to
the start every few steps included), one that also streams the paired clip bias at its default
interval. A figure is the ratio of summed step times over one cycle of measurements, so that what
happens only now and then counts with its share; given are the median over the cycles and their
quartiles. Weights start random and the reward is the share of digits: the arithmetic of a step does
not depend on what is learned. The active-clip fraction, on which the cost of the clip
bias depends, is given beside it.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from trainer.backward import Scored
from trainer.config import TrainerConfig, checked_config
from trainer.lockstep import Lockstep
from trainer.meter import Meter
from trainer.policy import parameter_count
from trainer.rollout import Task
from trainer.workloads.arithmetic import (
    MAX_NEW_TOKENS,
    build_model,
    build_tokenizer,
    sample_prompts,
)

MODELS = {"tiny": (64, 2), "ten_million": (320, 8)}
NEVER = 1_000_000
CYCLE = 20
"""Learner steps that make one figure: a multiple of the intervals of all measurements."""
SETTING = {"learning_rate": 2e-4, "max_staleness": 4, "steps": NEVER, "seed": 0}


class Silent(Meter):
    """Measures nothing but the norm that scaling the gradient down needs."""

    def before_update(
        self, step: int, version: int, behavior: Tensor, scored: Scored, learning_rate: float
    ) -> Tensor:
        """Return the norm of the gradient."""
        norm: Tensor = torch.linalg.vector_norm(self._weights.gradient)
        return norm

    def after_update(
        self, step: int, learning_rate: float, scored: Scored, unread: Mapping[str, Tensor]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the loss, as any loop would, which also waits for the device."""
        return {"loss": float(unread["loss"])}, {}


def share_of_digits(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Reward that random weights earn in different amounts, so that every group has a gradient."""
    return [sum(sign.isdigit() for sign in each) / MAX_NEW_TOKENS for each in completions]


TASK = Task(
    name="arithmetic",
    chance_reward=None,
    max_new_tokens=MAX_NEW_TOKENS,
    sample_prompts=sample_prompts,
    rewards=share_of_digits,
)


def learners(folder: Path) -> dict[str, Lockstep]:
    """Build the three learners from one set of weights."""

    def learner(**changes: Any) -> Lockstep:
        config = checked_config({**SETTING, **changes})
        made = Lockstep("benchmark", config, TASK, folder)
        made.evaluate(0, 512)
        _ = made.behavior_weights  # loaded now, for the folder does not last
        return made

    bare = learner(kl_to_start_every=NEVER, bias_every=0)
    bare.meter = Silent("benchmark", bare.config, bare.objective, bare.policy, bare.weights)
    return {"bare": bare, "metrics": learner(bias_every=0), "bias": learner()}


def measure(hidden_size: int, layers: int, rounds: int) -> dict[str, Any]:
    """Take ``rounds`` cycles of steps with each learner and compare their times."""
    with tempfile.TemporaryDirectory() as name:
        model: Any = build_model(hidden_size, layers)
        model.save_pretrained(name)
        build_tokenizer().save_pretrained(name)
        rivals = learners(Path(name))
    seconds = {kind: [0.0] * rounds for kind in rivals}
    clipped: list[float] = []
    for step in range(CYCLE * (rounds + 1)):
        cycle = step // CYCLE - 1  # the first warms up
        order = list(rivals.items())
        for kind, learner in order[step % 3 :] + order[: step % 3]:
            started = time.perf_counter()
            row = learner.learner_step(step)
            if cycle >= 0:
                seconds[kind][cycle] += time.perf_counter() - started
                clipped += [row.clip_fraction] if row.clip_fraction is not None else []
    return {
        "parameters": parameter_count(rivals["bare"].policy),
        "bare_ms_per_step": 1000 * statistics.median(seconds["bare"]) / CYCLE,
        "metrics_over_bare": _spread(seconds["metrics"], seconds["bare"]),
        "bias_over_metrics": _spread(seconds["bias"], seconds["metrics"]),
        "mean_clip_fraction": statistics.fmean(clipped),
    }


def _spread(with_it: list[float], without: list[float]) -> dict[str, float]:
    ratios = sorted(a / b - 1 for a, b in zip(with_it, without, strict=True))
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {"median": middle, "lower_quartile": low, "upper_quartile": high}


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--large-rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    default = TrainerConfig.model_fields
    found = {
        "kl_to_start_every": default["kl_to_start_every"].default,
        "bias_every": default["bias_every"].default,
        "torch": torch.__version__,
        "threads": 1,
    }
    for name, size in MODELS.items():
        rounds = options.rounds if name == "tiny" else options.large_rounds
        found[name] = measure(*size, rounds)
        print(name, found[name], file=sys.stderr)
    if options.json:
        print(json.dumps(found))


if __name__ == "__main__":
    main()
