"""What a trainer of TRL was told, in Etalon's names (``storage/importers/stacks.py``)."""

from typing import Any

from storage.importers.stacks import stack_named
from storage.importers.staleness import completed, staleness_of

LOSSES = {"grpo": "grpo", "bnpo": "grpo", "dapo": "grpo", "dr_grpo": "dr_grpo", "cispo": "cispo"}
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


def config_of(trainer: Any, steps: int) -> dict[str, Any]:
    """Return the setting of a training: Etalon's names, beside them TRL's own that have no other.

    Args:
        trainer: of TRL.
        steps: learner steps that are planned.
    """
    args, table, beside = trainer.args, stack_named(stack_of(trainer)), _companions(trainer)
    knob = getattr(args, table.knob, None)
    epsilon = float(getattr(args, "epsilon", None) or DEFAULT_CLIP)
    high = getattr(args, "epsilon_high", None)
    loss = str(getattr(args, "loss_type", None) or "grpo")
    by_answer = getattr(args, "importance_sampling_level", "token") == "sequence"
    config: dict[str, Any] = {
        "learning_rate": float(args.learning_rate),
        "steps": int(steps),
        "clip_epsilon": epsilon,
        "group_size": int(getattr(args, "num_generations", None) or 1),
        "loss": "gspo" if by_answer else LOSSES.get(loss, "grpo"),
        "weight_decay": float(args.weight_decay),
        "adam_beta1": float(args.adam_beta1),
        "adam_beta2": float(args.adam_beta2),
        "seed": int(args.seed),
        "trl": {"loss_type": loss, "beta": float(getattr(args, "beta", None) or 0.0), **beside},
    }
    if high is not None:
        config["clip_epsilon_high"] = float(high)
    if knob is not None:
        config["max_staleness"] = staleness_of(table, float(knob), beside)
    rows = int(args.per_device_train_batch_size) * int(args.gradient_accumulation_steps)
    prompts = rows * int(args.world_size) // config["group_size"]
    if prompts >= 1:
        config["prompts"] = prompts
    return config
