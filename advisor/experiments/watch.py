"""Judge the runs that are alive, and store what changes, once.

Runs beside the dashboard and needs no browser. A regime counts as changed when two looks in a row
agree on it, so that a κ at its limit does not write an event every few seconds; a red flag is
stored once per run. What a run itself records (its collapse, its end) is not repeated.
"""

import time
from collections.abc import Sequence

from storage.errors import RunNotFound
from storage.liveness import PulseReader, last_sign, process_gone
from storage.records import Event, RunInfo, RunStatus
from storage.store import Store

from ..alerts.conditions import Sight
from ..diagnosis import diagnose
from ..regime import LIMITS, Diagnosis, Regime

REGIME_EVENT = "regime"
FLAG_EVENT = "red flag"
AGREEING_LOOKS = 2
NEWS_SECONDS = 24 * 3600.0
"""A run that ended, or was heard of last, longer ago is no news to a watcher that starts."""


class Watcher:
    """Looks at an archive again and again, and knows what it saw the time before."""

    def __init__(self, store: Store) -> None:
        """Begin without a look."""
        self.store = store
        self.sights: list[Sight] = []
        """The last look: runs that are alive, and those that ended or were lost lately."""
        self._pulses = PulseReader()
        self._seen: dict[str, list[Regime]] = {}

    def look(self) -> tuple[list[RunInfo], list[Event]]:
        """Judge every run that is alive; return these runs and the events that were stored."""
        runs, tags = self.store.runs(archived=False), self.store.tags()
        alive: list[RunInfo] = []
        events: list[Event] = []
        sights: list[Sight] = []
        for run in runs:
            status, gone = self._pulses.status(run), process_gone(run)
            try:
                found = None
                if _is_news(run, gone):
                    if status.alive:
                        found = diagnose(self.store, run.id)
                        events += self._news(run, found)
                    sights.append(self._sight(run, status, gone, found, tags.get(run.id, ())))
            except RunNotFound:  # deleted since it was listed
                continue
            if status.alive:
                alive.append(run)
        self.sights = sights
        for run_id in self._seen.keys() - {run.id for run in alive}:
            del self._seen[run_id]
        return alive, events

    def _sight(
        self,
        run: RunInfo,
        status: RunStatus,
        gone: bool | None,
        found: Diagnosis | None,
        tags: tuple[str, ...],
    ) -> Sight:
        return Sight(
            run=run,
            status=status,
            step=self.store.last_step(run.id),
            silent=self._pulses.silent_seconds(run),
            is_gone=gone is True,
            diagnosis=found,
            tags=tags,
        )

    def judge(self, run: RunInfo) -> list[Event]:
        """Judge one run and return the events that were stored."""
        return self._news(run, diagnose(self.store, run.id))

    def _news(self, run: RunInfo, found: Diagnosis) -> list[Event]:
        return [*self._regime_event(run, found), *self._flag_events(run, found)]

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
        known = {e.data.get("flag") for e in self.store.events(run.id) if e.kind == FLAG_EVENT}
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
        events = [event for event in self.store.events(run_id) if event.kind == kind]
        return events[-1] if events else None

    def _store_event(
        self, run: RunInfo, kind: str, level: str, message: str, data: dict[str, str]
    ) -> Event:
        newest = self.store.steps(run.id, last=1)
        event = Event(
            run_id=run.id,
            time=time.time(),
            kind=kind,
            message=message,
            level=level,
            step=newest[0].step if newest else None,
            data=data,
        )
        self.store.append_event(event)
        return event


def _is_news(run: RunInfo, gone: bool | None) -> bool:
    """Whether a run goes on, ended lately, or was heard of lately, by the clock of its own host."""
    if not run.status.alive:
        return run.ended_at is not None and _is_lately(run.ended_at)
    goes_on = gone is False or run.pid is None
    return goes_on or _is_lately(last_sign(run))


def _is_lately(when: float) -> bool:
    return time.time() - when < NEWS_SECONDS
