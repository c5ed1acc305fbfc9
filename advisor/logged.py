"""What the log of any stack says about drift and clipping, batch by batch.

Pure. No stack logs how far the weights moved, so drift is measured where clipping sees it: as the
rms log-ratio σ of a batch, which is √(2·KL) to second order (theory.md §4, "Function space"). A log
with a clip fraction and no KL still orders its batches by η·age^α, with α between diffusive and
ballistic. Either unit serves, because only ratios of drift are read off. What a log lacks for both
is said in words, with the metric that would help.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from .clip_curve import NINETY, ClipCurve, Crossing, clip_curve
from .regime import Estimate, unknown
from .wording import rate as written

Unit = Literal["log_ratio", "rate"]
ALPHAS = (0.5, 0.75, 1.0)
"""Drift within a cycle is diffusive, as usual, or ballistic, where a log cannot say which."""
LEAST_STALE_ROWS = 10
RECENT_ROWS = 50
M2_LIMIT = 0.04
"""M2 = mean ℓ² up to which trust-region methods mask nothing (theory.md §4, §7)."""
MODEL_LOG_SD = 0.2
"""How far κ by log-ratios lies from κ by weights and their scaled log-ratios: on 36 runs of the
small model at S = 3 and 15 the two differ by 0.12 to 0.25 in ln κ within what was logged."""
OLDEST_SHARE = 0.25
"""Growth is fitted to ages above this share of the largest: log-ratios grow slower the older."""
MOST_BEYOND, WIDEN_BEYOND, WIDENED = 4.0, 2.0, 0.5
"""Beyond 2 times the logged rates a rate is widened by the root of how far, beyond 4 bounded."""
GROWTH_PRIOR = ((1.0, 0.15), (0.75, 0.15))
"""Mean and deviation, over settings, of d ln σ/d ln η and of d ln σ/d ln age."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LoggedDrift:
    """The batches of one run, as far as its log tells of them.

    ``rate_S``, ``age_S``, ``sigma_S`` and ``clip_S`` hold a batch each: learning rate, age of its
    rollouts in learner steps, rms log-ratio in nats, active-clip fraction; NaN is not logged.
    ``missing`` says what to log when there is nothing to tell drift by.
    """

    rate_S: NDArray[np.float64]
    age_S: NDArray[np.float64]
    sigma_S: NDArray[np.float64]
    clip_S: NDArray[np.float64]
    missing: str | None = None

    @property
    def unit(self) -> Unit | None:
        """The unit in which this log can tell drift; None if in none."""
        stale = self.age_S > 0
        if np.isfinite(self.sigma_S[stale]).sum() >= LEAST_STALE_ROWS:
            return "log_ratio"
        if np.isfinite(self.clip_S[stale]).sum() >= LEAST_STALE_ROWS:
            return "rate"
        return None

    def drift(self, alpha: float = ALPHAS[1]) -> NDArray[np.float64]:
        """Return the drift of each batch in its unit, NaN where it is fresh or not logged.

        The floor of σ, what two engines differ by at age 0, is removed where it is logged
        (theory.md §4: σ(τ) minus σ(0)). α only matters for η·age^α.
        """
        fresh = self.age_S == 0
        if self.unit != "log_ratio":
            drift = self.rate_S * np.power(self.age_S, alpha)
        else:
            at_start = self.sigma_S[fresh & np.isfinite(self.sigma_S)]
            floor = float(np.median(at_start)) if at_start.size else 0.0
            drift = np.sqrt(np.maximum(self.sigma_S**2 - floor**2, 0.0))
        return np.where(fresh, np.nan, drift)

    def drift_p95(self, max_staleness: int, alpha: float = ALPHAS[1]) -> float | None:
        """Return the 95th percentile of the drift of recent batches, as κ_staleness uses it."""
        drift = self.drift(alpha)[-max(RECENT_ROWS, 2 * (max_staleness + 1)) :]
        known = drift[np.isfinite(drift)]
        return float(np.percentile(known, 95)) if known.size else None


def pooled(logs: Sequence[LoggedDrift]) -> LoggedDrift:
    """Return the batches of several runs of one setting as one; at least one run."""
    return LoggedDrift(
        rate_S=np.concatenate([each.rate_S for each in logs]),
        age_S=np.concatenate([each.age_S for each in logs]),
        sigma_S=np.concatenate([each.sigma_S for each in logs]),
        clip_S=np.concatenate([each.clip_S for each in logs]),
        missing=next((each.missing for each in logs if each.missing), None),
    )


