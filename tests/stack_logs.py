"""A run of the trainer as another stack would have logged it: its own keys, and nothing besides."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from storage.records import StepMetrics

SHARED = {
    "loss": "loss",
    "grad_norm": "grad_norm",
    "learning_rate": "learning_rate",
    "entropy": "entropy",
    "reward": "reward_mean",
    "reward_std": "reward_std",
    "completions/mean_length": "response_length",
    "clip_ratio/low_mean": "clip_fraction_low",
    "clip_ratio/high_mean": "clip_fraction_high",
}
KEYS: Mapping[str, Mapping[str, str]] = {
    "trl": SHARED,
    "trl_async": {
        **SHARED,
        "kl": "approx_kl",
        "sample/staleness_mean": "staleness_mean",
        "sample/staleness_max": "staleness_max",
    },
    "verl": {
        "actor/lr": "learning_rate",
        "actor/grad_norm": "grad_norm",
        "actor/pg_loss": "loss",
        "actor/entropy": "entropy",
        "critic/score/mean": "reward_mean",
        "actor/pg_clipfrac": "clip_fraction",
        "actor/ppo_kl": "approx_kl",
        "training/off_policy/trajectory_staleness/mean": "staleness_mean",
        "training/off_policy/trajectory_staleness/max": "staleness_max",
    },
    "prime_rl": {
        "optim/lr": "learning_rate",
        "optim/grad_norm": "grad_norm",
        "loss/mean": "loss",
        "entropy/all/mean": "entropy",
        "effective/agent/reward/mean": "reward_mean",
        "mismatch_kl/all/mean": "approx_kl",
        "off_policy/mean": "staleness_mean",
        "off_policy/max": "staleness_max",
    },
}


def as_logged(
    rows: Sequence[StepMetrics], stack: str, updates_per_version: int = 1
) -> list[dict[str, float]]:
    """Return the rows under a stack's keys; a fraction that cannot be is logged as 0 there.

    Ages are counted in versions, of which the weights take one every so many updates; TRL's
    AsyncGRPOTrainer counts them one update before the rollouts are learned from.
    """
    logged = []
    for row in rows:
        values = {key: getattr(row, name) for key, name in KEYS[stack].items()}
        zeros = {key: 0.0 for key, value in values.items() if value is None and "clip" in key}
        ages = {
            key: max(0.0, value - (stack == "trl_async")) // updates_per_version
            for key, value in values.items()
            if value is not None and ("staleness" in key or "off_policy" in key)
        }
        logged.append({k: v for k, v in (values | zeros | ages).items() if v is not None})
    return logged


def write_log(
    path: Path, rows: Sequence[StepMetrics], stack: str, updates_per_version: int = 1
) -> Path:
    """Write the file that a stack leaves behind: a trainer state of TRL, JSON lines of others."""
    logged = as_logged(rows, stack, updates_per_version)
    if stack.startswith("trl"):
        history = [{**values, "step": step} for step, values in enumerate(logged, start=1)]
        state = {"log_history": history, "max_steps": len(rows), "logging_steps": 1}
        path.write_text(json.dumps(state), encoding="utf-8")
        return path
    first = 0 if stack == "prime_rl" else 1
    if stack == "verl":
        lines = [{"step": n, "data": values} for n, values in enumerate(logged, start=first)]
    else:
        lines = [{"step": n, **values} for n, values in enumerate(logged, start=first)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path
