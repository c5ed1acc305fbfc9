"""The paper's first law on measured probes: how the gradient bias grows with drift and with S·η.

Pure. Fits are made on signed ‖b‖² by weighted least squares, because ‖b‖ of a noisy estimate is
biased upwards; intervals come from leaving out one run at a time (theory.md §4).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from scipy.optimize import least_squares
from scipy.special import stdtrit

from storage.records import BiasProbe
from storage.words import counted

from .regime import Estimate, unknown

LEAST_RUNS = 3
LEAST_LAGS = 3
LARGEST_S_ETA = 1.6e-3
"""The laws are fitted on S·η up to here: O(S·η) speaks of small drifts."""
ONSET = 0.1
"""Relative bias at which the clip bias counts as begun."""
SATURATED_SLOPE = 0.5
INTERVAL = 0.95


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasCurve:
    """Relative bias by learning rate and lag under one correction, over its runs.

    Each row is (learning rate, lag, mean drift, relative bias, low, high, clip fraction, runs); the
    interval is of the mean over runs, a low end below 0 is shown as 0.
    """

    correction: str
    rows: tuple[tuple[float, int, float, float, float, float, float, int], ...]


def usable(probes: Sequence[BiasProbe], correction: str) -> list[BiasProbe]:
    """Return the probes of a correction that can enter a fit: a known error and a drift."""
    return [
        p
        for p in probes
        if p.correction == correction
        and p.staleness > 0
        and p.drift
        and p.learning_rate is not None
        and p.bias_squared is not None
        and math.isfinite(p.bias_squared)
        and p.bias_squared_stderr is not None
        and p.bias_squared_stderr > 0
        and p.staleness * p.learning_rate <= LARGEST_S_ETA * (1 + 1e-9)
    ]


def exponent(probes: Sequence[BiasProbe], correction: str, along: str = "drift") -> Estimate:
    """Fit ‖b‖² = a²·x^(2p) and return p with its interval over runs.

    Args:
        probes: of one study.
        correction: which gradient.
        along: x: ``drift`` ‖θ − φ‖, or ``lag`` in learner steps (then a is free for each rate).
    """
    points = usable(probes, correction)
    runs = sorted({p.run_id for p in points})
    lags = len({p.staleness for p in points})
    if len(runs) < LEAST_RUNS or lags < LEAST_LAGS:
        return unknown(
            f"{counted(len(runs), 'run')} with {counted(lags, 'usable lag')}; "
            f"{LEAST_RUNS} runs and {LEAST_LAGS} lags are needed"
        )
    return _over_runs(points, lambda chosen: _fit(chosen, along))


def _fit(points: Sequence[BiasProbe], along: str) -> float:
    """Return the exponent of one weighted fit."""
    x = np.log([float((p.drift if along == "drift" else p.staleness) or 0) for p in points])
    y = np.array([p.bias_squared for p in points], dtype=float)
    error = np.array([p.bias_squared_stderr for p in points], dtype=float)
    groups = [(p.learning_rate or 0.0) if along == "lag" else 0.0 for p in points]
    rates = sorted(set(groups))
    member = np.array([rates.index(group) for group in groups])
    scale = np.log(np.maximum(y, error))

    def residuals(free: Any) -> Any:
        return (y - np.exp(np.clip(free[1 + member] + 2 * free[0] * x, -60, 60))) / error

    start = [
        1.0,
        *(float(np.mean(scale[member == i] - 2 * x[member == i])) for i in range(len(rates))),
    ]
    return float(least_squares(residuals, start).x[0])


def drift_exponent(probes: Sequence[BiasProbe]) -> Estimate:
    """Fit drift = a·lag^α, a free for each rate, on the lags of a study; α with its interval."""
    points = usable(probes, "uncorrected")
    if len({p.run_id for p in points}) < LEAST_RUNS:
        return unknown(f"fewer than {LEAST_RUNS} runs with usable lags")

    def fit(chosen: Sequence[BiasProbe]) -> float:
        rates = sorted({p.learning_rate or 0 for p in chosen})
        columns = [
            [math.log(p.staleness), *(float(p.learning_rate == r) for r in rates)] for p in chosen
        ]
        logs = [math.log(p.drift or 1) for p in chosen]
        return float(np.linalg.lstsq(np.array(columns), np.array(logs), rcond=None)[0][0])

    return _over_runs(points, fit)


def _over_runs(
    points: Sequence[BiasProbe], fit: Callable[[Sequence[BiasProbe]], float]
) -> Estimate:
    """Return a fit with the jackknife interval over runs."""
    runs = sorted({p.run_id for p in points})
    value = fit(points)
    left_out = np.array([fit([p for p in points if p.run_id != run]) for run in runs])
    n = len(runs)
    stderr = math.sqrt((n - 1) / n * float(((left_out - left_out.mean()) ** 2).sum()))
    half = float(stdtrit(n - 1, (1 + INTERVAL) / 2)) * stderr
    return Estimate(value=value, low=value - half, high=value + half, reason=f"{n} runs")


def ratio_at_equal_drift(
    probes: Sequence[BiasProbe], correction: str, seeds: Mapping[str, int | None]
) -> Estimate:
    """Return ‖b‖ of the largest learning rate over that of the smallest at equal drift.

    Within each seed the smaller rate's ‖b‖ is interpolated in logarithms to the larger one's
    drifts; where ‖b‖² is not positive it has no logarithm and is left out.
    """
    points = [p for p in usable(probes, correction) if (p.bias_squared or 0) > 0]
    rates = sorted({p.learning_rate or 0 for p in points})
    if len(rates) < 2:
        return unknown("bias at two learning rates is needed")
    ratios = []
    for seed in sorted({seeds.get(p.run_id) or 0 for p in points}):
        low, high = (
            sorted(
                (math.log(p.drift or 1), math.log(p.bias_squared or 1) / 2)
                for p in points
                if p.learning_rate == rate and (seeds.get(p.run_id) or 0) == seed
            )
            for rate in (rates[0], rates[-1])
        )
        inside = [(x, y) for x, y in high if low and low[0][0] <= x <= low[-1][0]]
        if inside:
            x, y = zip(*low, strict=True)
            ratios.append(float(np.mean([v - np.interp(u, x, y) for u, v in inside])))
    if len(ratios) < LEAST_RUNS:
        return unknown(
            f"{counted(len(ratios), 'seed')} with both rates at equal drift; "
            f"{LEAST_RUNS} are needed"
        )
    half = float(stdtrit(len(ratios) - 1, (1 + INTERVAL) / 2)) * float(
        np.std(ratios, ddof=1) / math.sqrt(len(ratios))
    )
    middle = float(np.mean(ratios))
    return Estimate(
        value=math.exp(middle),
        low=math.exp(middle - half),
        high=math.exp(middle + half),
        reason=f"η = {rates[-1]:g} over η = {rates[0]:g}, by seed "
        + ", ".join(f"{math.exp(ratio):.2f}" for ratio in ratios),
    )


def curve(probes: Sequence[BiasProbe], correction: str) -> BiasCurve:
    """Return the relative bias of a correction by learning rate and lag.

    ‖b‖² and ‖H‖² are averaged over runs before they are divided: a run whose ‖H‖ happens to be
    small would dominate a mean of ratios.
    """
    rows = []
    cells = sorted(
        {(p.learning_rate or 0, p.staleness) for p in probes if p.correction == correction}
    )
    for rate, lag in cells:
        cell = [
            p
            for p in probes
            if p.correction == correction and p.learning_rate == rate and p.staleness == lag
        ]
        known = [p for p in cell if p.bias_squared is not None and p.norm_squared is not None]
        norm = float(np.mean([p.norm_squared for p in known])) if known else 0.0
        if norm <= 0:
            continue
        mean = float(np.mean([p.bias_squared for p in known])) / norm
        error = math.hypot(*(p.bias_squared_stderr or 0 for p in known)) / len(known) / norm
        low, middle, high = (math.sqrt(max(0.0, mean + k * error)) for k in (-1.96, 0, 1.96))
        drift = float(np.mean([p.drift or 0 for p in cell]))
        clipped = float(np.mean([p.clip_fraction or 0 for p in cell]))
        rows.append((rate, lag, drift, middle, low, high, clipped, len(known)))
    return BiasCurve(correction=correction, rows=tuple(rows))


def upper_bound(probes: Sequence[BiasProbe], correction: str = "unclipped") -> Estimate:
    """Return the largest relative bias that the intervals of a correction still allow."""
    rows = [row for row in curve(probes, correction).rows if row[1] > 0]
    if not rows:
        return unknown(f"no probe of the {correction} gradient")
    worst = max(rows, key=lambda row: row[5])
    return Estimate(
        high=worst[5],
        is_bound=True,
        reason=f"largest upper end over {len(rows)} cells, at η = {worst[0]:g}, lag {worst[1]}",
    )


def onset_and_saturation(probes: Sequence[BiasProbe]) -> dict[str, Estimate]:
    """Return the drift of onset, the steepest and the last local slope of the clipped bias.

    Local slopes are d log(relative bias)/d log(drift) between neighboring lags of the smallest
    learning rate, which has the finest steps.
    """
    rows = [r for r in curve(probes, "clipped").rows if r[1] > 0 and r[3] > 0]
    rate = min((r[0] for r in rows), default=0.0)
    rows = [r for r in rows if r[0] == rate]
    if len(rows) < LEAST_LAGS:
        few = unknown(f"{len(rows)} lags with a positive clip bias; {LEAST_LAGS} are needed")
        return {"onset_drift": few, "steepest_slope": few, "last_slope": few}
    slopes = [
        math.log(b[3] / a[3]) / math.log(b[2] / a[2]) for a, b in pairwise(rows) if b[2] > a[2]
    ]
    return {
        "onset_drift": _onset(rows),
        "steepest_slope": Estimate(value=max(slopes), reason=f"η = {rate:g}"),
        "last_slope": Estimate(
            value=slopes[-1],
            reason=f"relative bias {rows[-1][3]:.2f} at S·η = {rate * rows[-1][1]:.1e}; "
            f"{'saturated' if slopes[-1] < SATURATED_SLOPE else 'still rising'}",
        ),
    }


def _onset(rows: Sequence[tuple[float, int, float, float, float, float, float, int]]) -> Estimate:
    for before, after in pairwise(rows):
        if before[3] < ONSET <= after[3]:
            share = math.log(ONSET / before[3]) / math.log(after[3] / before[3])
            value = math.exp(math.log(before[2]) + share * math.log(after[2] / before[2]))
            return Estimate(value=value, low=before[2], high=after[2], reason=f"bias {ONSET:.0%}")
    if rows[0][3] >= ONSET:
        return Estimate(high=rows[0][2], is_bound=True, reason="begun at the smallest lag already")
    return unknown(f"the relative bias stays below {ONSET:.0%}")