def radius(log: LoggedDrift, criterion: tuple[float, float, str], alpha: float) -> Estimate:
    """Return R_batch in the unit of the log's drift, as a range over the clip criterion.

    Where there is no clip fraction, or its criterion lies too far below all batches, another
    published safe level is left where σ is logged: M2 = σ² ≤ 0.04.

    Args:
        log: batches of a run, or of several of one setting.
        criterion: lower end, upper end and source of p*, see ``calibration.clip_criterion``.
        alpha: exponent of η·age^α, where that is the unit.
    """
    low_p, high_p, source = criterion
    if log.unit is None:
        return unknown(log.missing or "no stale batch is logged yet")
    curve = clip_curve(log.drift(alpha), log.clip_S)
    if curve is None:
        return _without_clipping(log)
    low, high = curve.crossing(low_p), curve.crossing(high_p)
    if low.low is None:
        return _far_below(curve, log.unit, high, source)
    if high.high is None or low.middle is None or high.middle is None:
        return Estimate(low=low.low, is_bound=True, reason=_far_above(curve, source))
    return _between(low.low, math.sqrt(low.middle * high.middle), high.high, source)


def _between(low: float, middle: float, high: float, reason: str) -> Estimate:
    """Return a range that is never narrower than log-ratios tell R_batch."""
    factor = math.exp(NINETY * MODEL_LOG_SD)
    return Estimate(value=middle, low=low / factor, high=high * factor, reason=reason)


def _far_below(curve: ClipCurve, unit: Unit, high: Crossing, source: str) -> Estimate:
    """Return R_batch where the lower end of p* lies too far below the logged batches to be told.

    M2's radius takes the place of that end; where it lies above the upper end of p*, the two
    published levels disagree and R_batch is anywhere between them.
    """
    reason = (
        f"{math.exp(curve.log_clip[0]):.2%} of the tokens are clipped at the least drift, and the "
        f"criterion lies more than 4 times below it: log a run at a lower learning rate ({source})"
    )
    if unit == "log_ratio":
        m2 = math.sqrt(M2_LIMIT)
        reason += f"; M2 ≤ {M2_LIMIT:g} is published as safe too"
        if high.high is None:
            return Estimate(low=m2, is_bound=True, reason=reason)
        least, most = min(m2, high.middle or high.high), max(m2, high.high)
        return _between(least, math.sqrt(least * most), most, reason)
    if high.high is None:
        return unknown(reason)
    return Estimate(high=high.high * math.exp(NINETY * MODEL_LOG_SD), is_bound=True, reason=reason)


def _far_above(curve: ClipCurve, source: str) -> str:
    most = math.exp(curve.log_clip[-1])
    return (
        f"{most:.2%} of the tokens at most were clipped, and the criterion lies more than 4 times "
        f"beyond in drift: log a run at a higher learning rate ({source})"
    )


def _without_clipping(log: LoggedDrift) -> Estimate:
    if log.unit == "log_ratio":
        return Estimate(
            low=math.sqrt(M2_LIMIT),
            is_bound=True,
            reason="no clip fraction against the behavior policy is in the log, so only M2 ≤ "
            f"{M2_LIMIT:g} bounds it, a published safe level",
        )
    return unknown("no token was clipped in any logged batch: log a run at a higher learning rate")


def safe_rate(
    log: LoggedDrift, criterion: tuple[float, float, str], max_staleness: int
) -> Estimate:
    """Return the learning rate at which the drift within a cycle reaches R_batch: κ_staleness = 1.

    σ = C·η^g·age^a is fitted to all stale batches, its exponents held near what is usual while few
    rates and ages are seen; in the unit η·age^α the rate follows for every α and the widest range
    of them is returned.

    Args:
        log: batches of the runs of one setting.
        criterion: as in ``radius``.
        max_staleness: S ≥ 1 that is asked about.
    """
    found = (
        _rate_of_sigma(log, radius(log, criterion, ALPHAS[1]), max_staleness)
        if log.unit == "log_ratio"
        else _rate_of_age(log, criterion, max_staleness)
    )
    return _near(found, log.rate_S)


