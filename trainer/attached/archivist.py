"""Writes what happens in somebody else's process into the archive, and never gets in its way.

Everything goes through a queue to a thread of its own. A database that is slow, locked or gone
makes that thread wait and try again; the caller waits for nothing, and no error reaches it.
"""

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

from storage.errors import RunExists, RunNotFound, StorageError, WriteRefused
from storage.records import RunInfo, RunStatus, StepMetrics
from storage.store import Store

from .ending import Ending

logger = logging.getLogger("etalon")

HEARTBEAT_SECONDS = 1.0
LOOK_SECONDS = 10.0
LOOKING_SHARE = 0.02
"""Of the time, at most: a look at a long run takes seconds of the training's own process."""
RETRY_SECONDS = 2.0
LAST_WORDS_SECONDS = 10.0
"""How long the end of the process may wait for what is still to be written."""
MOST_AT_ONCE = 1000
ENDS_AS = {"collapsed": RunStatus.COLLAPSED, "diverged": RunStatus.DIVERGED}
MOST_UNWRITTEN = 100_000
"""Learner steps kept in memory while the archive is away; beyond it the oldest are let go."""

Write = Callable[[Store], None]
Look = Callable[[Store, str], None]


class Archivist:
    """Keeps one run of the archive up to date from a thread."""

    def __init__(self, run: RunInfo, db: str | None, look: Look | None = None) -> None:
        """Begin; ``look(store, run id)`` is called about every ten seconds, and at the end."""
        self._run, self._db, self._look = run, db, look
        self._waiting: deque[StepMetrics | Write] = deque()
        self._pending: list[StepMetrics | Write] = []  # taken, and kept until it is written
        self._news = threading.Event()
        self._ended = threading.Event()
        self._draft: StepMetrics | None = None
        self._ending = Ending()
        self._away = self._dead = False
        self._let_go = 0
        self.stop_requested = False
        self._thread = threading.Thread(target=self._work, name="etalon archivist", daemon=True)
        self._thread.start()

    def draft(self, row: StepMetrics) -> None:
        """Keep the newest learner step, of which more may become known, until the next ``send``."""
        self._draft = row

    def send(self, seconds_measure: float) -> None:
        """Write the draft, soon."""
        if self._draft is not None:
            self._ending.observe(self._draft)
            self._put(replace(self._draft, seconds_measure=seconds_measure))
            self._draft = None

    def do(self, write: Write) -> None:
        """Carry out another change of the archive, soon and in order."""
        self._put(write)

    def end(self, status: RunStatus, reason: str | None = None) -> None:
        """Record how the run ended and wait a little until everything is written.

        Of a training that came to its end its rewards say how; ``reason`` says why another did not.
        """
        if self._ended.is_set():
            return
        found = self._ending.fields()
        if reason is not None:
            found |= {"outcome": None, "outcome_reason": reason}
        elif found["outcome"] in ENDS_AS:
            status = ENDS_AS[found["outcome"]]
        now = time.time()
        self._put(
            lambda store: store.update_run(self._run.id, status=status, ended_at=now, **found)
        )
        self._ended.set()
        self._news.set()
        self._thread.join(LAST_WORDS_SECONDS)
        if self._unwritten:
            logger.warning("%d writes did not reach the archive", self._unwritten)

    def interrupted(self) -> None:
        """Record that the training ended before its end: by an error, or with its process."""
        if self._draft is not None:
            self._ending.observe(self._draft)
            self._put(self._draft)
            self._draft = None
        self.end(RunStatus.STOPPED, "the training ended before its last step")

    def _put(self, item: StepMetrics | Write) -> None:
        if self._dead:
            return
        if len(self._waiting) >= MOST_UNWRITTEN:
            with suppress(IndexError):  # the thread may just have taken it
                self._waiting.popleft()
                self._let_go += 1
        self._waiting.append(item)
        self._news.set()

    # -- in the thread ------------------------------------------------------------------------

    def _work(self) -> None:
        given_up = None
        store: Store | None = None
        beaten = time.monotonic()
        next_look = beaten + LOOK_SECONDS
        while True:
            over = self._ended.is_set()
            try:
                if store is None:
                    store = self._opened()
                now = time.monotonic()
                if now - beaten >= HEARTBEAT_SECONDS or over:
                    store.check_answers()  # a file that was deleted takes what is written, too
                self._write(store)
                if now - beaten >= HEARTBEAT_SECONDS:
                    self.stop_requested = store.heartbeat(self._run.id, time.time())
                    beaten = now
                if self._look is not None and (over or now >= next_look):
                    self._look(store, self._run.id)
                    took = time.monotonic() - now
                    next_look = now + max(LOOK_SECONDS, took / LOOKING_SHARE)
                self._back()
            except StorageError as error:
                self._gone(error)
                if store is not None and store.is_replaced:
                    store.close()
                    store = None
                if over and given_up is None:
                    given_up = time.monotonic() + LAST_WORDS_SECONDS
            except Exception:
                logger.exception("recording failed; the training goes on")
                self._dead = True
                self._waiting.clear()
                break
            if over and (not self._unwritten or (given_up and time.monotonic() > given_up)):
                break
            self._news.wait(RETRY_SECONDS if self._away else HEARTBEAT_SECONDS)
            self._news.clear()
        if store is not None:
            store.close()

    def _opened(self) -> Store:
        store = Store.open(self._db)
        try:
            with suppress(RunExists):  # created, and the answer was lost
                store.create_run(self._run)
        except StorageError:
            store.close()
            raise
        return store

    def _write(self, store: Store) -> None:
        while self._pending or self._waiting:
            if not self._pending:
                self._pending = self._taken()
            try:
                self._send(store)
            except (WriteRefused, RunNotFound):  # it would bar the way for all behind it
                logger.exception("%d writes are refused and dropped", len(self._pending))
            self._pending = []

    def _send(self, store: Store) -> None:
        first = self._pending[0]
        if isinstance(first, StepMetrics):
            store.append_steps([each for each in self._pending if isinstance(each, StepMetrics)])
        else:
            first(store)

    def _taken(self) -> list[StepMetrics | Write]:
        """Take the steps that wait next, or the one change that does."""
        taken = [self._waiting.popleft()]
        while isinstance(taken[0], StepMetrics) and len(taken) < MOST_AT_ONCE:
            if not self._waiting or not isinstance(self._waiting[0], StepMetrics):
                break
            taken.append(self._waiting.popleft())
        return taken

    @property
    def _unwritten(self) -> int:
        return len(self._waiting) + len(self._pending)

    def _gone(self, error: StorageError) -> None:
        if not self._away:
            self._away = True
            logger.warning(
                "the archive is away; steps are kept and sent when it is back: %s", error
            )

    def _back(self) -> None:
        if self._away:
            self._away = False
            lost = f"; {self._let_go} steps were too many to keep" if self._let_go else ""
            logger.warning("the archive is back, everything kept is written%s", lost)
