"""A person's own model, prompts and reward, as small as they can be, in real files."""

import json
from pathlib import Path
from typing import Any

import torch
from factories import a_config
from transformers import Qwen2Config, Qwen2ForSequenceClassification

from trainer.config import TrainerConfig
from trainer.learner import Learner
from trainer.workloads.arithmetic import VOCABULARY, build_model, build_tokenizer
from trainer.workloads.choice import task_and_start

PROMPTS = [{"prompt": f"{a}+{a}=", "answer": str(2 * a), "hint": a} for a in range(10, 26)]
LENGTH = "def judge(prompts, completions, **keys):\n    return [len(c) for c in completions]\n"


def save_model(folder: Path, *, tokenizer: Any = None) -> Path:
    """Save an untrained causal LM of 2 k parameters with its tokenizer."""
    build_model(16, 1).save_pretrained(folder)
    (tokenizer or build_tokenizer()).save_pretrained(folder)
    return folder


def save_reward_model(folder: Path, *, labels: int = 1, tokenizer: Any = None) -> Path:
    """Save an untrained sequence classifier over the same signs."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = Qwen2ForSequenceClassification(
            Qwen2Config(
                vocab_size=len(VOCABULARY),
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=4,
                num_key_value_heads=4,
                num_labels=labels,
                initializer_range=0.5,  # scores that differ, as those of a trained one
            )
        )
    model.save_pretrained(folder)
    (tokenizer or build_tokenizer()).save_pretrained(folder)
    return folder


def without(*tokens: str) -> Any:
    """Build the tokenizer without some of its special tokens: "pad", "eos"."""
    tokenizer = build_tokenizer()
    for token in tokens:
        setattr(tokenizer, f"{token}_token", None)
    return tokenizer


def write_prompts(file: Path, rows: list[Any] | None = None) -> Path:
    """Write a JSONL file of objects."""
    lines = [json.dumps(row) for row in (PROMPTS if rows is None else rows)]
    file.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return file


def own_values(folder: Path, reward: str = LENGTH, **changes: Any) -> dict[str, Any]:
    """Write everything a custom run needs into a folder and return the settings that name it.

    ``reward`` is the source of its function ``judge``; a change that is None takes a setting away.
    """
    if not (folder / "model").exists():
        save_model(folder / "model")
    if not (folder / "prompts.jsonl").exists():
        write_prompts(folder / "prompts.jsonl")
    (folder / "own_reward.py").write_text(reward)
    values = {
        "workload": "custom",
        "model": str(folder / "model"),
        "prompts_file": str(folder / "prompts.jsonl"),
        "reward": f"{folder / 'own_reward.py'}:judge",
        "max_new_tokens": 3,
        "prompts": 4,
        "group_size": 4,
        "steps": 3,
        "evaluation_rollouts": 16,
    }
    return {name: value for name, value in (values | changes).items() if value is not None}


def own_config(folder: Path, reward: str = LENGTH, **changes: Any) -> TrainerConfig:
    """Return the configuration of a custom run on what ``own_values`` writes."""
    return a_config(**own_values(folder, reward, **({"device": "cpu"} | changes)))


def own_learner(kind: type[Learner], folder: Path, reward: str = LENGTH, **changes: Any) -> Learner:
    """Make a learner of a kind on a model, prompts and a reward of one's own, in real files."""
    config = own_config(folder, reward, **changes)
    return kind("a run", config, *task_and_start(config, folder, lambda *_: None))
