"""Worker processes that carry out many runs each, so that torch is imported once per process.

Both ends are here. The pool writes ids of queued runs, one per line, into the standard input of its
workers; whoever claims a run in the archive first has it. That pipe is also the leash: when it
ends, for whatever reason, a worker ends after its present run. Results travel through the archive.
"""

import contextlib
import json
import logging
import os
import select
import signal
import socket
import subprocess
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Protocol, Self

from storage.engine import home
from storage.errors import ArchiveUnavailable
from storage.journal import send_journal
from storage.liveness import process_mark
from storage.patience import patiently
from storage.records import RunInfo, RunStatus
from storage.store import Store, new_run_id

from .config import TrainerConfig
from .launch import claim, log_file, spawn

logger = logging.getLogger(__name__)

STOP_SECONDS = 60.0
"""How long a worker that is stopped may take to end its present learner step."""
LOG_TAIL_CHARACTERS = 2000
PER_RUN = ("learning_rate", "max_staleness", "seed", "name", "group")
"""What differs between the cells of one setting; no warm start depends on it."""


class Carriers(Protocol):
    """Whoever carries out the queued runs of a sweep: processes here, or tasks on other machines.

    Leaving the context ends them, and the runs that they are in the middle of.
    """

    def __enter__(self) -> Self:
        """Begin."""

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        """End them."""

    def owns(self, run: RunInfo) -> bool:
        """Whether one of them, dead or alive, has taken the run."""

    def tend(self, runs: Sequence[RunInfo]) -> None:
        """Let them have the queued ones of these runs, in their order."""

    def bury(self) -> None:
        """Record what became of the runs of those that have died."""


class WorkersFailed(RuntimeError):
    """A worker process gave up before it took a run; the message holds what it printed."""


@dataclass(slots=True)
class _Member:
    process: subprocess.Popen[bytes]
    log: Path
    offered: set[str] = field(default_factory=set)

    def offer(self, run_ids: Sequence[str]) -> None:
        """Write the ids that were not offered before; a worker that has died reads nothing."""
        new = [run_id for run_id in run_ids if run_id not in self.offered]
        if not new or self.process.stdin is None:
            return
        self.offered.update(new)
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.write("".join(f"{run_id}\n" for run_id in new).encode())
            self.process.stdin.flush()

    def let_go(self) -> None:
        """End the leash."""
        if self.process.stdin is not None:
            with contextlib.suppress(BrokenPipeError):
                self.process.stdin.close()

    def last_words(self) -> str:
        """Return the end of what the process printed."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return text[-LOG_TAIL_CHARACTERS:].strip()


class Pool:
    """At most ``jobs`` worker processes; leaving the context ends them.

    Runs that they are in the middle of become ``stopped``, with every step that was taken.
    """

    def __init__(self, store: Store, group: str, jobs: int) -> None:
        """Begin without a process."""
        self._store, self._group, self._jobs = store, group, jobs
        self._members: list[_Member] = []
        self._marks: dict[int, str | None] = {}  # of each process that was started, by its id
        self._warm = False

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            for member in self._members:
                member.let_go()
                member.process.terminate()
            for member in self._members:
                member.process.wait(STOP_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            for member in self._members:
                member.process.kill()
                member.process.wait()
        for member in self._members:
            _discard_if_empty(member.log)
        for run in self._taken().values():
            self._end(run, status=RunStatus.STOPPED, outcome_reason="interrupted")

    def owns(self, run: RunInfo) -> bool:
        """Whether a process of this pool, dead or alive, has taken the run."""
        if run.pid not in self._marks or run.host != socket.gethostname():
            return False
        return run.process_mark == self._marks[run.pid]  # ids are used again

    def tend(self, runs: Sequence[RunInfo]) -> None:
        """Offer the queued ones of these runs, in their order, and start the workers they need.

        The first worker makes the warm starts; the others get offers once it has taken a run.
        """
        queued = [run.id for run in runs if run.status is RunStatus.QUEUED]
        busy = sum(run.status is RunStatus.RUNNING and self.owns(run) for run in runs)
        while len(self._members) < min(self._jobs, busy + len(queued)):
            self._start()
        if self._members and not self._warm:
            self._warm = not self._members[0].offered <= set(queued)
        for member in self._members if self._warm else self._members[:1]:
            member.offer(queued)

    def _start(self) -> None:
        log = log_file(f"worker-{new_run_id()}")
        words = ["pool"] if self._warm or self._members else ["pool", "--warm"]
        with log.open("wb") as opened:
            process = spawn(words, self._store.url, opened, stdin=subprocess.PIPE)
        self._members.append(_Member(process, log))
        self._marks[process.pid] = process_mark(process.pid)

    def bury(self) -> None:
        """Record the runs whose worker has died under them as failed, with its last words.

        Raises:
            WorkersFailed: a worker gave up before it took a run.
        """
        dead = [member for member in self._members if member.process.poll() is not None]
        taken = self._taken() if dead else {}
        for member in dead:
            code, words = member.process.returncode, member.last_words()
            how = f"ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
            run = taken.get(member.process.pid)
            if run is not None and not self._told_its_end(run):
                error = f"its process {how}\n{words}".strip()
                self._end(run, status=RunStatus.FAILED, error=error)
            self._members.remove(member)  # once that is written: the archive may be away
            if run is None and (code > 0 or not self._warm):
                raise WorkersFailed(f"a worker {how} before it took a run\n{words}".strip())

    def _told_its_end(self, run: RunInfo) -> bool:
        """Whether a run came to its end and only its journal says so; it is brought in."""
        send_journal(self._store, run.id)
        return not self._store.run(run.id).status.alive

    def _taken(self) -> dict[int | None, RunInfo]:
        """Return the runs that read as running in a process of this pool, by its id."""
        runs = self._store.runs(group=self._group, archived=False)
        return {r.pid: r for r in runs if r.status is RunStatus.RUNNING and self.owns(r)}

    def _end(self, run: RunInfo, **changes: Any) -> None:
        self._store.update_run(run.id, ended_at=time.time(), **changes)


def _discard_if_empty(log: Path) -> None:
    if log.exists() and log.stat().st_size == 0:
        log.unlink()


class _Offers:
    """The worker's end of the leash: ids of runs, one per line, on standard input."""

    def __init__(self) -> None:
        self.pending: deque[str] = deque()
        self._unfinished = b""

    def next(self) -> str | None:
        """Return the next offered id, waiting for one; None when the leash has ended."""
        while not self.pending or select.select([0], [], [], 0)[0]:
            read = os.read(0, 65536)
            if not read:
                return None
            *lines, self._unfinished = (self._unfinished + read).split(b"\n")
            self.pending.extend(line.decode() for line in lines)
        return self.pending.popleft()


