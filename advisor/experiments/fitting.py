"""Fit the safe levels to cells whose truth is known: what ``validate --fit`` does.

Only on cells for tuning. Edges come from the shares of unsafe runs on the grid (Spearman–Kärber),
the safe level of √KL from a probit of "unsafe" on what a run had reached at its end.
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import optimize
from scipy.special import log_ndtr

from storage.commandline import BadInput
from storage.records import RunInfo
from storage.store import Store

from ..learned_reward import horizon_limit
from ..measured import Measured
from ..safe_levels import Level, SafeLevels
from ..segments import crossing, is_learned_reward
from ..truth import RATIO, UNSAFE, RateOutcome, best_index, grid_rate
from .cell_runs import run_is_of, start_rewards
from .cells import UNUSED_RATE, Cell

SEED_LOG_SD = 0.15
"""Scatter of the edge between seeds of one cell, added to that between cells."""
LEAST_LOG_SD = 0.1
SHARES = tuple(round(0.05 * 1.1**i, 3) for i in range(32))
"""Shares of the edge among which the best is sought, 0.05 to 0.96."""


def fitted_levels(
    store: Store,
    cells: Sequence[Cell],
    outcomes: Mapping[str, Mapping[int, RateOutcome]],
    probes: Mapping[tuple[str, int], Measured],
    group: str,
) -> dict[str, Any]:
    """Return the safe levels as they are packaged.

    Args:
        store: the archive with the runs of the truth.
        cells: the cells for tuning.
        outcomes: their truth by grid index.
        probes: their probes.
        group: of the runs of the truth.
    """
    edges = {cell.name: edge_of(outcomes[cell.name]) for cell in cells}
    ratios, errors = _over_crossing(cells, edges, outcomes, probes)
    runs = store.runs(group=group, archived=False)
    learned = [c for c in cells if is_learned_reward(c.config(UNUSED_RATE, 0))]
    onsets = [kl for _, kl in _reached(store, runs, learned, at_onset=True)]
    if not onsets:
        raise BadInput("cells: no run on a learned reward collapsed; add such a cell for tuning")
    sqrt_kl = _probit([(kl, run.outcome in UNSAFE) for run, kl in _reached(store, runs, learned)])
    followed = _over_horizon(learned, edges, probes, Level(**sqrt_kl))
    return {
        "edge_over_crossing": {
            "value": _round(math.exp(statistics.fmean(ratios))),
            "log_sd": _round(math.hypot(_between(ratios, errors), SEED_LOG_SD)),
        },
        "edge_over_horizon": {
            "value": _round(math.exp(statistics.fmean(followed))),
            "log_sd": _round(math.hypot(statistics.stdev(followed), SEED_LOG_SD)),
        },
        "sqrt_kl": sqrt_kl,
        "best_over_edge": _best_shares(cells, edges, outcomes, start_rewards(store, group, cells)),
        "collapse_over_damage": _round(statistics.median(onsets) / sqrt_kl["value"]),
    }


def _over_crossing(
    cells: Sequence[Cell],
    edges: Mapping[str, float | None],
    outcomes: Mapping[str, Mapping[int, RateOutcome]],
    probes: Mapping[tuple[str, int], Measured],
) -> tuple[list[float], list[float]]:
    """Return ln (edge / crossing of a probe) where both are known, and the crossings' errors."""
    ratios, errors = [], []
    for cell in cells:
        edge = edges[cell.name]
        if edge is None or best_index(outcomes[cell.name]) is None:
            continue
        if is_learned_reward(cell.config(UNUSED_RATE, 0)):
            continue
        for (name, _), probe in probes.items():
            found = crossing(probe.stale, probe.segments) if name == cell.name else None
            if found is not None:
                ratios.append(math.log(edge / found[0]))
                errors.append(found[1])
    return ratios, errors


def _over_horizon(
    cells: Sequence[Cell],
    edges: Mapping[str, float | None],
    probes: Mapping[tuple[str, int], Measured],
    sqrt_kl: Level,
) -> list[float]:
    """Return ln (edge / horizon limit of a probe) by levels of which the others are neutral."""
    neutral = Level(value=1.0, log_sd=LEAST_LOG_SD)
    levels = SafeLevels(
        edge_over_crossing=neutral,
        edge_over_horizon=neutral,
        sqrt_kl=sqrt_kl,
        best_over_edge={},
        collapse_over_damage=1.0,
    )
    followed = []
    for cell in cells:
        edge = edges[cell.name]
        for (name, _), probe in probes.items():
            if name != cell.name or edge is None:
                continue
            limit = horizon_limit(cell.config(UNUSED_RATE, 0), probe.segments, levels)
            if limit is not None:
                followed.append(math.log(edge / limit.median))
    return followed


