"""Delivers what was raised: one thread for each destination that has something to be sent.

The archive is the queue; nothing is kept in memory. A destination that hangs holds up neither
judging nor the others. Each delivery is claimed, sent and recorded, in this order: once a success
is recorded nobody sends it again, and a process that dies between sending and recording may cause a
second one when its claim runs out.
"""

import logging
import time
from collections.abc import Mapping, Sequence
from threading import Thread

from storage.errors import RunNotFound, StorageError
from storage.patience import patiently
from storage.records import AlertDelivery
from storage.store import Store

from .payloads import alert_of, printable
from .rules import MOST_SECONDS, Destination
from .sending import NotDelivered, send

BACKOFF = (5.0, 15.0, 60.0, 300.0, 900.0, 3600.0)
"""Seconds between tries; after the last of them a delivery has failed."""
CLAIM_SECONDS = 2 * MOST_SECONDS
"""Longer than any destination may take."""
TOO_OLD_SECONDS = 24 * 3600.0

logger = logging.getLogger(__name__)


class Courier:
    """Sends from one archive to the destinations of one file."""

    def __init__(
        self,
        store: Store,
        destinations: Mapping[str, Destination | None],
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        """Begin with nothing on its way."""
        self._store, self._destinations, self._backoff = store, destinations, backoff
        self._threads: dict[str, Thread] = {}

    def send_due(self) -> None:
        """Start to send what is due, and return at once."""
        self._threads = {name: each for name, each in self._threads.items() if each.is_alive()}
        for name, wait in self._store.deliveries_due_in().items():
            if name not in self._destinations:
                self._leave(name, overdue=-wait)
            elif wait <= 0 and name not in self._threads:
                thread = Thread(target=self._send_all, args=(name,), daemon=True)
                self._threads[name] = thread
                thread.start()

    def _leave(self, name: str, *, overdue: float) -> None:
        """Leave a destination to the watcher whose file names it, if within a day there is one."""
        if overdue >= TOO_OLD_SECONDS:
            why = "the file names no such destination"
            left = self._store.give_up_deliveries(name, overdue=TOO_OLD_SECONDS, failure=why)
            logger.error("%d alerts did not reach %s: %s", left, printable(name), why)

    def finish(self, seconds: float) -> None:
        """Send what is due, or will be, within so many seconds; what then is left stays pending."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            self.send_due()
            due = [w for n, w in self._store.deliveries_due_in().items() if n in self._destinations]
            if not self._threads and not any(wait <= left for wait in due):
                return
            time.sleep(min(0.05, left))

    def wait(self, seconds: float) -> None:
        """Let what is being sent come to its end, for at most so long; start nothing."""
        until = time.monotonic() + seconds
        for thread in self._threads.values():
            thread.join(max(0.0, until - time.monotonic()))

    def _send_all(self, name: str) -> None:
        try:
            while (claimed := self._claim(name)) is not None:
                self._send(claimed)
        except StorageError as error:  # away, and asked again with the next look
            logger.warning("alerts to %s: %s", name, error)

    def _claim(self, name: str) -> AlertDelivery | None:
        return self._store.claim_delivery(name, seconds=CLAIM_SECONDS)

    def _send(self, claimed: AlertDelivery) -> None:
        try:
            run = self._store.run(claimed.run_id)
        except RunNotFound:
            return  # its alerts are gone with it
        if time.time() - claimed.time > TOO_OLD_SECONDS:
            self._settle(claimed, claimed.failure or "nobody could send it within a day")
            return
        if claimed.attempts > len(self._backoff) + 1:  # those who tried did not live to tell
            self._settle(claimed, claimed.failure or "whoever sent it ended meanwhile")
            return
        try:
            send(self._destinations[claimed.destination], alert_of(claimed, run))
        except NotDelivered as failure:
            self._again_or_never(claimed, failure)
        else:
            self._settle(claimed, None)

    def _again_or_never(self, claimed: AlertDelivery, failure: NotDelivered) -> None:
        reason = failure.reason
        if failure.final or claimed.attempts > len(self._backoff):
            self._settle(claimed, reason)
            return
        wait = max(self._backoff[claimed.attempts - 1], failure.after or 0.0)
        patiently(lambda: self._store.postpone_delivery(claimed, seconds=wait, failure=reason))

    def _settle(self, claimed: AlertDelivery, reason: str | None) -> None:
        patiently(lambda: self._store.settle_delivery(claimed, reason))
        if reason is not None:
            name, tries = claimed.destination, claimed.attempts
            about = printable(f"alert {claimed.rule} of run {claimed.run_id}")
            logger.error("%s did not reach %s in %d tries: %s", about, name, tries, reason)
