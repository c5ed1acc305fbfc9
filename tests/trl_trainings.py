"""Trainings by TRL on the CPU, of a model of 4 k parameters that knows nothing."""

from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from own_things import save_model
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

ROWS = [{"prompt": f"{a}+{b}="} for a in range(8) for b in range(8)]


def share_of_digits(completions: list[str], **_: Any) -> list[float]:
    """Reward what random weights earn in different amounts."""
    return [sum(map(str.isdigit, each)) / max(1, len(each)) for each in completions]


def saved_model(folder: Path) -> Path:
    """Return a folder with an untrained model, the same in every folder."""
    model = folder / "model"
    if not model.exists():
        with torch.random.fork_rng():
            torch.manual_seed(0)
            save_model(model)
    return model


def trl_trainer(folder: Path, *, reward: Any = share_of_digits, **changes: Any) -> Any:
    """Return a trainer at S = 3: a batch is cut in two, and each half is learned from twice."""
    torch.set_num_threads(1)
    model = saved_model(folder)
    options = {
        "output_dir": str(folder / "a training"),
        "use_cpu": True,
        "bf16": False,
        "report_to": [],
        "logging_steps": 1,
        "max_steps": 24,
        "save_strategy": "no",
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": 1,
        "num_generations": 4,
        "steps_per_generation": 2,
        "num_iterations": 2,
        "max_completion_length": 6,
        "learning_rate": 1e-2,
        "lr_scheduler_type": "constant",
        "epsilon": 0.2,
        "loss_type": "grpo",
        "disable_tqdm": True,
        "log_level": "error",
        "seed": 0,
    }
    return GRPOTrainer(
        model=AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32),
        args=GRPOConfig(**(options | changes)),
        reward_funcs=reward,
        train_dataset=Dataset.from_list(ROWS),
        processing_class=AutoTokenizer.from_pretrained(model, padding_side="left"),
    )


def weights(trainer: Any) -> torch.Tensor:
    """Return the weights as they are now, in one vector."""
    return torch.cat([p.detach().reshape(-1).clone() for p in trainer.model.parameters()])
