"""Checkpoints on disk: the state of a run at rest, in a folder of its own, complete or not there.

Tensors lie in a safetensors file, everything else in JSON beside it, and a card written last holds
their hashes. A folder is made under another name and renamed when it has reached the disk, so that
a process which dies at any moment leaves the checkpoint before. What a state consists of is the
matter of the objects that have one (``state_dict``); here it is only written and read.
"""

import hashlib
import json
import logging
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

logger = logging.getLogger(__name__)

KEPT = 2
TENSORS, STATE, CARD = "tensors.safetensors", "state.json", "card.json"
FORMAT = 1


class NoCheckpoint(LookupError):
    """A run has no checkpoint, or none that can be read."""


class DamagedCheckpoint(ValueError):
    """The files of a checkpoint are not what was written."""


class Checkpoints:
    """The checkpoints of one run, each in a folder named by the number of learner steps taken."""

    def __init__(self, folder: Path) -> None:
        """Nothing is made before the first one is saved."""
        self.folder = folder

    def steps(self) -> list[int]:
        """Return the number of learner steps taken at each checkpoint, ascending."""
        if not self.folder.is_dir():
            return []
        return sorted(int(each.name) for each in self.folder.iterdir() if each.name.isdigit())

    def save(self, step: int, state: Mapping[str, Any]) -> None:
        """Write the state after ``step`` learner steps and forget all but the newest ``KEPT``.

        A checkpoint of that step which is there already is left: the state of a step is one.
        """
        final = self.folder / str(step)
        if final.exists():
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        making = Path(tempfile.mkdtemp(prefix=f".{step}-", dir=self.folder))
        try:
            _write(making, step, state)
            making.replace(final)
            _to_disk(self.folder)
        except BaseException:
            shutil.rmtree(making, ignore_errors=True)
            raise
        self.keep(KEPT)

    def load(self, device: torch.device, *, most: int | None = None) -> "Found":
        """Read the newest checkpoint that can be read; damaged ones beyond it are removed.

        One after more than ``most`` learner steps, whose rows the archive lost, counts as damaged.

        Raises:
            NoCheckpoint: there is none.
        """
        damaged: list[str] = []
        for step in reversed(self.steps()):
            folder = self.folder / str(step)
            try:
                if most is not None and step > most:
                    raise DamagedCheckpoint(f"the archive holds the rows of {most} steps only")
                state = _read(folder, device)
                return Found(step=step, state=state, damaged=tuple(damaged))
            except DamagedCheckpoint as error:
                damaged.append(f"the checkpoint at step {step} is damaged: {error}")
                shutil.rmtree(folder)
        raise NoCheckpoint("; ".join(damaged) or f"there is no checkpoint in {self.folder}")

    def keep(self, newest: int) -> None:
        """Remove all but the newest ones, and what a killed process left half-made."""
        if not self.folder.is_dir():
            return
        kept = {str(step) for step in self.steps()[-newest:]} if newest else set()
        for each in self.folder.iterdir():
            if each.name not in kept:
                shutil.rmtree(each, ignore_errors=True)
        if not kept:
            self.folder.rmdir()


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """A checkpoint: learner steps taken, the state, and in words which newer ones were damaged."""

    step: int
    state: dict[str, Any]
    damaged: tuple[str, ...]


class Pace:
    """When the next checkpoint is due: after so many steps, or after a while."""

    SECONDS = 60.0
    SHARE = 0.02
    """Writing takes at most this share of the time, however large the model."""

    def __init__(self, every: int | None) -> None:
        """``every`` learner steps; None for at most once a minute; 0 for never."""
        self.ever = every != 0
        self._every = every
        self._saved_at: float | None = None
        self._cost = 0.0

    def due(self, step: int) -> bool:
        """Whether to write one after ``step`` learner steps; the first time always."""
        if not self.ever:
            return False
        if self._saved_at is None:
            return True
        if self._every is not None:
            return step % self._every == 0
        pause = max(self.SECONDS, self._cost / self.SHARE)
        return time.monotonic() - self._saved_at >= pause

    def saved(self, seconds: float) -> None:
        """Take note that one was written and how long that took."""
        self._saved_at, self._cost = time.monotonic(), seconds


def _write(folder: Path, step: int, state: Mapping[str, Any]) -> None:
    packed = _Packed()
    tree = packed.pack(state)
    save_file(packed.tensors, folder / TENSORS)
    (folder / STATE).write_text(json.dumps(tree))
    hashes = {name: _hash(folder / name) for name in (TENSORS, STATE)}
    (folder / CARD).write_text(json.dumps({"format": FORMAT, "step": step, "sha256": hashes}))
    for name in (TENSORS, STATE, CARD):
        _to_disk(folder / name)
    _to_disk(folder)


def _read(folder: Path, device: torch.device) -> dict[str, Any]:
    """Read a state into memory of its own: the last bits of a dot product depend on alignment."""
    try:
        card = json.loads((folder / CARD).read_text())
        if card["format"] != FORMAT:
            raise DamagedCheckpoint(f"its format is {card['format']}, this code reads {FORMAT}")
        for name, expected in card["sha256"].items():
            if _hash(folder / name) != expected:
                raise DamagedCheckpoint(f"{name} is not what was written")
        tree = json.loads((folder / STATE).read_text())
        tensors = {name: each.clone() for name, each in load_file(folder / TENSORS).items()}
        state: dict[str, Any] = _unpacked(tree, tensors, device)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        if isinstance(error, DamagedCheckpoint):
            raise
        raise DamagedCheckpoint(f"{type(error).__name__}: {error}") from error
    return state


def _hash(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _to_disk(path: Path) -> None:
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


class _Packed:
    """A nested state as JSON, with its tensors, arrays and long lists of floats beside it."""

    def __init__(self) -> None:
        self.tensors: dict[str, Tensor] = {}
        self._names: dict[int, str] = {}  # by identity: a snapshot that is shared is kept once

    def pack(self, value: Any) -> Any:
        if isinstance(value, Mapping):
            return {"dict": [[key, self.pack(each)] for key, each in value.items()]}
        if isinstance(value, Tensor):
            kind = "tensor" if value.device.type == "cpu" else "tensor on device"
            return {kind: self._named(value, value.detach())}
        if isinstance(value, np.ndarray):
            return {"array": self._named(value, torch.from_numpy(value))}
        if isinstance(value, list) and value and all(type(each) is float for each in value):
            return {"floats": self._named(value, torch.tensor(value, dtype=torch.float64))}
        if isinstance(value, (list, tuple)):
            return [self.pack(each) for each in value]
        if value is None or isinstance(value, (bool, int, float, str)):
            return value
        raise TypeError(f"{type(value).__name__} cannot be part of a checkpoint")

    def _named(self, value: object, tensor: Tensor) -> str:
        name = self._names.setdefault(id(value), str(len(self._names)))
        self.tensors[name] = tensor.cpu().contiguous()
        return name


def _unpacked(tree: Any, tensors: dict[str, Tensor], device: torch.device) -> Any:
    if isinstance(tree, list):
        return [_unpacked(each, tensors, device) for each in tree]
    if not isinstance(tree, dict):
        return tree
    [(kind, found)] = tree.items()
    if kind == "dict":
        return {key: _unpacked(each, tensors, device) for key, each in found}
    if kind == "tensor on device":
        tensors[found] = tensors[found].to(device)  # once, however often it is shared
    if kind == "array":
        return tensors[found].numpy().copy()
    return tensors[found].tolist() if kind == "floats" else tensors[found]
