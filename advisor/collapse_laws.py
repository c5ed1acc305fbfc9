"""The collapse-time law and the boundary: when runs collapse, on which clock, and where they do.

Pure. Collapse times are right-censored where a run finished, so they are fitted as log-normal
accelerated failure times; several clocks compete by the likelihood of learning rates that a fit has
not seen (theory.md §4, "R_crit").
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import chdtri, log_ndtr

from storage.words import counted

from .regime import Estimate, unknown

LEAST_EVENTS = 6
CLOCKS = ("step", "rate_sum", "path_length", "displacement", "sqrt_kl")
INACTIVE_CLIP = 0.005
"""Cells whose active-clip fraction stays below this to onset test the law without clipping."""
LARGE_PERIOD = 8
MOST_UNCERTAIN = 2.0
"""A fit that is less sure of a slope than this has failed to find its error."""
NEVER = 1e-9
"""Stands for "below every rate that was tried": an interval needs a positive end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lifetime:
    """One run up to its collapse, or to its end if it did not (then it is censored).

    ``step`` is on the version clock and at least 1; ``clocks`` holds the value of every clock there
    (None where it was not measured) and ``slopes`` d log clock / d log step just before.
    ``clip_fraction`` is the mean active-clip fraction up to there; None at S = 0, where clipping is
    structurally impossible.
    """

    run_id: str
    learning_rate: float
    max_staleness: int
    seed: int
    collapsed: bool
    step: int
    clip_fraction: float | None
    clocks: Mapping[str, float | None]
    slopes: Mapping[str, float | None]


def clip_inactive(run: Lifetime) -> bool:
    """Whether clipping played no part up to the end of this lifetime."""
    return run.clip_fraction is None or run.clip_fraction < INACTIVE_CLIP


def collapse_exponents(runs: Sequence[Lifetime]) -> dict[str, Estimate]:
    """Fit log t = μ + a·log η + b·log(S+1) + σ·z with censoring; return a and b.

    The collapse law of the paper says a = −1 and b = 0 while clipping is inactive.
    """
    events = [run for run in runs if run.collapsed]
    names = {"rate": "log_rate", "period": "log_period"}
    if len(events) < LEAST_EVENTS or len({run.learning_rate for run in events}) < 2:
        why = f"{counted(len(events), 'collapse')}; {LEAST_EVENTS} at two learning rates are needed"
        return dict.fromkeys(names, unknown(why))
    varied = [c for c in names.values() if len({_covariates(run)[c] for run in runs}) > 1]
    with _quiet():
        import pandas as pd
        from lifelines import LogNormalAFTFitter

        table = pd.DataFrame(
            [
                {"step": float(run.step), "collapsed": run.collapsed, **_covariates(run)}
                for run in runs
            ]
        )[["step", "collapsed", *varied]]
        fit = LogNormalAFTFitter().fit(table, "step", "collapsed")
    reason = f"{len(events)} collapses, {len(runs) - len(events)} censored"
    return {
        name: _coefficient(fit.summary, column, reason)
        if column in varied
        else unknown("only one value of it was run")
        for name, column in names.items()
    }


def _covariates(run: Lifetime) -> dict[str, float]:
    return {
        "log_rate": math.log(run.learning_rate),
        "log_period": math.log(run.max_staleness + 1),
    }


