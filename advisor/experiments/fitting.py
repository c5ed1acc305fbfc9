"""Fit the safe levels to cells whose truth is known: what ``validate --fit`` does.

Only on cells for tuning. Edges come from the shares of unsafe runs on the grid (Spearman–Kärber);
the levels of learned rewards from the same cells, or from runs of other archives (``followed``).
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from storage.commandline import BadInput
from storage.store import Store

from ..measured import Measured
from ..segments import crossing, is_learned_reward
from ..truth import RateOutcome, best_index, grid_rate
from .cell_probes import run_probes
from .cell_runs import Progress, find_truth, run_is_of, start_rewards
from .cells import TUNING, UNUSED_RATE, Cell
from .edges import LEAST_LOG_SD, SEED_LOG_SD, Curve, best_share, edge_of, rounded
from .followed import Evidence, followed, joined, learned_levels
from .validation import truth_group


def fit(
    store: Store,
    cells: Sequence[Cell],
    others: Sequence[Evidence],
    *,
    jobs: int | None,
    progress: Progress,
) -> dict[str, Any]:
    """Probe the cells for tuning, find their truth, and return the safe levels that fit them.

    ``others`` are runs and probes on learned rewards; with them no cell of one is run.
    """
    learned = [cell for cell in cells if is_learned_reward(cell.config(UNUSED_RATE, 0))]
    checked = [cell for cell in cells if cell not in learned]
    chosen = checked if others else cells
    horizon = learned_levels(joined(others)) if others else None  # before anything is run
    probes = run_probes(store, chosen, jobs=jobs or 2, progress=progress)
    group = truth_group(TUNING)
    outcomes = find_truth(store, chosen, group=group, jobs=jobs, progress=progress)
    if horizon is None:
        runs = store.runs(group=group, archived=False)
        own = [run for run in runs if any(run_is_of(run, cell) for cell in learned)]
        names = {cell.name for cell in learned}
        of_cells = [probe for (name, _), probe in probes.items() if name in names]
        horizon = learned_levels(Evidence(runs=followed(store, own), probes=of_cells))
    survival = survival_levels(store, checked, outcomes, probes, group)
    shares = {
        "survival": survival.pop("best_over_edge"),
        "horizon": horizon.pop("best_over_edge"),
    }
    return {**survival, **horizon, "best_over_edge": shares}


def survival_levels(
    store: Store,
    cells: Sequence[Cell],
    outcomes: Mapping[str, Mapping[int, RateOutcome]],
    probes: Mapping[tuple[str, int], Measured],
    group: str,
) -> dict[str, Any]:
    """Return the safe levels of rewards that can be checked, as they are packaged.

    Args:
        store: the archive with the runs of the truth.
        cells: the cells for tuning whose reward can be checked.
        outcomes: their truth by grid index.
        probes: their probes.
        group: of the runs of the truth.

    Returns:
        ``edge_over_crossing`` and ``best_over_edge``.

    Raises:
        BadInput: too few probes have a crossing, or no grid spans an edge.
    """
    edges = {cell.name: edge_of(outcomes[cell.name]) for cell in cells}
    ratios, errors = _over_crossing(cells, edges, outcomes, probes)
    starts = start_rewards(store, group, cells)
    curves = [
        Curve(rewards, edge, starts[cell.name])
        for cell in cells
        if (edge := edges[cell.name]) is not None and (rewards := _rewards(outcomes[cell.name]))
    ]
    gaining = [curve for curve in curves if curve.gains]
    if len(ratios) < 2 or not gaining:
        raise BadInput(
            f"cells: {len(ratios)} probes of cells whose edge is known have a crossing, at least 2 "
            f"are needed; {len(gaining)} cells gain, at least 1 is needed"
        )
    return {
        "edge_over_crossing": {
            "value": rounded(math.exp(statistics.fmean(ratios))),
            "log_sd": rounded(math.hypot(_between(ratios, errors), SEED_LOG_SD)),
        },
        "best_over_edge": best_share(gaining),
    }


def _rewards(outcomes: Mapping[int, RateOutcome]) -> dict[float, float]:
    return {grid_rate(i): o.reward for i, o in sorted(outcomes.items()) if o.reward is not None}


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
        for (name, _), probe in probes.items():
            found = crossing(probe.stale, probe.segments) if name == cell.name else None
            if found is not None:
                ratios.append(math.log(edge / found[0]))
                errors.append(found[1])
    return ratios, errors


def _between(ratios: Sequence[float], errors: Sequence[float]) -> float:
    """Return the scatter between cells: that of the ratios without the error of the crossings."""
    own = statistics.fmean(error**2 for error in errors)
    return math.sqrt(max(LEAST_LOG_SD**2, statistics.variance(ratios) - own))
