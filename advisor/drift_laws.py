"""How drift grows with lag: the exponent α, and whether the run drifts ballistically or diffuses.

Pure. With momentum, updates correlate even when gradients are pure noise, so short lags always look
ballistic: only lags beyond 1/(1 − β1) are read, and the exponent is held against that of noise
through the same momentum, fitted at the same lags (theory.md §4, "G_eff, α").
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from storage.records import LagDrift

from .regime import Estimate, unknown

BLOCKS = 8
LEAST_WINDOWS = 4
LEAST_LAGS = 3
INTERVAL = 0.95
LEAST_OF_AN_AGE = 3


class DriftKind(StrEnum):
    """How a run moves through weight space."""

    BALLISTIC = "ballistic"
    DIFFUSIVE = "diffusive"
    BETWEEN = "between"
    UNDECIDED = "undecided"


@dataclass(frozen=True, slots=True, kw_only=True)
class DriftLaw:
    """Drift over k learner steps ∝ k^α.

    ``null_alpha`` is the exponent that pure noise through the same momentum shows at the same lags;
    ``g_eff`` gives ‖Δθ‖/Σ η by lag, its root mean square over the windows of that lag.
    """

    alpha: Estimate
    null_alpha: float | None
    kind: DriftKind
    reason: str
    g_eff: Mapping[int, float]


def drift_law_of(drifts: Sequence[LagDrift], beta1: float, after: int = 0) -> DriftLaw:
    """Fit α on the windows of a run.

    Args:
        drifts: windows of lags 2, 4, 8, … as the trainer keeps them.
        beta1: momentum of the optimizer.
        after: windows that begin before this learner step are left out, such as the warm-up.
    """
    used = [d for d in drifts if d.step + 1 - d.lag >= after and d.norm and d.rate_sum]
    g_eff = {lag: _rms(used, lag) for lag in sorted({d.lag for d in used})}
    shortest = 1 / (1 - beta1)
    lags = [
        lag for lag in g_eff if lag > shortest and sum(d.lag == lag for d in used) >= LEAST_WINDOWS
    ]
    if len(lags) < LEAST_LAGS:
        why = (
            f"{len(lags)} lags beyond 1/(1 − β1) = {shortest:.0f} have {LEAST_WINDOWS} windows; "
            f"{LEAST_LAGS} are needed"
        )
        return DriftLaw(
            alpha=unknown(why), null_alpha=None, kind=DriftKind.UNDECIDED, reason=why, g_eff=g_eff
        )
    alpha = _with_interval(used, lags)
    null = _fitted(lags, [momentum_null(lag, beta1) for lag in lags], [1.0 / lag for lag in lags])
    kind, reason = _kind(alpha, null)
    return DriftLaw(alpha=alpha, null_alpha=null, kind=kind, reason=reason, g_eff=g_eff)


def _rms(drifts: Sequence[LagDrift], lag: int) -> float:
    ratios = [(d.norm or 0) / (d.rate_sum or 1) for d in drifts if d.lag == lag]
    return math.sqrt(float(np.mean(np.square(ratios))))


def momentum_null(lag: int, beta1: float) -> float:
    """Return the rms displacement over ``lag`` steps of updates that are an AR(1) of white noise.

    With m_t = β·m_{t−1} + (1 − β)·g_t and independent g, updates correlate as β^|i−j|, so the mean
    square over k steps is k·(1 + β)/(1 − β) − 2β(1 − β^k)/(1 − β)², in units of one update's.
    """
    b = beta1
    return math.sqrt(lag * (1 + b) / (1 - b) - 2 * b * (1 - b**lag) / (1 - b) ** 2)


def _fitted(lags: Sequence[int], norms: Sequence[float], weights: Sequence[float]) -> float:
    """Return the slope of log norm against log lag, weighted by how many windows a lag has."""
    return float(np.polyfit(np.log(lags), np.log(norms), 1, w=np.sqrt(weights))[0])


def _alpha(drifts: Sequence[LagDrift], lags: Sequence[int]) -> float:
    present = [lag for lag in lags if any(d.lag == lag for d in drifts)]
    norms = [_rms(drifts, lag) * lag for lag in present]
    return _fitted(present, norms, [1.0 / lag for lag in present])


def _with_interval(drifts: Sequence[LagDrift], lags: Sequence[int]) -> Estimate:
    """Leave out one eighth of the run at a time."""
    value = _alpha(drifts, lags)
    end = max(d.step for d in drifts) + 1
    left_out = []
    for block in range(BLOCKS):
        kept = [d for d in drifts if (d.step + 1 - d.lag // 2) * BLOCKS // (end + 1) != block]
        if len({d.lag for d in kept if d.lag in lags}) >= LEAST_LAGS:
            left_out.append(_alpha(kept, lags))
    n = len(left_out)
    stderr = math.sqrt(
        (n - 1) / n * float(np.square(np.subtract(left_out, np.mean(left_out))).sum())
    )
    half = float(stdtrit(n - 1, (1 + INTERVAL) / 2)) * stderr
    return Estimate(
        value=value, low=value - half, high=value + half, reason=f"lags {lags[0]} to {lags[-1]}"
    )


def _kind(alpha: Estimate, null: float) -> tuple[DriftKind, str]:
    """Decide between the momentum null and a straight line; the middle between them divides."""
    middle = (null + 1) / 2
    low, high = alpha.low or 0.0, alpha.high or 0.0
    words = f"α = {alpha.value:.2f} ({low:.2f} … {high:.2f}), noise through momentum {null:.2f}"
    if low > middle:
        return DriftKind.BALLISTIC, words
    if high < middle:
        return (DriftKind.DIFFUSIVE if low <= null else DriftKind.BETWEEN), words
    return DriftKind.UNDECIDED, words


def function_drift_by_age(
    staleness: Sequence[float | None], log_ratio_rms: Sequence[float | None]
) -> dict[int, float]:
    """Return σ(τ), the rms log-ratio by age, with the engine's own floor σ(0) subtracted.

    σ(τ)² − σ(0)² of the mean squares; an age whose drift does not rise above the floor gives 0, one
    seen fewer than three times is left out. Without age 0 nothing is subtracted.
    """
    squares: dict[int, list[float]] = {}
    for age, rms in zip(staleness, log_ratio_rms, strict=True):
        if age is not None and rms is not None and math.isfinite(rms):
            squares.setdefault(round(age), []).append(rms**2)
    means: dict[int, float] = {
        age: float(np.mean(seen)) for age, seen in squares.items() if len(seen) >= LEAST_OF_AN_AGE
    }
    floor = means.get(0, 0.0)
    return {age: math.sqrt(max(0.0, means[age] - floor)) for age in sorted(means) if age > 0}


def g_eff_quantiles(
    drifts: Sequence[LagDrift], lag: int, quantiles: Sequence[float] = (0.5, 0.95)
) -> NDArray[np.float64]:
    """Return quantiles of ‖Δθ‖/Σ η over the windows of one lag; NaN without any."""
    ratios = [(d.norm or math.nan) / (d.rate_sum or math.nan) for d in drifts if d.lag == lag]
    if not ratios:
        return np.full(len(quantiles), math.nan)
    return np.asarray(np.quantile(ratios, quantiles))
