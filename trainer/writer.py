"""Sends what a run measures to the archive, in order, and keeps what the archive does not take.

A write is committed once the archive has it, or, while that is locked, full or away, the journal of
the run. Training goes on meanwhile: a learner step waits for a lock a moment, and not for the
archive. Where the disk does not take the journal either, writes are kept in memory, and when those
are too many the learner waits: nothing is dropped. What was kept is sent by ``beat``, which another
thread calls. Whoever sends it a second time, after a kill, changes nothing.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from storage.engine import journal_file
from storage.errors import (
    ArchiveUnavailable,
    RunNotFound,
    RunTakenOver,
    SchemaMismatch,
    StorageError,
    WriteRefused,
)
from storage.journal import Journal, Record, write
from storage.patience import AGAIN_SECONDS, patiently
from storage.records import Event
from storage.store import Store
from storage.words import counted

PATIENCE_SECONDS = 2.0
"""How long one write waits for a lock that others hold before it is kept."""
MOST_JOURNAL_BYTES = 256 * 2**20
MOST_IN_MEMORY = 2000
SENT_AT_ONCE = 200

Answer = TypeVar("Answer")
logger = logging.getLogger(__name__)


class Writer:
    """What one run writes, from any of its threads. Kept writes are sent before any later one."""

    def __init__(
        self, url: str, run_id: str, stopped: Callable[[], bool], process: Mapping[str, Any]
    ) -> None:
        """Take up the journal of the run, if there is one.

        ``stopped`` ends every waiting; ``process`` are the columns that tell whose the run is.
        """
        self._run_id, self._stopped, self._process = run_id, stopped, process
        self._taken_over: RunTakenOver | None = None
        self._store = patiently(partial(_opened, url), stopped=stopped)
        self._journal = Journal(journal_file(run_id))
        self._in_memory: deque[Record] = deque()  # behind those of the journal
        self._away_since: float | None = None
        self._kept = 0  # writes since then
        self._refused: StorageError | None = None  # what became of a write that was kept
        self._state = threading.Condition()  # guards all of the above
        self._sending = threading.Lock()

    @property
    def is_durable(self) -> bool:
        """Whether everything that was written outlives this process."""
        return not self._in_memory

    def write(self, record: Record) -> None:
        """Send one write, or keep it behind those that are kept.

        Raises:
            RunNotFound: the run is not in the archive any more.
            RunTakenOver: it has another process now, so nothing is written any more.
            WriteRefused: the archive does not take that, or what was kept before.
        """
        with self._state:
            if self._taken_over is not None:
                raise self._taken_over
            if self._refused is not None:
                refused, self._refused = self._refused, None
                raise refused
            if self._nothing_kept and self._taken(record):
                return
            self._keep(record)
            if len(self._in_memory) >= MOST_IN_MEMORY:
                logger.warning("%d writes are kept in memory; training waits", MOST_IN_MEMORY)
            while len(self._in_memory) >= MOST_IN_MEMORY and not self._stopped():
                self._state.wait(AGAIN_SECONDS)

    def to_disk(self) -> None:
        """Let what was written so far outlive a power cut too."""
        with self._state:
            self._store.to_disk()
            self._journal.to_disk()

    def beat(self) -> bool:
        """Count a sign of life, send what is kept, and return whether the run shall stop.

        The sign comes first: a run that was silent for long may have been given to another process,
        whose rows those that are kept here would overwrite.
        """
        if self._taken_over is not None:
            return True
        try:
            asked = self._asked(self._signed)
            self._send_kept()
            self._note_back()
            return asked
        except RunTakenOver as error:
            with self._state:
                self._taken_over = error
                self._journal.set_aside()
                self._state.notify_all()
            logger.error("%s; this process ends, and writes no more of it", error)
            return True
        except StorageError as error:  # a damaged journal too
            with self._state:
                self._note_away(error)
            return False

    def ask(self, question: Callable[[Store], Answer]) -> Answer:
        """Return what the archive answers once it has everything, however long it is away.

        Raises:
            ArchiveUnavailable: it is away, and the run shall stop.
        """
        return patiently(lambda: self._answer(question), stopped=self._stopped)

    def close(self, seconds: float) -> None:
        """Send what is kept, waiting for the archive for so many seconds.

        Raises:
            ArchiveUnavailable: it is still away; the message says what became of what is kept.
        """
        try:
            if self._taken_over is not None:
                return
            patiently(self._send_kept, seconds=seconds)
            if self._kept:
                self._note_back()
        except ArchiveUnavailable as error:
            raise ArchiveUnavailable(f"{error}; {self._what_is_left()}") from error
        finally:
            self._store.close()

    # -- sending ------------------------------------------------------------------------------

    def _signed(self) -> bool:
        return self._store.heartbeat(self._run_id, time.time(), **self._process)

    @property
    def _nothing_kept(self) -> bool:
        return self._journal.is_sent and not self._in_memory

    def _asked(self, question: Callable[[], Answer]) -> Answer:
        """Ask the archive that lies in its place, opened again if it was put back as another file.

        SQLite goes on writing into a file that was moved or removed.
        """
        with self._state:
            if self._store.is_replaced:
                self._store.close()
                try:
                    self._store = _opened(self._store.url)
                except SchemaMismatch as error:  # a backup that is not there to its end, say
                    raise ArchiveUnavailable(str(error)) from error
        self._store.check_place()
        return question()

    def _answer(self, question: Callable[[Store], Answer]) -> Answer:
        self._send_kept()
        return self._asked(lambda: question(self._store))

    def _taken(self, record: Record) -> bool:
        try:
            self._asked(lambda: write(self._store, record))
        except WriteRefused:
            raise
        except ArchiveUnavailable as error:
            self._note_away(error)
            return False
        return True

    def _send_kept(self) -> None:
        """Send everything that is kept, in order, while the learner may add to it."""
        with self._sending:
            while True:
                with self._state:
                    self._save()
                    if self._nothing_kept:
                        return
                    records, in_journal = self._next()
                for record in records:
                    self._send(record)
                with self._state:
                    self._forget(records, in_journal)

    def _send(self, record: Record) -> None:
        """Send a write that was kept; one that the archive refuses is told by the next ``write``.

        It would bar the way for all behind it.
        """
        try:
            self._asked(lambda: write(self._store, record))
        except (WriteRefused, RunNotFound) as error:
            logger.exception("a write that was kept is refused: %r", record)
            self._refused = error

    def _next(self) -> tuple[list[Record], bool]:
        """Return the oldest writes that are kept, and whether the journal holds them."""
        if not self._journal.is_sent:
            return self._journal.next(SENT_AT_ONCE), True
        return [self._in_memory[0]], False

    def _forget(self, records: list[Record], in_journal: bool) -> None:
        if in_journal:
            self._journal.forget()
        elif self._in_memory and self._in_memory[0] is records[0]:  # else it is in the journal
            self._in_memory.popleft()
        self._state.notify_all()

    # -- keeping ------------------------------------------------------------------------------

    def _keep(self, record: Record) -> None:
        self._kept += 1
        self._in_memory.append(record)
        self._save()

    def _save(self) -> None:
        """Move what is in memory behind the journal, as far as the disk takes it."""
        while self._in_memory and self._journal.size < MOST_JOURNAL_BYTES:
            try:
                self._journal.append(self._in_memory[0])
            except OSError as error:
                if len(self._in_memory) == 1:
                    logger.warning("%s; what is measured is kept in memory", error)
                return
            self._in_memory.popleft()

    def _note_away(self, error: StorageError) -> None:
        if self._away_since is None:
            self._away_since = time.monotonic()
            logger.warning("%s; until it does, %s keeps what is written", error, self._journal.path)

    def _note_back(self) -> None:
        """Say once that the archive answers, in the log, and among the events if it has all now."""
        with self._state:
            if self._away_since is None or not self._nothing_kept:
                return
        seconds = time.monotonic() - self._away_since
        writes = counted(self._kept, "write")
        words = f"the archive was away for {seconds:.0f} s; {writes} kept, and sent"
        if self._kept:
            now, warning = time.time(), "warning"
            event = Event(
                run_id=self._run_id, time=now, kind="archive", message=words, level=warning
            )
            self._asked(lambda: write(self._store, event))
        logger.warning(words)
        self._away_since, self._kept = None, 0

    def _what_is_left(self) -> str:
        if self._in_memory:
            return f"{len(self._in_memory)} writes are lost; the run goes on from its checkpoint"
        return (
            f"what it lacks is kept in {self._journal.path}: python -m trainer resume "
            f"{self._run_id}, or python -m storage check --repair, sends it"
        )


def _opened(url: str) -> Store:
    return Store.open(url, create=False, patience=PATIENCE_SECONDS)
