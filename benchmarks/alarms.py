"""How early ``diagnose`` raises its alarm, and how often for nothing, beside other rules.

    python -m benchmarks.alarms --db FILE [--db FILE …] --groups laws-horizon,laws-boundary

Every ended run of the groups, in all of the archives, is judged as it stood after 25, 50, 75, …
learner steps, by the code that ``diagnose`` uses, with the other runs of its setting as evidence
and its own gold hidden. Counted are runs that collapsed, and runs that ended below their start
without collapsing, with at least 50 healthy batches before their slide, and runs that ended
healthy. Of a rule it says of how many it warned before the slide, and of how many collapses before
the onset; the lead, as the share of the way to the slide that is left; how many healthy runs it
alarmed; the AUC of its highest score, up to the slide of a lost run and to the end of a healthy
one; and its processor time per learner step. Plain rules stand beside it, each with the threshold
that serves it best, in hindsight, among those with at most 5 % false alarms, and other monitors,
where they are installed, at the thresholds they ship (``other_tools.py``).
"""

import argparse
import math
import statistics
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from advisor.diagnosis import diagnosis_of
from advisor.experiments.study import runs_of
from advisor.red_flags import SERIES as FLAG_SERIES
from advisor.red_flags import red_flags
from advisor.run_facts import SERIES, RunFacts, run_facts
from advisor.same_setting import differences
from advisor.stored_facts import config_of
from benchmarks.other_tools import LEVELS, LOGGED, TOOLS, Looks, trl_log
from storage.records import RunInfo
from storage.store import Store
from trainer.config import TrainerConfig

EVERY = 25
HEALTHY_BATCHES = 50
FALSE_AT_MOST = 0.05
THRESHOLDS = 60
LOST = ("collapsed", "damaged")
COLUMNS = tuple(dict.fromkeys((*SERIES, *FLAG_SERIES, *LOGGED.values())))
Scores = list[tuple[int, float]]
"""Numbers of learner steps, and how alarming a rule finds the run then."""


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

    @property
    def until(self) -> float:
        """The number of steps before which a warning is one: the slide, or for ever."""
        slide = self.run.slide_step
        return math.inf if self.run.outcome == "healthy" or slide is None else slide


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


# -- rules: each scores a run as it stood at every look -------------------------------------------


def diagnosed(this: Ended, others: Sequence[RunFacts]) -> Iterator[tuple[int, float]]:
    """Score by the low end of the largest κ, at least 1 where ``diagnose`` raises an alarm."""
    for cut in range(EVERY, len(this.series["step"]) + 1, EVERY):
        hidden = {**{n: v[:cut] for n, v in this.series.items()}, "gold_reward_mean": [None] * cut}
        facts = facts_at(this.run, this.config, cut, this.series, this.radii[cut - 1])
        found = diagnosis_of(facts, others, red_flags(hidden, this.run.config))
        kappas = (found.kappa_staleness, found.kappa_horizon, found.kappa_slide, found.kappa_local)
        yield cut, max(float(found.alarm), *(k.low or 0.0 for k in kappas))


def fed(tool: Callable[[Sequence[Mapping[str, Any]], int], Looks], this: Ended) -> Looks:
    """Score by the level of another monitor that is fed TRL's log of the run."""
    return tool(trl_log(this.series, this.config.prompts), EVERY)


def column(name: str) -> Callable[[Ended], Scores]:
    """Score by the largest value of a column so far."""

    def rule(this: Ended) -> Scores:
        best, scores = -math.inf, []
        for i, value in enumerate(this.series[name]):
            if value is not None:
                best = max(best, value)
            scores.append((i + 1, best))
        return scores

    return rule


def fallen_reward(this: Ended) -> Scores:
    """Score by the share of its peak that the reward has lost."""
    best, scores = -math.inf, []
    for i, value in enumerate(this.series["reward_mean"]):
        if value is not None:
            best = max(best, value)
            if i >= EVERY:
                scores.append((i + 1, 1 - value / best))
    return scores