def _near(found: Estimate, rate_S: NDArray[np.float64]) -> Estimate:
    """Widen what lies beyond 2 times the logged rates, and only bound what lies 4 times above."""
    known = rate_S[np.isfinite(rate_S) & (rate_S > 0)]
    if found.value is None or not known.size:
        return found
    least, most = float(known.min()), float(known.max())
    if found.value > MOST_BEYOND * most:
        return Estimate(
            low=min(found.low or math.inf, MOST_BEYOND * most),
            is_bound=True,
            reason=f"the clip is far from taking hold at {written(most)}, the highest logged rate: "
            "log a run at a higher one",
        )
    beyond = max(found.value / most, least / found.value) / WIDEN_BEYOND
    factor = max(1.0, beyond) ** WIDENED
    return Estimate(
        value=found.value,
        low=None if found.low is None else found.low / factor,
        high=None if found.high is None else found.high * factor,
        reason=found.reason,
    )


def _rate_of_age(
    log: LoggedDrift, criterion: tuple[float, float, str], max_staleness: int
) -> Estimate:
    found = [radius(log, criterion, a).scaled(max_staleness**-a) for a in ALPHAS]
    lows, highs = [e.low for e in found], [e.high for e in found]
    low = None if None in lows else min(x for x in lows if x is not None)
    high = None if None in highs else max(x for x in highs if x is not None)
    usual = found[1]
    both = usual.value is not None and low is not None and high is not None
    return Estimate(
        value=usual.value if both else None,
        low=low,
        high=high,
        is_bound=not both and (low, high) != (None, None),
        reason=next((e.reason for e in found if e.value is None), usual.reason),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """ln σ = c + by_rate·ln η + by_age·ln age, and the error of it near the logged batches."""

    c: float
    by_rate: float
    by_age: float
    log_sd: float


def growth(log: LoggedDrift) -> Growth | None:
    """Fit how σ grows with η and age; None with fewer than ten stale batches that have a σ.

    The mean of σ² is taken over batches of one rate and age in whole steps before the logarithm, so
    that a batch that hardly drifted weighs no more than another.
    """
    sigma = log.drift()
    known = np.isfinite(sigma) & (log.rate_S > 0) & (log.age_S > 0)
    if known.any():
        known &= log.age_S >= OLDEST_SHARE * log.age_S[known].max()
    if known.sum() < LEAST_STALE_ROWS or not (sigma[known] > 0).any():
        return None
    x, y, weight = _cells(log.rate_S[known], log.age_S[known], sigma[known])
    total = weight.sum()
    centre, level = weight @ x / total, float(weight @ y / total)
    prior, doubt = np.array(GROWTH_PRIOR).T
    a, rest = x - centre, y - level - (x - centre) @ prior
    spread = float(weight @ rest**2 / total) or 1.0
    weighted = a.T * weight
    fit = prior + np.linalg.solve(weighted @ a + np.diag(spread / doubt**2), weighted @ rest)
    residual = y - level - a @ fit
    by_rate, by_age = float(max(0.3, fit[0])), float(max(0.1, fit[1]))
    return Growth(
        c=level - by_rate * float(centre[0]) - by_age * float(centre[1]),
        by_rate=by_rate,
        by_age=by_age,
        log_sd=math.sqrt(float(weight @ residual**2 / total) / len(y)),
    )


def _cells(
    rate_S: NDArray[np.float64], age_S: NDArray[np.float64], sigma_S: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return (ln η, ln age), ½·ln mean σ² and the number of batches of each rate and whole age."""
    keys = np.stack([rate_S, np.ceil(age_S)], axis=1)
    _, place = np.unique(keys, axis=0, return_inverse=True)
    place = place.reshape(-1)
    count = np.bincount(place).astype(np.float64)
    square = np.bincount(place, sigma_S**2) / count
    log_age = np.bincount(place, np.log(age_S)) / count
    log_rate = np.bincount(place, np.log(rate_S)) / count
    use = square > 0
    x = np.stack([log_rate, log_age], axis=1)[use]
    return x, 0.5 * np.log(square[use]), count[use]


def _rate_of_sigma(log: LoggedDrift, found: Estimate, max_staleness: int) -> Estimate:
    law = growth(log)
    if law is None or found.low is None:
        return found if law is not None else unknown("too few stale batches to fit their drift")

    def rate(sigma: float | None, errors: float) -> float | None:
        if sigma is None:
            return None
        log_rate = (math.log(sigma) - law.c - law.by_age * math.log(max_staleness)) / law.by_rate
        return math.exp(log_rate + errors * NINETY * law.log_sd / law.by_rate)

    return Estimate(
        value=rate(found.value, 0),
        low=rate(found.low, -1),
        high=rate(found.high, 1),
        is_bound=found.is_bound,
        reason=found.reason,
    )
