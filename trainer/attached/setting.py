"""What a trainer of TRL was told, in Etalon's names (``storage/importers/stacks.py``)."""

import math
from typing import Any

from storage.importers.stacks import stack_named
from storage.importers.staleness import completed, staleness_of

from ..governing import Schedule
from .meters import Clip

LOSSES = {
    **dict.fromkeys(("grpo", "bnpo", "dapo", "luspo"), "grpo"),
    "dr_grpo": "dr_grpo",
    "cispo": "cispo",
}
"""Etalon's loss with the same clip; those that are not here have a clip of their own."""
DEFAULT_CLIP = 0.2


def stack_of(trainer: Any) -> str:
    """Return which of TRL's stacks a trainer is."""
    return "trl_async" if type(trainer).__name__.startswith("Async") else "trl"


def updates_per_version(trainer: Any) -> float:
    """Return the learner steps of one version of the weights, in which a stack counts ages."""
    table = stack_named(stack_of(trainer))
    return table.updates_per_version(completed(table, _companions(trainer)))


def _companions(trainer: Any) -> dict[str, float]:
    table = stack_named(stack_of(trainer))
    return {k: float(v) for k in table.companions if (v := getattr(trainer.args, k, None))}


def versions_of(trainer: Any) -> int:
    """Return how many versions of the weights may have sampled what a trainer still learns from.

    A queue gives out what is at most ``max_staleness`` versions old, and one batch waits behind it.
    """
    return int(getattr(trainer.args, "max_staleness", None) or 0) + 2


def clip_of(trainer: Any) -> Clip:
    """Return the clip of a trainer.

    TRL's cispo caps the weight at ``epsilon_high`` itself, and not at 1 + that.
    """
    args = trainer.args
    low = float(getattr(args, "epsilon", None) or DEFAULT_CLIP)
    high = float(getattr(args, "epsilon_high", None) or low)
    name = str(getattr(args, "loss_type", None) or "grpo")
    by_answer = getattr(args, "importance_sampling_level", "token") == "sequence"
    fault = None if name in LOSSES else f"TRL's loss {name} has a clip of its own kind"
    if getattr(args, "delta", None) is not None:
        fault = "delta clips on a second side, of which nothing is measured"
    loss = LOSSES.get(name, "grpo")
    if loss == "cispo":
        return Clip(loss=loss, low=low, high=high - 1, fault=fault)
    return Clip(loss="gspo" if by_answer else loss, low=low, high=high, fault=fault)


def staleness_bound(generated: int, accumulated: int) -> int:
    """Return S of TRL's schedule: micro-batches that one generation serves, and of one update.

    Generations begin at multiples of ``generated``, updates at multiples of ``accumulated``; the
    oldest rollout of an update is the older, the less the two are aligned.
    """
    aligned = math.gcd(generated, accumulated)
    return (accumulated - aligned + generated - 1) // accumulated


def schedule_of(trainer: Any) -> Schedule:
    """Return the learning rate that a training plans for each learner step, from 0.

    Of a scheduler that is no function of the step the rate it was given is taken for all.
    """
    scheduler = getattr(trainer.lr_scheduler, "scheduler", trainer.lr_scheduler)
    factors = getattr(scheduler, "lr_lambdas", None)
    if factors and callable(factors[0]):
        factor, rate = factors[0], float(scheduler.base_lrs[0])
        return lambda step: rate * float(factor(step))
    rate = float(trainer.args.learning_rate)
    return lambda _: rate


def config_of(trainer: Any, steps: int) -> dict[str, Any]:
    """Return the setting of a training: Etalon's names, beside them TRL's own that have no other.

    Args:
        trainer: of TRL.
        steps: learner steps that are planned.
    """
    args, table, beside = trainer.args, stack_named(stack_of(trainer)), _companions(trainer)
    knob, clip = getattr(args, table.knob, None), clip_of(trainer)
    config: dict[str, Any] = {
        "learning_rate": float(args.learning_rate),
        "steps": int(steps),
        "clip_epsilon": clip.low,
        "group_size": int(getattr(args, "num_generations", None) or 1),
        "loss": clip.loss,
        "weight_decay": float(args.weight_decay),
        "adam_beta1": float(args.adam_beta1),
        "adam_beta2": float(args.adam_beta2),
        "seed": int(args.seed),
        "trl": {
            "loss_type": str(getattr(args, "loss_type", None) or "grpo"),
            "beta": float(getattr(args, "beta", None) or 0.0),
            **beside,
        },
    }
    if clip.high > 0 and clip.high != clip.low:
        config["clip_epsilon_high"] = clip.high
    if table.name == "trl" and knob is not None:
        generated = int(knob) * int(getattr(args, "num_iterations", None) or 1)
        accumulated = int(args.gradient_accumulation_steps)
        config["max_staleness"] = staleness_bound(generated, accumulated)
    elif knob is not None:
        config["max_staleness"] = staleness_of(table, float(knob), beside)
    rows = int(args.per_device_train_batch_size) * int(args.gradient_accumulation_steps)
    prompts = rows * int(args.world_size) // config["group_size"]
    if prompts >= 1:
        config["prompts"] = prompts
    return config
