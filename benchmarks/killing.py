"""What the kinds of ``benchmarks.kills`` share: processes that are killed −9, and what is counted.

A process is forked from one that has everything loaded, so that a kill costs no import of torch.
It tells through a pipe which learner steps it has committed; what was told before the kill must be
there after it.
"""

import os
import signal
import sqlite3
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, fields

import psutil

from storage.check import inconsistencies
from storage.engine import journal_file
from storage.journal import Journal
from storage.liveness import process_gone
from storage.records import StepMetrics
from storage.store import Store

PATIENCE = 1800.0


@dataclass(slots=True)
class Tally:
    """What kills did: how many, to how many committed learner steps, and what was lost by them.

    ``doubled`` are rows that are there twice, ``stale`` such of an age beyond S, ``changed`` rows
    of a deterministic run that are not those of an undisturbed one, ``damaged`` archives with an
    inconsistency, ``stuck`` runs that did not go on to their end.
    """

    kills: int = 0
    runs: int = 0
    resumed: int = 0
    committed: int = 0
    lost: int = 0
    doubled: int = 0
    changed: int = 0
    stale: int = 0
    damaged: int = 0
    stuck: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether nothing was lost."""
        return not (
            self.lost or self.doubled or self.changed or self.stale or self.damaged or self.stuck
        )

    def add(self, other: "Tally") -> None:
        """Count what another one counted."""
        for each in fields(self):
            setattr(self, each.name, getattr(self, each.name) + getattr(other, each.name))


class Forked:
    """A process that does ``work`` and is killed, or ends; ``work`` may tell a number of steps."""

    def __init__(self, work: Callable[[Callable[[int], None]], None]) -> None:
        """Fork; nothing of the archive may be open here, because SQLite does not survive it."""
        self._told, tell = os.pipe()
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid == 0:
            code = 1
            try:
                os.close(self._told)
                work(lambda steps: _tell(tell, steps))
                code = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(code)
        os.close(tell)
        os.set_blocking(self._told, False)
        self._text = b""
        self.code: int | None = None

    @property
    def committed(self) -> int:
        """Return the largest number of learner steps that it told."""
        with suppress(BlockingIOError):
            while read := os.read(self._told, 65536):
                self._text = (self._text + read)[-64:]
        return int([b"0", *self._text.split()][-1])

    @property
    def has_ended(self) -> bool:
        """Whether it has ended; it is no zombie then."""
        if self.code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if pid else None
        return self.code is not None

    def children(self) -> list[psutil.Process]:
        """Return the processes that it started and that live."""
        try:
            return psutil.Process(self.pid).children(recursive=True)
        except psutil.Error:
            return []

    def kill(self) -> None:
        """Kill it −9 and wait until it and the processes that it started are gone."""
        children = self.children()
        if not self.has_ended:
            os.kill(self.pid, signal.SIGKILL)
        wait(lambda: self.has_ended)
        wait(lambda: all(map(is_gone, children)))

    def close(self) -> None:
        """Hear no more of it."""
        os.close(self._told)


def _tell(pipe: int, steps: int) -> None:
    os.write(pipe, f"{steps}\n".encode())


def committed_steps(store: Store, run_id: str) -> set[int]:
    """Return the learner steps of a run that the archive has, or its journal."""
    found = set(store.series(run_id, ["step"])["step"])
    records = Journal(journal_file(run_id)).next(sys.maxsize)
    return found | {record.step for record in records if isinstance(record, StepMetrics)}


def damage(store: Store) -> int:
    """Return 1 when the archive has an inconsistency that a kill may not leave, and print it."""
    lines = inconsistencies(store)
    dead = {run.id for run in store.runs() if run.status.alive and process_gone(run)}
    lines = [line for line in lines if not any(run_id in line for run_id in dead)]
    for line in lines:
        print(line, file=sys.stderr, flush=True)
    return 1 if lines else 0


def hold_lock(store_path: str, seconds: float) -> None:
    """Keep everybody else from writing into an archive for a while."""
    with closing(sqlite3.connect(store_path, timeout=PATIENCE, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        time.sleep(seconds)


def killed(process: psutil.Process) -> bool:
    """Kill a process −9, wait until it is gone, and return whether it lived until then."""
    lived = not is_gone(process)
    with suppress(psutil.NoSuchProcess):
        process.kill()
    wait(lambda: is_gone(process))
    return lived


def is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended; a zombie has."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait(true: Callable[[], bool]) -> None:
    """Wait for something another process does."""
    until = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {PATIENCE:.0f} s")
        time.sleep(0.01)
