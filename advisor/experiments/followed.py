"""Runs that followed a learned reward to their end, and the safe levels that they teach.

How far a policy may follow a reward model shows only where what was wanted is known too: on runs
of the workload ``preference``, of any archive, any setting and any reward model.
"""

import math
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.special import log_ndtr

from storage.commandline import BadInput
from storage.records import RunInfo
from storage.store import Store
from trainer.config import TrainerConfig

from ..learned_reward import growth_of, rates_in_all
from ..measured import Measured, readable_probes
from ..safe_levels import Level, safe_levels
from ..same_setting import setting_of
from ..stored_facts import ENDED, readable
from ..truth import UNSAFE
from .edges import LEAST_LOG_SD, SEED_LOG_SD, Curve, best_share, probit, rounded

LEAST_STEPS = 20
LEAST_RATES = 5
LOWEST_SHARE = 0.3
"""A setting that gains tells of the best rate if it was run at so many rates, from so far below
its edge."""


@dataclass(frozen=True, slots=True, kw_only=True)
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Evidence:
    """Runs on learned rewards, and probes, of one or several archives."""

    runs: Sequence[Followed]
    probes: Sequence[Measured]


def evidence(store: Store) -> Evidence:
    """Return what an archive tells of learned rewards; what was put away is no evidence."""
    runs = followed(store, store.runs(archived=False))
    return Evidence(runs=runs, probes=readable_probes(store.calibrations()))


def joined(parts: Sequence[Evidence]) -> Evidence:
    """Return what several archives tell; what stands in two of them counts once."""
    runs = {each.run.id: each for part in parts for each in part.runs}
    probes = {each.calibration.id: each for part in parts for each in part.probes}
    return Evidence(runs=[*runs.values()], probes=[*probes.values()])


def followed(store: Store, runs: Iterable[RunInfo]) -> list[Followed]:
    """Return those of some runs that ended on a learned reward and of which √KL is known."""
    found = []
    for run, config in readable([run for run in runs if run.workload == "preference"]):
        if config.steps < LEAST_STEPS or run.outcome in (None, "undetermined"):
            continue
        if run.status not in ENDED:  # one that was stopped tells nothing of its planned steps
            continue
        series = store.series(run.id, ("step", "kl_to_start"))
        known = [(s, k) for s, k in zip(*series.values(), strict=True) if k is not None and k >= 0]
        if not known:
            continue
        before = [k for s, k in known if run.collapse_step is not None and s < run.collapse_step]
        onset = math.sqrt(before[-1]) if before and run.outcome == "collapsed" else None
        end = math.sqrt(known[-1][1])
        found.append(Followed(run=run, config=config, at_end=end, at_onset=onset))
    return found


def learned_levels(known: Evidence) -> dict[str, Any]:
    """Return the safe levels of learned rewards as they are packaged.

    Args:
        known: runs that are judged by nothing, and probes; those of other settings do not count.

    Returns:
        ``sqrt_kl``, ``edge_over_horizon``, ``best_over_edge`` and ``collapse_over_damage``.

    Raises:
        BadInput: they are too few for one of them, which says what is missing.
    """
    runs = known.runs
    onsets = [run.at_onset for run in runs if run.at_onset is not None]
    if not onsets:
        raise BadInput("runs: none on a learned reward collapsed; add runs at larger rates")
    sqrt_kl = probit([(run.at_end, run.unsafe) for run in runs])
    missed = misses(known, Level(**sqrt_kl))
    if len(missed) < 2:
        raise BadInput(
            f"probes: {len(missed)} of a setting on a learned reward with safe and unsafe runs; "
            "at least 2 are needed"
        )
    curves = reward_curves(runs)
    if not curves:
        raise BadInput(
            f"runs: no setting on a learned reward that gains was run at {LEAST_RATES} rates, "
            f"from {LOWEST_SHARE:g} of its edge on; add gentler rates"
        )
    return {
        "edge_over_horizon": {
            "value": rounded(math.exp(statistics.fmean(missed))),
            "log_sd": rounded(max(LEAST_LOG_SD, math.hypot(statistics.stdev(missed), SEED_LOG_SD))),
        },
        "sqrt_kl": sqrt_kl,
        "best_over_edge": best_share(curves),
        "collapse_over_damage": rounded(statistics.median(onsets) / sqrt_kl["value"]),
    }


def misses(known: Evidence, sqrt_kl: Level) -> list[float]:
    """Return ln (edge / rate that a probe projects to reach √KL's level) where both are known."""
    levels = replace(safe_levels(), sqrt_kl=sqrt_kl)
    of_setting = _by_setting(known.runs)
    found = []
    for probe in known.probes:
        where = edge(of_setting.get(_setting(probe.setting), []))
        growth = growth_of(probe.setting, probe.holds, levels, "sqrt_kl")
        if where is not None and growth is not None:
            found.append(where - growth.log_rate(sqrt_kl.value, rates_in_all(probe.setting)))
    return found


def reward_curves(runs: Sequence[Followed]) -> list[Curve]:
    """Return gold at the end by rate of the settings whose best rate can be seen."""
    found = []
    for own in _by_setting(runs).values():
        where = edge(own)
        ends: dict[float, list[float]] = defaultdict(list)
        for each in own:
            if each.run.gold_reward_final is not None:
                ends[each.config.learning_rate].append(each.run.gold_reward_final)
        starts = [e.run.gold_reward_first for e in own if e.run.gold_reward_first is not None]
        if where is None or not starts or len(ends) < LEAST_RATES:
            continue
        means = {rate: statistics.fmean(rewards) for rate, rewards in ends.items()}
        curve = Curve(means, math.exp(where), statistics.fmean(starts))
        if curve.gains and min(ends) <= LOWEST_SHARE * curve.edge:
            found.append(curve)
    return found


def edge(runs: Sequence[Followed]) -> float | None:
    """Return ln η at which half of the runs are unsafe, None where all ended alike."""
    sides = np.array([1.0 if each.unsafe else -1.0 for each in runs])
    if abs(sides.sum()) == len(sides):
        return None
    rates = np.log([each.config.learning_rate for each in runs])
    grid = np.linspace(rates.min() - 0.5, rates.max() + 0.5, 400)
    likelihood = log_ndtr(sides * (rates - grid[:, None]) / SEED_LOG_SD).sum(axis=1)
    return float(grid[likelihood.argmax()])


def _by_setting(runs: Iterable[Followed]) -> dict[str, list[Followed]]:
    found: dict[str, list[Followed]] = defaultdict(list)
    for each in runs:
        found[_setting(each.config)].append(each)
    return found


def _setting(config: TrainerConfig) -> str:
    """Return what tells settings apart, staleness and the horizon included."""
    return repr((config.steps, config.max_staleness, sorted(setting_of(config).items())))
