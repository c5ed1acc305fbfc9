"""Logs of TRL and prime-rl as they write them, row by row."""

import json

TRL_ROW = {
    "loss": 0.01,
    "grad_norm": 2.8,
    "learning_rate": 1e-6,
    "entropy": 1.9,
    "reward": 0.25,
    "reward_std": 0.4,
    "frac_reward_zero_std": 0.5,
    "rewards/exact/mean": 0.25,
    "rewards/exact/std": 0.4,
    "clip_ratio/low_mean": 0.01,
    "clip_ratio/low_min": 0.0,
    "clip_ratio/high_mean": 0.02,
    "clip_ratio/high_max": 0.05,
    "clip_ratio/region_mean": 0.03,
    "completions/mean_length": 12.0,
    "num_tokens": 1024.0,
    "step_time": 0.5,
    "epoch": 0.1,
}
PRIME_ROW = {
    "optim/lr": 1e-6,
    "optim/grad_norm": 0.4,
    "loss/mean": 0.1,
    "entropy/all/mean": 1.0,
    "mismatch_kl/all/mean": 2e-3,
    "mismatch_kl/math/mean": 3e-3,
    "off_policy/mean": 1.5,
    "off_policy/max": 4.0,
    "is_masked/mean": 0.01,
}
START = 1_780_000_000.0


def trainer_state(rows, **changes):
    """The file as transformers writes it."""
    state = {
        "best_global_step": None,
        "best_metric": None,
        "best_model_checkpoint": None,
        "epoch": 1.0,
        "eval_steps": 500,
        "global_step": len(rows),
        "is_hyper_param_search": False,
        "is_local_process_zero": True,
        "is_world_process_zero": True,
        "log_history": [{**row, "step": i} for i, row in enumerate(rows, start=1)],
        "logging_steps": 1,
        "max_steps": 200,
        "num_input_tokens_seen": 0,
        "num_train_epochs": 1,
        "save_steps": 50,
        "stateful_callbacks": {"TrainerControl": {"args": {}, "attributes": {}}},
        "total_flos": 0.0,
        "train_batch_size": 8,
        "trial_name": None,
        "trial_params": None,
    }
    return json.dumps(state | changes, indent=2) + "\n"


def lines(*rows):
    return "".join(json.dumps(row) + "\n" for row in rows)


def only(store):
    [run] = store.runs()
    return run