def cores_used(config: TrainerConfig) -> int:
    """Return how many cores a run keeps busy, those of its rollout workers included."""
    workers = config.rollout_workers if config.schedule == "queue" else 0
    return config.threads * (1 + workers)


def carry_out_offered(store: Store, *, warm: bool) -> None:
    """Carry out the offered runs that this process is the first to claim, until the leash ends.

    With ``warm`` the warm starts of all runs that are offered first are made before any is claimed.
    A run that fails is recorded by its worker and ends nothing else.
    """
    from .worker import Worker  # torch and transformers take seconds to import

    offers = _Offers()
    while (run_id := offers.next()) is not None:
        if warm:
            warm_up(store, [run_id, *offers.pending])
            warm = False
        if not patiently(partial(claim, store, run_id)):
            continue
        try:
            Worker(store, patiently(partial(store.run, run_id)), silent).run()
        except ArchiveUnavailable:
            raise  # the archive does not know how the run ended: whoever buries this process tells
        except Exception:
            logger.exception("run %s failed", run_id)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the Worker took it as a request to stop


def warm_up(store: Store, run_ids: Sequence[str]) -> None:
    """Make the warm starts and reward models of these runs, each setting's once."""
    from transformers.utils.logging import disable_progress_bar

    from .workloads.choice import task_and_start

    disable_progress_bar()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # removes a half-made one
    configs = {setting_of(c): c for c in (_config(store, run_id) for run_id in run_ids)}
    for config in configs.values():
        task_and_start(config, home(), logger.info)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _config(store: Store, run_id: str) -> TrainerConfig:
    return TrainerConfig.model_validate(store.run(run_id).config)


def silent(words: str, step: int, steps: int) -> None:
    """Say nothing: the sweep reads the archive."""


def setting_of(config: TrainerConfig) -> str:
    """Return everything that the cells of one sweep share, as text.

    Defaults are left out: an option that a later version adds does not change what is known.
    """
    shared = config.model_dump(mode="json", exclude=set(PER_RUN), exclude_defaults=True)
    return json.dumps(shared, sort_keys=True)
