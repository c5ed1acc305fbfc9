"""Raise an alert when a rule begins to hold, and end it when it has not held for a while.

One episode alerts once. What measurements say must hold at two looks in a row, so that a κ at its
limit does not alert again and again; that a run ended or is lost needs one. An episode is over when
its rule did not hold at any look for a minute; holding after that begins another. Episodes are in
the archive, so two watchers, or one that was started anew, go on with the same.
"""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from storage.errors import RunNotFound
from storage.store import Store

from .conditions import Finding, Sight, concerns, findings
from .rules import Alerting

AGREEING_LOOKS = 2
CLEAR_SECONDS = 60.0


@dataclass(slots=True)
class _Stretch:
    """For how many looks a finding holds, or since when it does not, and what was made of that."""

    looks: int = 0
    raised: bool = False
    gone_since: float | None = None
    cleared: bool = False


class Episodes:
    """Holds the rules against what a watcher sees, look by look."""

    def __init__(
        self,
        store: Store,
        alerting: Alerting,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begin without a look."""
        self._store, self._alerting, self._monotonic = store, alerting, monotonic
        self._seen: dict[str, dict[tuple[str, str], _Stretch]] = {}

    def follow(self, sights: Iterable[Sight]) -> int:
        """Raise what begins and end what is over; return how many deliveries are new.

        A run that is not among the sights any more is forgotten, its episodes stay as they are.
        """
        seen = {sight.run.id: sight for sight in sights}
        self._seen = {run_id: self._seen.get(run_id, {}) for run_id in seen}
        return sum(self._follow(sight) for sight in seen.values())

    def _follow(self, sight: Sight) -> int:
        stretches, new = self._seen[sight.run.id], 0
        gone: list[tuple[str, str]] = []
        for name, rule in self._alerting.rules.items():
            if not concerns(rule, sight):
                continue
            for found in findings(rule, sight):
                key = (name, found.subject)
                stretch = stretches.setdefault(key, _Stretch())
                if found.holds:
                    new += self._holds(stretch, sight, name, found)
                elif found.holds is False and self._is_over(stretch):
                    gone.append(key)
        if gone:
            self._store.clear_alerts(sight.run.id, gone)
            for key in gone:
                stretches[key].cleared = True
        return new

    def _holds(self, stretch: _Stretch, sight: Sight, name: str, found: Finding) -> int:
        stretch.looks += 1
        stretch.gone_since, stretch.cleared = None, False
        needed = AGREEING_LOOKS if sight.status.alive else 1
        if stretch.raised or stretch.looks < needed:
            return 0
        try:
            new = self._store.raise_alert(
                run_id=sight.run.id,
                rule=name,
                subject=found.subject,
                message=found.message,
                step=sight.step,
                destinations=self._alerting.rules[name].to,
            )
        except RunNotFound:  # deleted since it was seen
            return 0
        stretch.raised = True
        return new

    def _is_over(self, stretch: _Stretch) -> bool:
        """Whether it has not held for long enough, and was not cleared yet."""
        stretch.looks, stretch.raised = 0, False
        now = self._monotonic()
        if stretch.gone_since is None:
            stretch.gone_since = now
        return not stretch.cleared and now - stretch.gone_since >= CLEAR_SECONDS
