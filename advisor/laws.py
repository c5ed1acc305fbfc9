"""The three laws on one archive, as one answer: what holds, within which interval, what lacks.

Pure. The fits are in ``bias_laws`` and ``collapse_laws``; an estimate that could not be made
carries the reason, and the answer the command that would make the data suffice.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from storage.records import BiasProbe, LagDrift
from storage.words import counted

from . import bias_laws, collapse_laws
from .collapse_laws import Lifetime, Tried
from .drift_laws import drift_law_of
from .regime import Estimate

Law = dict[str, Any]
WARM_UP = 16
"""Windows that begin within these first learner steps, in which the rate warms up, are left out."""
TO_RUN = "python -m advisor laws --study {kind}"


def bias_law(probes: Sequence[BiasProbe], seeds: Mapping[str, int | None]) -> Law:
    """Return law (a): bias against drift and against S·η, under each correction."""
    law: Law = {
        "probes": len(probes),
        "uncorrected_exponent_in_drift": bias_laws.exponent(probes, "uncorrected"),
        "uncorrected_exponent_in_lag": bias_laws.exponent(probes, "uncorrected", along="lag"),
        "drift_exponent": bias_laws.drift_exponent(probes),
        "clipped_exponent_in_drift": bias_laws.exponent(probes, "clipped"),
        "clipped_ratio_at_equal_drift": bias_laws.ratio_at_equal_drift(probes, "clipped", seeds),
        "uncorrected_ratio_at_equal_drift": bias_laws.ratio_at_equal_drift(
            probes, "uncorrected", seeds
        ),
        "unclipped_upper_bound": bias_laws.upper_bound(probes),
        **{f"clipped_{k}": v for k, v in bias_laws.onset_and_saturation(probes).items()},
    }
    return law | _missing(law["uncorrected_exponent_in_drift"].value is None, "bias")


def drift_by_rate(drifts: Mapping[float, Sequence[Sequence[LagDrift]]], beta1: float) -> Law:
    """Return α by learning rate: its median over runs and seeds, and how each run drifts.

    Args:
        drifts: windows of each run, by learning rate.
        beta1: momentum of the optimizer.
    """
    rows = {}
    for rate, runs in sorted(drifts.items()):
        found = [drift_law_of(run, beta1, after=WARM_UP) for run in runs]
        known = sorted(law.alpha.value for law in found if law.alpha.value is not None)
        rows[rate] = {
            "runs": len(runs),
            "alpha": Estimate(
                value=known[len(known) // 2] if known else None,
                low=known[0] if known else None,
                high=known[-1] if known else None,
                reason=f"median and range over {counted(len(known), 'run')}"
                if known
                else (found[0].reason if found else "no run"),
            ),
            "kinds": Counter(str(law.kind) for law in found),
        }
    return {"by_learning_rate": rows}


def horizon_law(lifetimes: Sequence[Lifetime], study: str = "horizon") -> Law:
    """Return law (b): collapse step against η and S+1, and the clock on which collapses agree.

    ``exponents`` are over the cells whose active clip stays below 0.5 % to onset, where the law is
    claimed; ``exponents_all_cells`` over all of them. ``study`` made the runs.
    """
    by_cell: dict[tuple[float, int], list[Lifetime]] = {}
    for run in lifetimes:
        by_cell.setdefault((run.learning_rate, run.max_staleness), []).append(run)
    quiet = [
        r for cell in by_cell.values() if all(map(collapse_laws.clip_inactive, cell)) for r in cell
    ]
    clocks = collapse_laws.clocks_compared(lifetimes)
    winner = clocks[0] if clocks[0].held_out is not None else None
    law: Law = {
        "runs": len(lifetimes),
        "collapses": sum(run.collapsed for run in lifetimes),
        "runs_without_active_clip": len(quiet),
        "exponents": collapse_laws.collapse_exponents(quiet),
        "exponents_all_cells": collapse_laws.collapse_exponents(lifetimes),
        "clocks": clocks,
        "winning_clock": None if winner is None else winner.clock,
        "winning_clock_reason": clocks[0].log_sd.reason
        if winner is None
        else "held-out likelihood",
    }
    return law | _missing(law["exponents_all_cells"]["rate"].value is None, study)


def boundary_law(collapse: Sequence[Tried], unsafe: Sequence[Tried]) -> Law:
    """Return law (c): the largest safe η against S+1, under "collapsed" and under "unsafe"."""
    law: Law = {}
    for name, tried in (("collapsed", collapse), ("unsafe", unsafe)):
        slopes = collapse_laws.boundary_slopes(tried)
        law[name] = {
            "runs": len(tried),
            "largest_safe": collapse_laws.largest_safe(tried),
            "slopes": slopes,
            "regimes": {k: collapse_laws.implied_regime(v) for k, v in slopes.items()},
        }
    return law | _missing(law["unsafe"]["slopes"]["all"].value is None, "boundary")


def _missing(insufficient: bool, kind: str) -> Law:
    return {
        "sufficient": not insufficient,
        "to_run": TO_RUN.format(kind=kind) if insufficient else None,
    }
