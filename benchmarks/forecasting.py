"""How well the step of a collapse is forecast: ``python -m benchmarks.forecasting --db FILE``.

Reads the runs of the horizon study (``python -m advisor laws --study horizon``). For every
collapsed run and every asked step before its onset, the run is cut there and the horizon step is
forecast by the same code that ``diagnose`` uses, R_crit taken from all *other* runs. Gold is not
read; the other runs' outcomes are. Two plain rules stand beside it:
"twice now" and a constant Σ η.
"""

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from advisor.calibration import critical_radius
from advisor.experiments.study import default_group, runs_of
from advisor.horizon import horizon_step
from advisor.run_facts import SERIES, RunFacts, run_facts
from advisor.stored_facts import config_of
from storage.records import RunInfo
from storage.store import Store
from trainer.config import TrainerConfig

ASKED = (25, 50, 100, 200, 400)
NINETY_TO_EIGHTY = 1.2816 / 1.6449
"""Of a log-normal: the half-width of the 80 % interval over that of the 90 % one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Collapsed:
    """One collapsed run: its configuration, its columns, and its facts as a whole."""

    run: RunInfo
    config: TrainerConfig
    series: Mapping[str, Sequence[Any]]
    facts: RunFacts

    @property
    def onset(self) -> int:
        """The learner step whose weights began the collapse."""
        return self.run.collapse_step or 0

    def rate_sum(self) -> float:
        """Return Σ η at the onset."""
        return math.fsum(self.series["learning_rate"][: self.onset])


def read(store: Store, run: RunInfo, steps: int | None = None) -> RunFacts | None:
    """Summarise a run, cut after so many learner steps."""
    config = config_of(run)
    if config is None:
        return None
    series = store.series(run.id, SERIES)
    return run_facts(
        run_id=run.id,
        name=run.name,
        config=config,
        verdict=run.outcome if steps is None else None,
        onset=run.collapse_step if steps is None else None,
        slide=run.slide_step if steps is None else None,
        reward_start=None,
        reward_final=None,
        series={name: values[:steps] for name, values in series.items()},
        radii={},
        ended=steps is None,
    )


def collapsed_runs(store: Store, group: str) -> list[Collapsed]:
    """Return the collapsed runs of a group."""
    found = []
    for run in runs_of(store, group):
        config, facts = config_of(run), read(store, run)
        if run.outcome == "collapsed" and run.collapse_step and config is not None and facts:
            series = store.series(run.id, ("learning_rate",))
            found.append(Collapsed(run=run, config=config, series=series, facts=facts))
    return found


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description="How well is the step of a collapse forecast?")
    parser.add_argument("--db", help="archive (default: the configured one)")
    parser.add_argument("--group", default=default_group("horizon"))
    options = parser.parse_args()
    store = Store.open(options.db, create=False)
    runs = collapsed_runs(store, options.group)
    print(
        f"{len(runs)} collapsed runs of {options.group}; factor = max(forecast/onset, its inverse)"
    )
    print(
        "| asked at | runs | median factor | covered by 80 % | twice now | constant Σ η |\n"
        "|---|---|---|---|---|---|"
    )
    every: list[tuple[float, bool, float, float]] = []
    for asked in ASKED:
        rows = [
            row for run in runs if run.onset > asked if (row := forecast(store, run, runs, asked))
        ]
        every += rows
        print(line(str(asked), rows))
    print(line("all", every))


def forecast(
    store: Store, this: Collapsed, runs: Sequence[Collapsed], asked: int
) -> tuple[float, bool, float, float] | None:
    """Return the log error of the forecast, whether it covers, and errors of both plain rules."""
    others = [other for other in runs if other is not this]
    facts = read(store, this.run, asked)
    causes = {other.run.id: "horizon" for other in others}
    found = (
        horizon_step(facts, critical_radius([o.facts for o in others], causes)) if facts else None
    )
    if found is None or found.value is None or found.low is None or found.high is None:
        return None
    onset, middle = math.log(this.onset), math.log(found.value)
    low = middle - NINETY_TO_EIGHTY * (middle - math.log(found.low))
    high = middle + NINETY_TO_EIGHTY * (math.log(found.high) - middle)
    constant = statistics.median(other.rate_sum() for other in others) / this.config.learning_rate
    return (
        middle - onset,
        low <= onset <= high,
        math.log(2 * asked) - onset,
        math.log(max(constant, asked)) - onset,
    )


def line(name: str, rows: Sequence[tuple[float, bool, float, float]]) -> str:
    """Return one row of the table."""
    if not rows:
        return f"| {name} | 0 | - | - | - | - |"

    def factor(column: int) -> str:
        return f"{math.exp(statistics.median(abs(float(row[column])) for row in rows)):.2f}"

    covered = sum(row[1] for row in rows) / len(rows)
    return f"| {name} | {len(rows)} | {factor(0)} | {covered:.0%} | {factor(2)} | {factor(3)} |"


if __name__ == "__main__":
    main()