def _coefficient(summary: Any, column: str, reason: str) -> Estimate:
    row = summary.loc[("mu_", column)]
    return Estimate(
        value=float(row["coef"]),
        low=float(row["coef lower 95%"]),
        high=float(row["coef upper 95%"]),
        reason=reason,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockFit:
    """How tightly collapses agree on one clock.

    ``log_sd`` is the standard deviation of log clock at onset over the collapses. ``held_out`` is
    the mean log-likelihood, in log steps, of each learning rate's lifetimes under the fit to the
    others; None where the clock was not measured in every run.
    """

    clock: str
    log_sd: Estimate
    held_out: float | None
    median: float | None


def clocks_compared(runs: Sequence[Lifetime]) -> list[ClockFit]:
    """Return every clock's fit, the best held-out likelihood first."""
    fits = [_clock_fit(clock, runs) for clock in CLOCKS]
    return sorted(fits, key=lambda fit: math.inf if fit.held_out is None else -fit.held_out)


def _clock_fit(clock: str, runs: Sequence[Lifetime]) -> ClockFit:
    known = [(run, v) for run in runs if (v := run.clocks.get(clock)) is not None and v > 0]
    logs = np.array([math.log(value) for run, value in known if run.collapsed])
    n = len(logs)
    if n < LEAST_EVENTS:
        few = unknown(f"{n} collapses with this clock; {LEAST_EVENTS} are needed")
        return ClockFit(clock=clock, log_sd=few, held_out=None, median=None)
    sd = float(logs.std(ddof=1))
    low, high = (sd * math.sqrt((n - 1) / chdtri(n - 1, p)) for p in (0.025, 0.975))
    log_sd = Estimate(value=sd, low=low, high=high, reason=f"{n} collapses")
    complete = len(known) == len(runs)
    held_out = _held_out(clock, runs) if complete else None
    return ClockFit(
        clock=clock, log_sd=log_sd, held_out=held_out, median=float(np.exp(np.median(logs)))
    )


def _held_out(clock: str, runs: Sequence[Lifetime]) -> float | None:
    """Leave each learning rate out in turn; densities are carried to log steps by the slope."""
    total = 0.0
    for rate in sorted({run.learning_rate for run in runs}):
        train = [run for run in runs if run.learning_rate != rate]
        if sum(run.collapsed for run in train) < 2:
            return None
        mean, sd = _censored_normal(clock, train)
        for run in runs:
            if run.learning_rate != rate:
                continue
            z = (math.log(run.clocks[clock] or 1.0) - mean) / sd
            if not run.collapsed:
                total += float(log_ndtr(-z))
                continue
            slope = run.slopes.get(clock)
            if slope is None or slope <= 0:
                return None
            total += -(z**2) / 2 - math.log(sd * math.sqrt(2 * math.pi)) + math.log(slope)
    return total / len(runs)


def _censored_normal(clock: str, runs: Sequence[Lifetime]) -> tuple[float, float]:
    """Fit a log-normal to right-censored clock values; return mean and deviation of its log."""
    with _quiet():
        from lifelines import LogNormalFitter

        fit = LogNormalFitter().fit(
            [run.clocks[clock] for run in runs], [run.collapsed for run in runs]
        )
    return float(fit.mu_), max(float(fit.sigma_), 0.02)


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """One run at a learning rate: whether it counted as bad, by collapse alone or as unsafe."""

    learning_rate: float
    max_staleness: int
    seed: int
    bad: bool


def largest_safe(tried: Sequence[Tried]) -> dict[int, float | None]:
    """Return, for each S, the largest rate at and below which no seed was bad; None if none was."""
    found: dict[int, float | None] = {}
    for staleness in sorted({t.max_staleness for t in tried}):
        best = None
        for rate in sorted({t.learning_rate for t in tried if t.max_staleness == staleness}):
            cell = [t for t in tried if (t.max_staleness, t.learning_rate) == (staleness, rate)]
            if any(t.bad for t in cell):
                break
            best = rate
        found[staleness] = best
    return found


def brackets(tried: Sequence[Tried]) -> list[tuple[int, int, float, float]]:
    """Return (S, seed, low, high): each seed's edge lies between its last safe and first bad rate.

    Low is 0 when the smallest rate was bad, high is inf when none was.
    """
    found = []
    for key in sorted({(t.max_staleness, t.seed) for t in tried}):
        cell = sorted(
            (t for t in tried if (t.max_staleness, t.seed) == key), key=lambda t: t.learning_rate
        )
        first = next((t.learning_rate for t in cell if t.bad), math.inf)
        low = max((t.learning_rate for t in cell if t.learning_rate < first), default=0.0)
        found.append((*key, low, first))
    return found


def boundary_slopes(tried: Sequence[Tried]) -> dict[str, Estimate]:
    """Fit log η_edge on log(S+1): one slope over all S, and one each for small and large S.

    The edge of every seed is interval-censored between its last safe and first bad rate. A slope of
    0 says that staleness does not limit, −1/2 that it does with diffusive, −1 with ballistic drift.
    """
    ranges = {
        "all": (1, math.inf),
        "small": (1, LARGE_PERIOD),
        "large": (LARGE_PERIOD, math.inf),
    }
    return {name: _slope(brackets(tried), *ends) for name, ends in ranges.items()}


def _slope(edges: Sequence[tuple[int, int, float, float]], least: float, most: float) -> Estimate:
    chosen = [edge for edge in edges if least <= edge[0] + 1 <= most]
    bracketed = [edge for edge in chosen if edge[2] > 0 and math.isfinite(edge[3])]
    stalenesses = {edge[0] for edge in bracketed}
    if len(bracketed) < LEAST_EVENTS or len(stalenesses) < 2:
        return unknown(
            f"{counted(len(bracketed), 'seed')} with an edge between two tried rates, at "
            f"{counted(len(stalenesses), 'value')} of S; {LEAST_EVENTS} at two are needed"
        )
    with _quiet():
        import pandas as pd
        from lifelines import LogNormalAFTFitter

        table = pd.DataFrame(
            {
                "low": [max(low, NEVER) for _, _, low, _ in chosen],
                "high": [high for _, _, _, high in chosen],
                "log_period": [math.log(staleness + 1) for staleness, *_ in chosen],
            }
        )
        fit = LogNormalAFTFitter().fit_interval_censoring(table, "low", "high")
    found = _coefficient(fit.summary, "log_period", f"{len(bracketed)} bracketed edges")
    half = ((found.high or 0) - (found.low or 0)) / 2
    return found if half <= MOST_UNCERTAIN else _within_brackets(bracketed)


def _within_brackets(bracketed: Sequence[tuple[int, int, float, float]]) -> Estimate:
    """Return the slopes that the brackets allow where their spread tells no error.

    Seeds whose brackets agree leave the fit no scatter to learn an error from; all that is known is
    that the mean edge of the largest and of the smallest S lie within their mean brackets.
    """
    ends = []
    for staleness in (min(e[0] for e in bracketed), max(e[0] for e in bracketed)):
        cell = [e for e in bracketed if e[0] == staleness]
        low, high = (float(np.mean([math.log(e[i]) for e in cell])) for i in (2, 3))
        ends.append((math.log(staleness + 1), low, high))
    (x, low, high), (far, far_low, far_high) = ends
    return Estimate(
        value=((far_low + far_high) - (low + high)) / 2 / (far - x),
        low=(far_low - high) / (far - x),
        high=(far_high - low) / (far - x),
        reason=f"{len(bracketed)} bracketed edges, which agree within the grid of rates",
    )


def implied_regime(slope: Estimate) -> str:
    """Say in words which limit a slope of log η_edge against log(S+1) speaks for."""
    if slope.low is None or slope.high is None:
        return slope.reason or "unknown"
    if slope.high < -0.75:
        return "staleness limits, with ballistic drift"
    if slope.low > -0.75 and slope.low <= -0.5 <= slope.high < -0.25:
        return "staleness limits, with diffusive drift"
    if slope.low > -0.25 and slope.high >= 0:
        return "staleness does not limit here"
    if slope.low > -0.5 and slope.high < 0:
        return "staleness limits, but by less than diffusive drift alone would"
    return "undecided: the interval allows more than one regime"


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep warnings of the survival library's own dependencies out of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
