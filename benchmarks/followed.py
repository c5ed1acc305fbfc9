"""How far a learned reward was followed when it was lost, and how well a probe projects that.

    python -m benchmarks.followed --db FILE [--db FILE …]

Of the runs of the workload ``preference`` in some archives: how many were unsafe by the √KL to the
start where they ended, for every reward model; √KL at the onset of collapse; and the rate at which
half of the runs of a setting were unsafe over that at which its probes project √KL to its level.
docs/validation.md shows what it printed.
"""

import argparse
import math
import statistics
from collections import defaultdict
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from pydantic import ValidationError
from scipy.special import log_ndtr

from advisor.learned_reward import growth_of, rates_in_all, sqrt_kl_level
from advisor.measured import Measured, measured
from advisor.safe_levels import SafeLevels, safe_levels
from advisor.same_setting import differences
from advisor.stored_facts import config_of
from advisor.truth import UNSAFE
from storage.records import RunInfo
from storage.store import Store
from trainer.config import TrainerConfig

KINDS = ("train", "sweep")
LEAST_STEPS = 20
SEED_LOG_SD = 0.15
"""Scatter of the edge between seeds of one setting, in ln η."""
BINS = (0.0, 0.5, 0.66, math.inf)


@dataclass(frozen=True, slots=True)
class Followed:
    """A run on a learned reward, and √KL to the start where it ended and where it collapsed."""

    run: RunInfo
    config: TrainerConfig
    at_end: float
    at_onset: float | None

    @property
    def unsafe(self) -> bool:
        """Whether it was lost."""
        return self.run.outcome in UNSAFE


def followed(store: Store) -> list[Followed]:
    """Return the ended runs of an archive on a learned reward of which √KL is known."""
    found = []
    for run in store.runs():
        config = config_of(run) if run.workload == "preference" and run.kind in KINDS else None
        if config is None or config.steps < LEAST_STEPS or run.outcome in (None, "undetermined"):
            continue
        series = store.series(run.id, ("step", "kl_to_start"))
        known = [(s, k) for s, k in zip(*series.values(), strict=True) if k is not None and k >= 0]
        if not known:
            continue
        before = [k for s, k in known if run.collapse_step is not None and s < run.collapse_step]
        onset = math.sqrt(before[-1]) if before and run.outcome == "collapsed" else None
        found.append(Followed(run, config, math.sqrt(known[-1][1]), onset))
    return found


def edge(runs: Sequence[Followed]) -> float | None:
    """Return ln η at which half of the runs are unsafe, None where all ended alike."""
    rates = np.log([each.config.learning_rate for each in runs])
    sides = np.array([1.0 if each.unsafe else -1.0 for each in runs])
    if abs(sides.sum()) == len(sides):
        return None
    grid = np.linspace(rates.min() - 0.5, rates.max() + 0.5, 400)
    likelihood = log_ndtr(sides * (rates - grid[:, None]) / SEED_LOG_SD).sum(axis=1)
    return float(grid[likelihood.argmax()])


def probes(store: Store) -> list[Measured]:
    """Return the probes of an archive that this version can read."""
    found = []
    for stored in store.calibrations():
        try:
            found.append(measured(stored))
        except (ValidationError, TypeError, KeyError):
            continue
    return found


def misses(runs: Sequence[Followed], probed: Sequence[Measured], levels: SafeLevels) -> list[float]:
    """Return ln (edge / projected rate) of every probe whose setting and T have both outcomes."""
    found = []
    for each in probed:
        alike = [
            run
            for run in runs
            if run.config.steps == each.setting.steps
            and run.config.max_staleness == each.setting.max_staleness
            and not differences(each.setting, run.config)
        ]
        where = edge(alike) if alike else None
        growth = growth_of(each.setting, each.holds, levels, "sqrt_kl")
        if where is not None and growth is not None:
            level = sqrt_kl_level(each.setting, levels)
            found.append(where - growth.log_rate(level.value, rates_in_all(each.setting)))
    return found


def main() -> None:
    """Print the three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--db", action="append", required=True, metavar="FILE")
    runs: list[Followed] = []
    missed: list[float] = []
    for db in parser.parse_args().db:
        with closing(Store.open(db, create=False)) as store:
            own = followed(store)
            runs += own
            missed += misses(own, probes(store), safe_levels())
    print("| √KL at the end | unsafe |\n|---|---|")
    for low, high in pairwise(BINS):
        inside = [each.unsafe for each in runs if low <= each.at_end < high]
        print(f"| {low:g} … {high:g} | {sum(inside)} of {len(inside)} |")
    print("\n| annotator | runs, unsafe | largest safe | smallest unsafe |\n|---|---|---|---|")
    by_annotator = defaultdict(list)
    for each in runs:
        by_annotator[each.config.annotator_seed].append(each)
    for annotator, own in sorted(by_annotator.items()):
        safe = max((each.at_end for each in own if not each.unsafe), default=math.nan)
        lost = min((each.at_end for each in own if each.unsafe), default=math.nan)
        count = sum(each.unsafe for each in own)
        print(f"| {annotator} | {len(own)}, {count} | {safe:.2f} | {lost:.2f} |")
    onsets = [each.at_onset for each in runs if each.at_onset is not None]
    if onsets:
        print(f"\n{len(onsets)} collapses, at √KL = {statistics.median(onsets):.2f} (median)")
    if len(missed) > 1:
        middle, spread = math.exp(statistics.fmean(missed)), statistics.stdev(missed)
        print(f"edge over projected, {len(missed)} probes: {middle:.2f}, spread {spread:.2f}")


if __name__ == "__main__":
    main()