def _best_shares(
    cells: Sequence[Cell],
    edges: Mapping[str, float | None],
    outcomes: Mapping[str, Mapping[int, RateOutcome]],
    starts: Mapping[str, float],
) -> dict[str, float]:
    """Return the best share of the edge, of cells on a learned reward and of the others."""
    shares: dict[str, list[tuple[Mapping[int, RateOutcome], float, float]]] = {
        "survival": [],
        "horizon": [],
    }
    for cell in cells:
        edge, found = edges[cell.name], outcomes[cell.name]
        if edge is not None and best_index(found) is not None:
            learned = is_learned_reward(cell.config(UNUSED_RATE, 0))
            shares["horizon" if learned else "survival"].append((found, edge, starts[cell.name]))
    return {name: best_share(each) for name, each in shares.items()}


def _between(ratios: Sequence[float], errors: Sequence[float]) -> float:
    """Return the scatter between cells: that of the ratios without the error of the crossings."""
    own = statistics.fmean(error**2 for error in errors)
    return math.sqrt(max(LEAST_LOG_SD**2, statistics.variance(ratios) - own))


def best_share(cells: Sequence[tuple[Mapping[int, RateOutcome], float, float]]) -> float:
    """Return the share of the edge at which cells gain most, on average of what their best gains.

    Near its best the final reward is flat in ln η, so the best rate of a cell is noise; the mean
    over cells of (reward − start)/(best − start), interpolated in ln η, is not. A factor of 8 below
    the grid nothing is taken to be learned.

    Args:
        cells: the outcomes of the grid, the edge, and the reward of the start, of each cell.
    """

    def gain(share: float) -> float:
        total = 0.0
        for outcomes, edge, start in cells:
            known = [(math.log(grid_rate(i)), o.reward) for i, o in sorted(outcomes.items())]
            x = [rate for rate, reward in known if reward is not None]
            y = [reward for _, reward in known if reward is not None]
            got = float(np.interp(math.log(share * edge), [x[0] - math.log(8), *x], [start, *y]))
            total += (got - start) / max(1e-9, max(y) - start)
        return total

    return max(SHARES, key=gain)


def edge_of(outcomes: Mapping[int, RateOutcome]) -> float | None:
    """Return the rate at which half of the runs are unsafe; None unless the grid spans it.

    Spearman–Kärber: the grid's lowest rate plus a step for every share of safe runs above it.
    """
    known = [outcomes[index] for index in sorted(outcomes)]
    if not known or known[0].unsafe or known[-1].unsafe < known[-1].runs:
        return None
    steps = sum(1 - o.unsafe / o.runs for o in known if o.runs) - 0.5
    return grid_rate(min(outcomes)) * math.pow(RATIO, steps)


def _reached(
    store: Store, runs: Sequence[RunInfo], cells: Sequence[Cell], *, at_onset: bool = False
) -> list[tuple[RunInfo, float]]:
    """Return the runs of cells and the √KL they had reached at their end, or at their onset."""
    found = []
    for run in runs:
        if run.outcome is None or not any(run_is_of(run, cell) for cell in cells):
            continue
        if at_onset and run.outcome != "collapsed":
            continue
        series = store.series(run.id, ("step", "kl_to_start"))
        last = int(run.config["steps"] if not at_onset else run.collapse_step or 0)
        known = [
            kl
            for step, kl in zip(*series.values(), strict=True)
            if kl is not None and kl >= 0 and step < max(6, last)
        ]
        if known:
            found.append((run, math.sqrt(known[-1])))
    return found


def _probit(points: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Fit P(unsafe) = Φ((ln x − ln value)/log_sd) by maximum likelihood."""
    x = np.log([max(value, 1e-6) for value, _ in points])
    bad = np.array([1.0 if unsafe else -1.0 for _, unsafe in points])

    def loss(free: Any) -> float:
        z = bad * (x - free[0]) / (LEAST_LOG_SD + abs(free[1]))
        return float(-log_ndtr(z).sum())

    best = optimize.minimize(loss, [float(np.median(x)), 0.2], method="Nelder-Mead")
    return {
        "value": _round(math.exp(best.x[0])),
        "log_sd": _round(LEAST_LOG_SD + abs(float(best.x[1]))),
    }


def _round(value: float) -> float:
    return float(f"{value:.3g}")
