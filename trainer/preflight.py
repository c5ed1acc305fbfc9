"""What is checked before a run begins: its model, its prompts, and the memory it needs.

It takes the seconds that torch and transformers take to import, and loads no weights.
"""

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM

from storage.commandline import BadInput

from .config import TrainerConfig
from .learner import FINAL_ROLLOUTS
from .memory import least_bytes, memory_fault, shape_of
from .own_files import Prompt, read_prompts
from .policy import choose_device, loaded_tokenizer
from .workloads.arithmetic import build_model
from .workloads.custom import MAX_NEW_TOKENS


def check(config: TrainerConfig, *, here: bool = True) -> None:
    """Refuse a run that cannot work.

    Args:
        config: the run.
        here: whether it is for this machine, whose device and memory count then.

    Raises:
        BadInput: the machine has no such device or too little memory, the model cannot be loaded,
            or a prompt leaves it no room to answer.
    """
    device = choose_device(config.device) if here else None
    with torch.device("meta"):
        model = _own_shape(Path(config.model)) if config.model else _built_in_shape(config)
    if config.prompts_file is not None and config.model is not None:
        room = getattr(model.config.get_text_config(), "max_position_embeddings", None)
        file, answer = config.prompts_file, config.max_new_tokens or MAX_NEW_TOKENS
        _check_prompts(file, config.model, answer, room, _as_they_are(file, config.model))
    if device is None:
        return
    evaluated = max(FINAL_ROLLOUTS, config.evaluation_rollouts)
    if fault := memory_fault(least_bytes(config, shape_of(model, config), evaluated), device):
        raise BadInput(fault)


def _built_in_shape(config: TrainerConfig) -> Any:
    return build_model(config.hidden_size, config.layers)


def _own_shape(folder: Path) -> Any:
    """Return the model without weights, if what there is of them can be read."""
    try:
        for file in folder.glob("*.safetensors"):
            with safe_open(file, "pt") as opened:
                opened.keys()
        settings = AutoConfig.from_pretrained(folder, local_files_only=True)
        model: nn.Module = AutoModelForCausalLM.from_config(settings)
    except (OSError, ValueError, SafetensorError, json.JSONDecodeError) as error:
        why = str(error).strip().split("\n", 1)[0]
        raise BadInput(
            f"model: {str(folder)!r} cannot be loaded: {type(error).__name__}: {why}; allowed: a "
            "folder from save_pretrained"
        ) from error
    return model


def _as_they_are(file: str, folder: str) -> tuple[object, ...]:
    """Return what changes with the prompts, or with any file of the model's folder."""
    paths = [Path(file), *sorted(Path(folder).glob("*"))]
    stats = [(path, path.stat()) for path in paths if path.is_file()]
    return tuple((path.name, s.st_mtime_ns, s.st_size, s.st_ino) for path, s in stats)


@lru_cache(maxsize=1)  # a run checks what its command has checked, and tokens take seconds
def _check_prompts(
    file: str, model: str, answer: int, room: int | None, read_from: tuple[object, ...]
) -> None:
    """Refuse the first prompt that has no token or leaves the model no room to answer.

    Args:
        file: holds the prompts.
        model: folder of the tokenizer.
        answer: most tokens of an answer.
        room: how many tokens the model reads, None when it does not say.
        read_from: the files that are read, as they are: with others it is checked anew.
    """
    prompts: Sequence[Prompt] = read_prompts(file)
    tokenizer = loaded_tokenizer(Path(model), "model")
    for prompt, ids in zip(prompts, tokenizer([*map(str, prompts)])["input_ids"], strict=True):
        where = f"prompts_file: line {prompt.line} of {file!r}"
        if not ids:
            raise BadInput(f"{where} has a prompt of no token; allowed: at least one")
        if room is not None and len(ids) + answer > room:
            raise BadInput(
                f"{where} has a prompt of {len(ids)} tokens; allowed: at most {room - answer}, the "
                f"{room} that the model reads less max_new_tokens, {answer}"
            )
