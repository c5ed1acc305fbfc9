"""How early ``diagnose`` raises its alarm, and how often for nothing.

    python -m benchmarks.alarms --db FILE [--db FILE …] --groups laws-horizon,laws-boundary

Every ended run of the groups, in all of the archives, is judged as it stood after 25, 50, 75, …
learner steps, by the code that ``diagnose`` uses, with the other runs of its setting as evidence
and its own gold hidden. Counted are runs that collapsed, and runs that ended below their start
without collapsing, with at least 50 healthy batches before their slide: how many were alarmed
before it, and with which lead, as a share of the way to the slide that is left at that look; and
runs that ended healthy: how many were alarmed at all. Plain rules stand beside it, each with the
threshold that serves it best among those with at most 5 % false alarms, and other monitors, where
they are installed, at the thresholds they ship (``other_tools.py``).
"""

import argparse
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.answer import config_of, diagnosis_of
from advisor.calibration import SERIES, RunFacts, differences, run_facts
from advisor.experiments.study import runs_of
from advisor.red_flags import SERIES as FLAG_SERIES
from advisor.red_flags import red_flags
from benchmarks.other_tools import LEVELS, LOGGED, TOOLS, trl_log
from storage.records import RunInfo
from storage.store import Store
from trainer.config import TrainerConfig

EVERY = 25
HEALTHY_BATCHES = 50
FALSE_AT_MOST = 0.05
LOST = ("collapsed", "damaged")
COLUMNS = tuple(dict.fromkeys((*SERIES, *FLAG_SERIES, *LOGGED.values())))


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """One ended run with its columns, its facts as a whole, and its radii by step."""

    run: RunInfo
    config: TrainerConfig
    series: Mapping[str, Sequence[Any]]
    radii: Mapping[int, Mapping[str, float | None]]
    facts: RunFacts

    @property
    def counts(self) -> bool:
        """Whether it is a loss that could have been warned of, or a healthy run."""
        if self.run.outcome == "healthy":
            return True
        slide = self.run.slide_step
        return self.run.outcome in LOST and slide is not None and slide >= HEALTHY_BATCHES


def facts_at(
    run: RunInfo,
    config: TrainerConfig,
    cut: int | None,
    series: Any,
    radii: Mapping[str, float | None],
) -> RunFacts:
    """Summarise a run cut after so many steps, or as a whole."""
    return run_facts(
        run_id=run.id,
        name=run.name,
        config=config,
        verdict=None if cut else run.outcome,
        onset=None if cut else run.collapse_step,
        slide=None if cut else run.slide_step,
        reward_start=None,
        reward_final=None,
        series={name: series[name][:cut] for name in SERIES},
        radii=radii,
        ended=cut is None,
        parameters=run.parameters,
    )


def read(store: Store, groups: Sequence[str]) -> list[Ended]:
    """Read the ended runs of the groups."""
    found = []
    for run in [run for group in groups for run in runs_of(store, group)]:
        config = config_of(run)
        if config is None:
            continue
        series = store.series(run.id, COLUMNS)
        steps = store.steps(run.id)
        radii = {s.step: s.clipping_radii or {} for s in steps if (s.step + 1) % EVERY == 0}
        last = steps[-1].clipping_radii or {} if steps else {}
        facts = facts_at(run, config, None, series, last)
        found.append(Ended(run=run, config=config, series=series, radii=radii, facts=facts))
    return found


def first_alarm(this: Ended, others: Sequence[RunFacts]) -> int | None:
    """Return the number of steps after which the diagnosis first raises an alarm."""
    for cut in range(EVERY, len(this.series["step"]) + 1, EVERY):
        hidden = {**{n: v[:cut] for n, v in this.series.items()}, "gold_reward_mean": [None] * cut}
        facts = facts_at(this.run, this.config, cut, this.series, this.radii[cut - 1])
        if diagnosis_of(facts, others, red_flags(hidden, this.run.config)).alarm:
            return cut
    return None


