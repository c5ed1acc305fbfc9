"""Which runs are of the same setting: those whose constants speak of one another. Pure."""

from typing import Any

from trainer.config import TrainerConfig

NOT_THE_SETTING = {
    "learning_rate",
    "max_staleness",
    "steps",
    "seed",
    "threads",
    "rollout_workers",
    "engine",
    "device",
    "name",
    "group",
    "evaluate_every",
    "evaluation_rollouts",
    "kl_to_start_every",
    "bias_every",
    "bias_study",
    "bias_shards",
    "sample_every",
    "samples_kept",
    "checkpoint_every",
    "bias_prompts",
    "stop_on_collapse",
    "reward_timeout",
    "micro_batch_size",
    "gradient_checkpointing",
    "save_policy",
}
"""Fields that may differ between runs of the same setting."""


def setting_of(config: TrainerConfig) -> dict[str, Any]:
    """Return the fields that must agree for the constants of one run to speak of another."""
    setting = {k: v for k, v in config.model_dump().items() if k not in NOT_THE_SETTING}
    if config.epsilon_high == config.epsilon_low:  # the same, whether it was said or not
        setting["clip_epsilon_high"] = None
    setting["lora_alpha"] = config.lora_scale * (config.lora_rank or 0)
    if config.lora_rank is None:
        setting["lora_targets"] = None  # nothing is trained by it
    return setting


def differences(one: TrainerConfig, other: TrainerConfig) -> list[str]:
    """Name the fields of the setting in which two configurations differ, with both values."""
    left, right = setting_of(one), setting_of(other)
    return [f"{k} {left[k]} ≠ {right[k]}" for k in left if left[k] != right[k]]
