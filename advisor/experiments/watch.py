"""``python -m advisor watch``: judge the runs that are alive, and store what changes, once.

Runs beside the dashboard and needs no browser. A regime counts as changed when two looks in a row
agree on it, so that a κ at its limit does not write an event every few seconds; a red flag is
stored once per run. What a run itself records (its collapse, its end) is not repeated.
"""

import argparse
import signal
import time
from collections.abc import Sequence
from contextlib import closing

import psutil

from storage.commandline import BadInput, print_json
from storage.records import Event, RunInfo
from storage.store import Store

from ..answer import diagnose
from ..regime import LIMITS, Diagnosis, Regime

REGIME_EVENT = "regime"
FLAG_EVENT = "red flag"
DEFAULT_SECONDS = 5.0
AGREEING_LOOKS = 2


def add_watch_options(parser: argparse.ArgumentParser) -> None:
    """Add how often to look, and when to end."""
    parser.add_argument(
        "--every", metavar="SECONDS", default=str(DEFAULT_SECONDS), help="between looks (5)"
    )
    parser.add_argument(
        "--until-idle", action="store_true", help="end when no run is alive any more"
    )
    parser.add_argument("--beside", metavar="PID", help="end when this process is gone")


def run(options: argparse.Namespace) -> int:
    """Carry out ``watch`` and return its exit code."""
    every = _seconds(options.every)
    beside = None if options.beside is None else _process(options.beside)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like an interrupt
    stored = 0
    with closing(Store.open(options.db)) as store:
        watcher = Watcher(store)
        while True:
            alive, events = watcher.look()
            stored += len(events)
            if not options.json:
                for event in events:
                    print(f"{event.run_id} step {event.step}: {event.message}", flush=True)
            if options.until_idle and not alive:
                break
            if beside is not None and _is_gone(beside):
                break
            time.sleep(every)
    if options.json:
        print_json({"events": stored})
    return 0


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


def _is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


class Watcher:
    """Looks at an archive again and again, and knows what it saw the time before."""

    def __init__(self, store: Store) -> None:
        """Begin without a look."""
        self._store = store
        self._seen: dict[str, list[Regime]] = {}

    def look(self) -> tuple[list[RunInfo], list[Event]]:
        """Judge every run that is alive; return these runs and the events that were stored."""
        alive = [run for run in self._store.runs(archived=False) if run.status.alive]
        events: list[Event] = []
        for run in alive:
            found = diagnose(self._store, run.id)
            events += self._regime_event(run, found)
            events += self._flag_events(run, found)
        for run_id in self._seen.keys() - {run.id for run in alive}:
            del self._seen[run_id]
        return alive, events

    def _regime_event(self, run: RunInfo, found: Diagnosis) -> Sequence[Event]:
        looks = self._seen.setdefault(run.id, [])
        looks.append(found.regime)
        del looks[:-AGREEING_LOOKS]
        agreed = len(looks) == AGREEING_LOOKS and len(set(looks)) == 1
        if not agreed or found.regime is Regime.INSUFFICIENT_DATA:
            return []
        before = self._last(run.id, REGIME_EVENT)
        if before is not None and before.data.get("regime") == found.regime:
            return []
        change = "" if found.change is None else f"; to change: {found.change}"
        level = "warning" if found.regime in LIMITS.values() else "info"
        data = {"regime": str(found.regime)}
        return [
            self._store_event(
                run, REGIME_EVENT, level, f"{found.regime}: {found.reason}{change}", data
            )
        ]

    def _flag_events(self, run: RunInfo, found: Diagnosis) -> list[Event]:
        known = {e.data.get("flag") for e in self._store.events(run.id) if e.kind == FLAG_EVENT}
        return [
            self._store_event(
                run,
                FLAG_EVENT,
                "warning",
                f"{flag.name}: {flag.evidence}; {flag.advice}",
                {"flag": flag.name},
            )
            for flag in found.red_flags
            if flag.name not in known
        ]

    def _last(self, run_id: str, kind: str) -> Event | None:
        events = [event for event in self._store.events(run_id) if event.kind == kind]
        return events[-1] if events else None

    def _store_event(
        self, run: RunInfo, kind: str, level: str, message: str, data: dict[str, str]
    ) -> Event:
        newest = self._store.steps(run.id, last=1)
        event = Event(
            run_id=run.id,
            time=time.time(),
            kind=kind,
            message=message,
            level=level,
            step=newest[0].step if newest else None,
            data=data,
        )
        self._store.append_event(event)
        return event
