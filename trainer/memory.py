"""How much memory a run needs at the least, how much there is, and what to do about it.

The need is a lower bound, so that no run is refused that would fit: weights, gradient, optimizer
and snapshots, all of which are there to the end, and what the evaluation of the last policy keeps
of its prompts. What answers take while they are learned from depends on their lengths, which nobody
knows before; it comes on top.
"""

import gc
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import nn

from .config import TrainerConfig

NUMBER = 4
"""Bytes of an fp32 number."""
GIB = 2**30
CGROUP = Path("/sys/fs/cgroup")
WHAT_TO_CHANGE = (
    "a smaller model, lora_rank, the optimizer sgd, a smaller max_staleness with the schedule "
    "constant or queue, fewer rollout_workers"
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """What the memory of a policy depends on: its numbers of weights, and the KV cache of a token.

    ``trained`` is the number of weights that are trained, ``cached`` the number of numbers that the
    key–value cache keeps of a token.
    """

    parameters: int
    trained: int
    vocabulary: int
    cached: int


def shape_of(model: nn.Module, config: TrainerConfig) -> Shape:
    """Return the shape of a model, whose weights may be on the device ``meta``."""
    settings: Any = model.config.get_text_config()  # type: ignore[operator, union-attr]
    heads = settings.num_attention_heads
    key_heads = getattr(settings, "num_key_value_heads", None) or heads
    width = getattr(settings, "head_dim", None) or settings.hidden_size // heads
    parameters = sum(p.numel() for p in model.parameters())
    rank = config.lora_rank
    return Shape(
        parameters=parameters,
        trained=parameters if rank is None else _adapter_weights(model, rank),
        vocabulary=settings.vocab_size,
        cached=2 * settings.num_hidden_layers * key_heads * width,
    )


def _adapter_weights(model: nn.Module, rank: int) -> int:
    """Return how many weights the adapters of one layer have: which get some, peft decides."""
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)]
    return min((rank * (m.in_features + m.out_features) for m in linear), default=0)


def least_bytes(config: TrainerConfig, shape: Shape, evaluated: int) -> dict[str, int]:
    """Return, by what it is for, how many bytes a run needs at the same time at the least.

    Args:
        config: the run.
        shape: its policy.
        evaluated: rollouts of the evaluation of the last policy.
    """
    whole, trained = NUMBER * shape.parameters, NUMBER * shape.trained
    copies = 1 if config.lora_rank is None else 0  # adapters share one model
    momenta = 2 if config.optimizer == "adamw" else int(config.adam_beta1 > 0)
    behind = min(config.max_staleness - (config.updates_per_batch - 1), config.steps) + 1
    need = {
        "weights": whole,
        "gradient": trained,
        "optimizer": momenta * trained,
        "behavior snapshots": trained if config.schedule == "cyclic" else behind * trained,
        "evaluation": evaluated * (shape.cached * 2 + 2 * shape.vocabulary * NUMBER),
    }
    if config.schedule == "queue":
        if config.engine == "local":  # actors have the memory of their own nodes
            need["rollout workers"] = config.rollout_workers * whole
    else:
        need["behavior policy"] = copies * whole
    if config.kl_coefficient > 0:
        need["reference policy"] = copies * whole
    return {name: size for name, size in need.items() if size}


def memory_fault(need: Mapping[str, int], device: torch.device) -> str | None:
    """Say in one line that a device has less memory than is needed; None when it may be enough."""
    available, total = available_bytes(device), sum(need.values())
    if available is None or total <= available:
        return None
    parts = sorted(need.items(), key=lambda item: -item[1])
    shown = ", ".join(f"{name} {size / GIB:.1f}" for name, size in parts if size >= total / 100)
    return (
        f"memory: this run needs at least {total / GIB:.1f} GiB ({shown}) and {device} has "
        f"{available / GIB:.1f} GiB; allowed: {WHAT_TO_CHANGE}"
    )


def available_bytes(device: torch.device) -> int | None:
    """Return how much memory this process can still get on a device; None where nobody tells."""
    if device.type == "cuda":
        gc.collect()  # an earlier run of this process may still hold some of it
        held = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + held
    if device.type != "cpu":
        return None
    return min([int(psutil.virtual_memory().available), *_cgroup_rooms()])


def _cgroup_rooms(root: Path = CGROUP, own: Path = Path("/proc/self/cgroup")) -> list[int]:
    """Return what the control groups that this process is in leave it, each one that has a limit.

    Files that were read lately count as used and are let go when memory is short.
    """
    if not own.is_file():
        return []
    rooms = []
    for line in own.read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if controllers == "":
            base, most, used, files = root, "memory.max", "memory.current", "inactive_file"
        elif "memory" in controllers.split(","):
            base = root / "memory"
            most, used = "memory.limit_in_bytes", "memory.usage_in_bytes"
            files = "total_inactive_file"
        else:
            continue
        folder = base / path.lstrip("/")
        for group in (folder, *folder.parents):
            limit = group / most
            if limit.is_file() and (text := limit.read_text().strip()).isdigit():
                lines = (group / "memory.stat").read_text().splitlines()
                stat = dict(each.split() for each in lines)
                taken = int((group / used).read_text()) - int(stat.get(files, 0))
                rooms.append(max(0, int(text) - taken))
            if group == base:
                break
    return rooms


def out_of_memory(error: BaseException) -> str | None:
    """Say in one line that memory ran out, if that is what an error means."""
    cpu = isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
    if not (cpu or isinstance(error, (MemoryError, torch.OutOfMemoryError))):
        return None
    return (
        "out of memory: what was being computed did not fit beside the weights; a smaller "
        "micro_batch_size, gradient_checkpointing, fewer prompts, fewer evaluation_rollouts or a "
        f"smaller max_new_tokens need less, and so do {WHAT_TO_CHANGE}"
    )