# -- what a rule is worth -------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """Of each kind of loss its number, how many were warned of, and the median lead; and the rest.

    ``before_onset`` is of the collapses alone.
    """

    lost: Mapping[str, tuple[int, int, float]]
    before_onset: int
    healthy: int
    false: int
    auc: float

    @property
    def caught(self) -> int:
        """How many losses were warned of in all."""
        return sum(warned for _, warned, _ in self.lost.values())


def judged(runs: Sequence[Ended], scores: Mapping[str, Scores], threshold: float) -> Judged:
    """Hold the scores of every run against what became of it."""
    alarms = {
        run_id: next((cut for cut, score in each if score >= threshold), math.inf)
        for run_id, each in scores.items()
    }
    lost, highest = {}, {}
    for this in runs:
        seen = [score for cut, score in scores[this.run.id] if cut < this.until]
        highest[this.run.id] = max(seen, default=-math.inf)
    for outcome in LOST:
        those = [r for r in runs if r.run.outcome == outcome]
        leads = [1 - alarms[r.run.id] / r.until for r in those if alarms[r.run.id] < r.until]
        lost[outcome] = len(those), len(leads), statistics.median(leads) if leads else math.nan
    healthy = [r for r in runs if r.run.outcome == "healthy"]
    collapsed = [r for r in runs if r.run.outcome == "collapsed"]
    return Judged(
        lost=lost,
        before_onset=sum(alarms[r.run.id] < (r.run.collapse_step or 0) for r in collapsed),
        healthy=len(healthy),
        false=sum(alarms[r.run.id] < math.inf for r in healthy),
        auc=_auc(
            [highest[r.run.id] for r in runs if r.run.outcome in LOST],
            [highest[r.run.id] for r in healthy],
        ),
    )


def _auc(lost: Sequence[float], healthy: Sequence[float]) -> float:
    """Return the chance that a lost run scores above a healthy one; a tie is half of one."""
    pairs = [(x > y) + 0.5 * (x == y) for x in lost for y in healthy]
    return statistics.fmean(pairs) if pairs else math.nan


def best_of(runs: Sequence[Ended], scores: Mapping[str, Scores]) -> Judged:
    """Judge at the threshold that warns of most losses with few false alarms, in hindsight."""
    values = sorted({score for each in scores.values() for _, score in each if score > -math.inf})
    grid = [values[i * (len(values) - 1) // THRESHOLDS] for i in range(THRESHOLDS + 1)]
    found = [judged(runs, scores, threshold) for threshold in grid]
    allowed = [each for each in found if each.false <= FALSE_AT_MOST * each.healthy] or found
    return max(allowed, key=lambda each: each.caught)


# -- the table ------------------------------------------------------------------------------------


def timed(
    runs: Sequence[Ended], rule: Callable[[Ended], Iterator[tuple[int, float]] | Scores]
) -> tuple[dict[str, Scores], float]:
    """Return the scores of a rule by run, and its processor time in milliseconds a learner step."""
    began = time.process_time()
    scores = {this.run.id: list(rule(this)) for this in runs}
    steps = sum(len(this.series["step"]) for this in runs)
    return scores, 1e3 * (time.process_time() - began) / max(1, steps)


def line(name: str, found: Judged, cost: float) -> None:
    """Print one row."""
    cells = [
        f"{warned} of {number}, {lead:.0%}" if warned else f"0 of {number}"
        for number, warned, lead in found.lost.values()
    ]
    cells += [f"{found.before_onset}", f"{found.false} of {found.healthy}"]
    print(f"| {name} | {' | '.join(cells)} | {found.auc:.2f} | {cost:.3f} |", flush=True)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="How early is the alarm, and how often false?")
    parser.add_argument("--db", action="append", help="archive (default: the configured one)")
    parser.add_argument("--groups", default="laws-horizon,laws-boundary")
    options = parser.parse_args()
    stores = [Store.open(db, create=False) for db in options.db or [None]]
    every = [run for store in stores for run in read(store, options.groups.split(","))]
    runs = [each for each in every if each.counts]

    def beside(this: Ended) -> list[RunFacts]:
        decided = [o.facts for o in every if o is not this and o.facts.unsafe is not None]
        return [facts for facts in decided if not differences(facts.config, this.config)]

    print(
        "| rule | collapses warned of before the slide, median lead | damaged, likewise "
        "| collapses before the onset | false alarms | AUC | ms a step |"
    )
    print("|---|---|---|---|---|---|---|")
    neighbors = {this.run.id: beside(this) for this in runs}
    scores, cost = timed(runs, lambda this: diagnosed(this, neighbors[this.run.id]))
    line("`diagnose`", judged(runs, scores, 1), cost)
    for name in ("learning_rate", "displacement", "cycle_drift"):
        scores, cost = timed(runs, column(name))
        line(f"{name} above a level, the best in hindsight", best_of(runs, scores), cost)
    scores, cost = timed(runs, fallen_reward)
    line("reward below 0.8 of its peak", judged(runs, scores, 0.2), cost)
    line("reward below a share of its peak, the best in hindsight", best_of(runs, scores), cost)
    for name, tool in TOOLS.items():
        try:
            scores, cost = timed(runs, partial(fed, tool))
        except ImportError:
            print(f"| {name} | not installed | | | | | |")
            continue
        for level, words in enumerate(LEVELS, start=1):
            line(f"{name}, {words}", judged(runs, scores, level), cost)


if __name__ == "__main__":
    main()
