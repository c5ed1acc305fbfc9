"""The newest weights of a learner, in memory that its rollout workers share with it.

There are two slots: the learner writes the older one while workers read the newer one, so nobody
waits for more than a copy, and each slot has a lock, so no copy is torn. The locks are the kernel's
record locks, which a process gives back however it dies, and the memory belongs to a file without a
name, which goes when the last process that knows it does: kill −9 leaves neither behind.
"""

import contextlib
import fcntl
import mmap
import os
import sys
import tempfile
from collections.abc import Iterator
from multiprocessing.reduction import DupFd
from typing import Any

import torch
from torch import Tensor

HEADER_BYTES = 4096
LATEST = 2
"""Place in the header of the slot that was written last; the places before it hold versions."""
NOTHING = -1


class PublishedWeights:
    """One fp32 vector and the version it has, written by one process and read by many.

    It can be passed to a process that is being started, and only then.
    """

    def __init__(self, size: int, descriptor: int | None = None) -> None:
        """Share ``size`` weights; with a ``descriptor`` those of whoever made it, else new ones."""
        self._size = size
        self._descriptor = _nameless_file() if descriptor is None else descriptor
        stride = -(-4 * size // 64) * 64  # as far apart as a cache line asks for
        if descriptor is None:
            os.ftruncate(self._descriptor, HEADER_BYTES + 2 * stride)
        memory = mmap.mmap(self._descriptor, HEADER_BYTES + 2 * stride)
        self._header = torch.frombuffer(memory, dtype=torch.int64, count=3)
        self._slots = [
            torch.frombuffer(memory, dtype=torch.float32, count=size, offset=offset)
            for offset in (HEADER_BYTES, HEADER_BYTES + stride)
        ]
        if descriptor is None:
            self._header.fill_(NOTHING)
            self._header[LATEST] = 0

    def __reduce__(self) -> tuple[Any, ...]:
        return _attached, (self._size, DupFd(self._descriptor))

    @property
    def version(self) -> int:
        """The version that was published last, −1 before the first."""
        return int(self._header[int(self._header[LATEST])])

    def publish(self, version: int, vector: Tensor) -> None:
        """Let every reader have ``vector`` from now on."""
        slot = 1 - int(self._header[LATEST])
        with self._locked(slot, fcntl.LOCK_EX):
            self._slots[slot].copy_(vector)
            self._header[slot] = version
            self._header[LATEST] = slot  # before anybody reads it, so that no reader goes back

    def load_into(self, vector: Tensor) -> int:
        """Copy the newest weights into ``vector`` and return their version."""
        slot = int(self._header[LATEST])
        with self._locked(slot, fcntl.LOCK_SH):
            vector.copy_(self._slots[slot])
            return int(self._header[slot])

    def close(self) -> None:
        """Let go of the file; readers keep what they have."""
        os.close(self._descriptor)

    @contextlib.contextmanager
    def _locked(self, slot: int, how: int) -> Iterator[None]:
        fcntl.lockf(self._descriptor, how, 1, slot)
        try:
            yield
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, slot)


def _attached(size: int, duplicate: Any) -> PublishedWeights:
    return PublishedWeights(size, duplicate.detach())


def _nameless_file() -> int:
    """Make a file without a name: in memory where the system can, which /dev/shm may be small for.

    A container often has 64 MB there, which is less than the weights of a small model.
    """
    if sys.platform == "linux":
        return os.memfd_create("weights")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())
