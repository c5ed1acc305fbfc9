"""``python -m advisor watch``: judge live runs again and again, alert, start those that wait."""

import argparse
import signal
import time
from collections.abc import Callable
from contextlib import closing

import psutil

from storage.commandline import BadInput, print_json, tell
from storage.patience import patiently
from storage.records import RunInfo
from storage.store import Store
from trainer.launch import start_queued
from trainer.sweep import MOST_JOBS

from ..alerts.courier import Courier
from ..alerts.episodes import Episodes
from ..alerts.payloads import printable
from ..alerts.rules import Alerting, alerting
from .watch import Watcher

DEFAULT_SECONDS = 5.0
LOOKED_FOR_DUE = 1.0
"""Seconds between two looks for alerts that are due."""
LAST_SECONDS, INTERRUPTED_SECONDS = 20.0, 5.0
"""How long alerts are sent on when nothing is left to watch, and when it is interrupted."""


def add_watch_options(parser: argparse.ArgumentParser) -> None:
    """Add how often to look, and when to end."""
    parser.add_argument(
        "--every", metavar="SECONDS", default=str(DEFAULT_SECONDS), help="between looks (5)"
    )
    parser.add_argument(
        "--until-idle", action="store_true", help="end when no run is alive any more"
    )
    words = "start runs that were added with trainer run --later, so many at a time"
    parser.add_argument("--max-parallel", metavar="N", help=words)
    parser.add_argument(
        "--alerts",
        metavar="FILE",
        help="rules of alerts (alerts.toml in ETALON_HOME, if it is there)",
    )
    parser.add_argument("--beside", metavar="PID", help="end when this process is gone")


def run(options: argparse.Namespace) -> int:
    """Carry out ``watch`` and return its exit code."""
    every = _seconds(options.every)
    most = None if options.max_parallel is None else _count(options.max_parallel)
    beside = None if options.beside is None else _process(options.beside)
    rules = alerting(options.alerts)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like an interrupt
    with closing(Store.open(options.db)) as store:
        watching = Watching(store, rules, lambda: _is_over(beside), is_quiet=options.json)
        try:
            while True:
                if most is not None:
                    watching.start(most)
                alive = watching.look()
                if _is_over(beside) or (options.until_idle and not alive):
                    break
                watching.pause(every)
            watching.finish()
        finally:
            watching.courier.wait(INTERRUPTED_SECONDS)
    if options.json:
        print_json({"events": watching.events, "alerts": watching.alerts})
    return 0


class Watching:
    """The looks of one watcher, and how many events and deliveries of alerts came of them.

    While the archive is away it is asked again, until ``stopped``.
    """

    def __init__(
        self, store: Store, rules: Alerting, stopped: Callable[[], bool], *, is_quiet: bool
    ) -> None:
        self.courier = Courier(store, rules.known_destinations)
        self.events = self.alerts = 0
        self._watcher, self._episodes = Watcher(store), Episodes(store, rules)
        self._store, self._stopped, self._is_quiet = store, stopped, is_quiet

    def start(self, most: int) -> None:
        """Start runs that wait until as many live here as may."""
        while (run := start_queued(self._store, most)) is not None:
            self._say(f"{run.id} is starting")

    def look(self) -> list[RunInfo]:
        """Judge every run, raise alerts, and return the runs that are alive."""
        alive, events = patiently(self._watcher.look, stopped=self._stopped)
        self.events += len(events)
        for event in events:
            self._say(f"{event.run_id} step {event.step}: {event.message}")
        sights = self._watcher.sights
        self.alerts += patiently(lambda: self._episodes.follow(sights), stopped=self._stopped)
        return alive

    def pause(self, seconds: float) -> None:
        """Wait for the next look, and send what is due meanwhile."""
        until = time.monotonic() + seconds
        while True:
            patiently(self.courier.send_due, stopped=self._stopped)
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, LOOKED_FOR_DUE))

    def finish(self) -> None:
        """Send for a while what is left to be sent."""
        patiently(lambda: self.courier.finish(LAST_SECONDS), stopped=self._stopped)

    def _say(self, words: str) -> None:
        if not self._is_quiet:
            tell(printable(words), flush=True)


def _count(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= MOST_JOBS:
        return int(text)
    raise BadInput(
        f"max-parallel: {text!r} is not allowed; "
        f"allowed: whole number, 1 <= max-parallel <= {MOST_JOBS}"
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.1 <= value <= 3600:
        raise BadInput(f"every: {text!r} is not allowed; allowed: 0.1 <= every <= 3600, in seconds")
    return value


def _process(text: str) -> psutil.Process:
    try:
        return psutil.Process(int(text))
    except (ValueError, psutil.NoSuchProcess):
        raise BadInput(
            f"beside: {text!r} is not allowed; allowed: the id of a running process"
        ) from None


def _is_over(process: psutil.Process | None) -> bool:
    """Whether the process beside has ended, if there is one; a zombie has."""
    try:
        return process is not None and (
            not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return True