def plain_alarm(name: str, threshold: float) -> Callable[[Ended], int | None]:
    """Return a rule that alarms when a column passes a threshold."""

    def rule(this: Ended) -> int | None:
        best = -math.inf
        for i, value in enumerate(this.series[name]):
            if value is None:
                continue
            if name == "reward_mean":
                best = max(best, value)
                if i >= EVERY and value < threshold * best:
                    return i + 1
            elif value > threshold:
                return i + 1
        return None

    return rule


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Of each kind of loss its number, the share caught and the median lead; and false alarms."""

    lost: Mapping[str, tuple[int, float, float]]
    healthy: int
    false: float

    @property
    def caught(self) -> float:
        """How many losses were caught in all."""
        return sum(n * share for n, share, _ in self.lost.values() if n)


def judged(runs: Sequence[Ended], alarms: Mapping[str, int | None]) -> Judged:
    """Hold alarms, numbers of steps by run, against what became of the runs."""
    lost = {}
    for outcome in LOST:
        those = [r for r in runs if r.run.outcome == outcome]
        leads = []
        for each in those:
            alarm, slide = alarms[each.run.id], each.run.slide_step or 0
            if alarm is not None and alarm < slide:
                leads.append(1 - alarm / slide)
        share = len(leads) / len(those) if those else math.nan
        lost[outcome] = len(those), share, statistics.median(leads) if leads else math.nan
    healthy = [r for r in runs if r.run.outcome == "healthy"]
    wrong = sum(alarms[r.run.id] is not None for r in healthy)
    return Judged(
        lost=lost, healthy=len(healthy), false=wrong / len(healthy) if healthy else math.nan
    )


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="How early is the alarm, and how often false?")
    parser.add_argument("--db", action="append", help="archive (default: the configured one)")
    parser.add_argument("--groups", default="laws-horizon,laws-boundary")
    options = parser.parse_args()
    stores = [Store.open(db, create=False) for db in options.db or [None]]
    every = [run for store in stores for run in read(store, options.groups.split(","))]
    runs = [each for each in every if each.counts]
    alarms = {}
    for this in runs:
        others = [
            o.facts
            for o in every
            if o is not this
            and o.facts.unsafe is not None
            and not differences(o.config, this.config)
        ]
        alarms[this.run.id] = first_alarm(this, others)
    print("| rule | collapses caught, median lead | damaged caught, median lead | false |")
    print("|---|---|---|---|")
    line("diagnose", judged(runs, alarms))
    for name in ("learning_rate", "displacement", "cycle_drift"):
        values = sorted({v for r in runs for v in r.series[name] if v is not None})
        grid = [values[i * (len(values) - 1) // 60] for i in range(61)]
        scored = [judged(runs, {r.run.id: plain_alarm(name, t)(r) for r in runs}) for t in grid]
        allowed = [s for s in scored if s.false <= FALSE_AT_MOST] or scored
        line(f"{name} above its best threshold", max(allowed, key=lambda s: s.caught))
    line(
        "reward below 0.8 of its peak",
        judged(runs, {r.run.id: plain_alarm("reward_mean", 0.8)(r) for r in runs}),
    )
    for name, tool in TOOLS.items():
        try:
            warned = {r.run.id: tool(trl_log(r.series), EVERY) for r in runs}
        except ImportError:
            print(f"| {name} | not installed | | |")
            continue
        for level in LEVELS:
            at = {run_id: alarms[level] for run_id, alarms in warned.items()}
            line(f"{name}, {level}", judged(runs, at))


def line(name: str, found: Judged) -> None:
    """Print one row."""
    cells = []
    for number, share, lead in found.lost.values():
        cells.append(f"{share:.0%} of {number}, {lead:.0%}" if number else "none")
    print(f"| {name} | {' | '.join(cells)} | {found.false:.0%} of {found.healthy} |")


if __name__ == "__main__":
    main()
