"""From the segments of a probe to the limits of a setting, each a rate with its uncertainty.

Pure. A limit is log-normal: P(unsafe by it) at rate η is Φ((ln η − ln median)/log_sd), which holds
the error of the measurement, the scatter of the safe level between settings, and that of seeds.
Asked about another S, T, batch, width or clip than was probed, a limit is carried over or refused
(``transfers``).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import NormalDist

import numpy as np

from storage.words import counted
from trainer.config import TrainerConfig

from .safe_levels import Level, SafeLevels, signature
from .segments import Segment, crossing, gains, is_learned_reward
from .wording import rate as written

NORMAL = NormalDist()
ONE_SIDED_LOG_SD = 0.7
"""Uncertainty of an edge of which only one side was seen."""
PRIOR_ALPHA, PRIOR_WEIGHT = 0.7, 2.0
"""Weak pull of the drift exponent towards what is usual, in units of its measured points."""
PRIOR_KL_SLOPE = 0.7
EXTRAPOLATED_LOG_SD = 0.12
"""Added uncertainty per unit of ln Σ η beyond what the holds have travelled."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RateLimit:
    """One limit on the learning rate: its median, its spread in ln η, and what it rests on.

    ``binding`` is ``staleness``, ``local_step`` or ``horizon``; ``bound`` is ``low`` or ``high``
    when only that side of the edge was seen.
    """

    binding: str
    median: float
    log_sd: float
    reason: str
    bound: str | None = None

    def unsafe_probability(self, learning_rate: float) -> float:
        """Return P(unsafe by this limit) at a rate."""
        return NORMAL.cdf((math.log(learning_rate) - math.log(self.median)) / self.log_sd)

    def moved(self, factor: float, extra_log_sd: float, why: str) -> "RateLimit":
        """Return the limit carried to another setting, with its assumption added."""
        return replace(
            self,
            median=self.median * factor,
            log_sd=math.hypot(self.log_sd, extra_log_sd),
            reason=f"{self.reason}; {why}",
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drift:
    """ln ‖θ − θ_0‖ = c + α·ln Σ η + b·ln η, fitted to the holds, with its residual spread."""

    c: float
    alpha: float
    b: float
    residual: float
    reached: float

    def displacement(self, rate_sum: float, learning_rate: float) -> float:
        """Return the displacement after Σ η at a rate."""
        return math.exp(self.c + self.alpha * math.log(rate_sum) + self.b * math.log(learning_rate))


def drift_of(holds: Sequence[Segment], warmup_steps: int) -> Drift | None:
    """Fit how the displacement of holds grows; None without three points."""
    rows, logs = [], []
    reached = 0.0
    for hold in holds:
        for rate_sum, _, distance in hold.travel:
            if rate_sum > hold.learning_rate * (warmup_steps + 2) and distance > 0:
                rows.append([1.0, math.log(rate_sum), math.log(hold.learning_rate)])
                logs.append(math.log(distance))
                reached = max(reached, rate_sum)
    if len(rows) < 3:
        return None
    a, y = np.array(rows), np.array(logs)
    pull = np.diag([0.0, PRIOR_WEIGHT, PRIOR_WEIGHT])
    prior = np.array([0.0, PRIOR_ALPHA, 0.0])
    fit = np.linalg.solve(a.T @ a + pull, a.T @ y + pull @ prior)
    alpha, b = float(fit[1]), float(fit[2])
    residual = float(np.std(y - a @ fit))
    return Drift(c=float(fit[0]), alpha=alpha, b=b, residual=residual, reached=reached)


# -- survival: the rate at which holds stop gaining -------------------------------------------


def survival_limit(
    setting: TrainerConfig, segments: Sequence[Segment], levels: SafeLevels
) -> RateLimit | None:
    """Return the rate at which half of the runs end below their start, or collapse.

    Args:
        setting: what was probed.
        segments: of its probe.
        levels: safe levels.

    Returns:
        None where the reward is a learned model's, whose fall says nothing, or nothing was held.
    """
    stale = [s for s in segments if not s.is_ramp and s.max_staleness == setting.max_staleness]
    if is_learned_reward(setting) or not stale:
        return None
    level = levels.edge_over_crossing
    found = crossing(stale, segments)
    which, why = _what_binds(setting, segments, found)
    if found is not None:
        return RateLimit(
            binding=which,
            median=found[0] * level.value,
            log_sd=math.hypot(found[1], level.log_sd),
            reason=f"holds from the start stop gaining at {written(found[0])}{why}",
        )
    points = gains(stale, segments)
    if not points:
        return None
    gained = [x for x, gain, _ in points if gain > 0]
    if gained:
        rate = math.exp(max(gained))
        return RateLimit(
            binding=which,
            median=rate * 2,
            log_sd=ONE_SIDED_LOG_SD,
            bound="low",
            reason=f"holds gained up to {written(rate)} and none above lost: the edge lies above",
        )
    rate = math.exp(points[0][0])
    return RateLimit(
        binding=which,
        median=rate / 2,
        log_sd=ONE_SIDED_LOG_SD,
        bound="high",
        reason=f"no hold gained, down to {written(rate)}: the edge lies below",
    )


def _what_binds(
    setting: TrainerConfig, segments: Sequence[Segment], found: tuple[float, float] | None
) -> tuple[str, str]:
    """Tell by the hold with fresh rollouts above the edge whether staleness sets it."""
    if setting.max_staleness == 0:
        return "local_step", ", with fresh rollouts"
    fresh = [s for s in segments if not s.is_ramp and s.max_staleness == 0]
    if not fresh or found is None:
        return "staleness", ""
    points = gains(fresh[-1:], segments)
    if not points:
        return "staleness", ""
    _, gain, error = points[0]
    if gain > -error:
        return "staleness", f"; with fresh rollouts {written(fresh[-1].learning_rate)} still gains"
    return "local_step", f"; with fresh rollouts {written(fresh[-1].learning_rate)} loses too"


# -- horizon: how far from the start a learned reward can be followed -------------------------


def horizon_limit(
    setting: TrainerConfig, segments: Sequence[Segment], levels: SafeLevels
) -> RateLimit | None:
    """Return the rate at which a learned reward has been followed too far after T steps.

    The displacement of T steps is projected from the holds, and held against the displacement at
    which √KL reaches its safe level: measured in the probe itself, and, where runs of the same
    architecture and optimizer are known, averaged with theirs by inverse variance.

    Args:
        setting: T and the warm-up are read off it.
        segments: of a probe.
        levels: safe levels.
    """
    holds = [s for s in segments if not s.is_ramp]
    drift = drift_of(holds, setting.warmup_steps)
    if not is_learned_reward(setting) or drift is None:
        return None
    critical = critical_displacement(setting, holds, levels)
    if not math.isfinite(critical.value):
        return None
    unit = sum(setting.learning_rate_at(t) for t in range(setting.steps)) / setting.learning_rate
    growth = max(0.2, drift.alpha + drift.b)
    log_rate = (math.log(critical.value) - drift.c - drift.alpha * math.log(unit)) / growth
    beyond = max(0.0, math.log(unit) + log_rate - math.log(drift.reached))
    level = levels.edge_over_horizon
    own = max(math.hypot(level.log_sd, EXTRAPOLATED_LOG_SD * beyond), critical.log_sd / growth)
    return RateLimit(
        binding="horizon",
        median=math.exp(log_rate) * level.value * levels.other_reward_model.value,
        log_sd=math.hypot(own, levels.other_reward_model.log_sd),
        reason=f"the learned reward is followed too far at a displacement of {critical.value:.2g}, "
        f"which {counted(setting.steps, 'step')} reach at {written(math.exp(log_rate))}; how far "
        "one may be followed differs between reward models, which outcomes of your runs narrow",
    )


def critical_displacement(
    setting: TrainerConfig, holds: Sequence[Segment], levels: SafeLevels
) -> Level:
    """Return R_crit on the displacement clock, from the probe's own √KL and from known runs."""
    own = _displacement_at(holds, levels.sqrt_kl, setting.warmup_steps)
    known = levels.displacement.get(signature(setting.model_dump()))
    found = [level for level in (own, known) if level is not None]
    if not found:
        return Level(value=math.inf, log_sd=1.0)
    weights = [1 / level.log_sd**2 for level in found]
    mean = sum(w * math.log(x.value) for w, x in zip(weights, found, strict=True)) / sum(weights)
    spread = 1 / math.sqrt(sum(weights))
    apart = max((abs(math.log(x.value) - mean) for x in found), default=0.0)
    return Level(value=math.exp(mean), log_sd=max(spread, apart / 2))


def _displacement_at(holds: Sequence[Segment], sqrt_kl: Level, warmup_steps: int) -> Level | None:
    """Return the displacement at which √KL reaches its level, by a line in logarithms."""
    points = [
        (math.log(distance), math.log(kl))
        for hold in holds
        for rate_sum, kl, distance in hold.travel
        if kl > 0 and distance > 0 and rate_sum > hold.learning_rate * (warmup_steps + 2)
    ]
    if len(points) < 3:
        return None
    target = math.log(sqrt_kl.value)
    near = sorted(points, key=lambda p: abs(p[1] - target))[: max(6, len(points) // 2)]
    x, y = np.array(near).T
    spread = float(((x - x.mean()) ** 2).sum())
    slope = (float(((x - x.mean()) * (y - y.mean())).sum()) + PRIOR_KL_SLOPE * 1.0) / (spread + 1.0)
    slope = max(slope, 0.3)
    at = float(x.mean()) + (target - float(y.mean())) / slope
    residual = float(np.std(y - y.mean() - slope * (x - x.mean())))
    error = math.hypot(sqrt_kl.log_sd, residual / math.sqrt(len(near) / 4)) / slope
    return Level(value=math.exp(at), log_sd=error)


def alpha_of(segments: Sequence[Segment]) -> float:
    """Return the drift exponent of the gentlest hold from its G_eff(k), held in 0.1…1."""
    return _growth(segments)[1]


def g_1_of(segments: Sequence[Segment]) -> float | None:
    """Return G_1 of G_eff(k) = G_1·k^(α−1), in parameter units per unit of learning rate."""
    return _growth(segments)[0]


def _growth(segments: Sequence[Segment]) -> tuple[float | None, float]:
    holds = sorted((s for s in segments if not s.is_ramp), key=lambda s: s.learning_rate)
    for hold in holds:
        points = [(math.log(int(k)), math.log(g)) for k, g in hold.effective_norms.items() if g > 0]
        if len(points) >= 3:
            x, y = np.array(points).T
            slope, height = np.polyfit(x, y, 1)
            return math.exp(float(height)), min(1.0, max(0.1, 1.0 + float(slope)))
    return None, PRIOR_ALPHA


def unsafe_probability(limits: Sequence[RateLimit], learning_rate: float) -> float:
    """Return 1 − Π(1 − P_i): the limits fail independently (theory.md §3)."""
    safe = 1.0
    for limit in limits:
        safe *= 1.0 - limit.unsafe_probability(learning_rate)
    return 1.0 - safe


def rate_at(limits: Sequence[RateLimit], probability: float) -> float:
    """Return the rate at which P(unsafe) reaches a probability, by bisection in ln η."""
    low = min(math.log(x.median) - 10 * x.log_sd for x in limits)
    high = max(math.log(x.median) + 10 * x.log_sd for x in limits)
    for _ in range(60):
        middle = (low + high) / 2
        if unsafe_probability(limits, math.exp(middle)) < probability:
            low = middle
        else:
            high = middle
    return math.exp((low + high) / 2)


@dataclass(frozen=True, slots=True, kw_only=True)
class ProbedEdge:
    """The edge that limits make, read like the one that is learned from outcomes."""

    limits: tuple[RateLimit, ...]

    @property
    def has_safe(self) -> bool:
        """Whether a safe side was seen."""
        return any(limit.bound != "high" for limit in self.limits)

    @property
    def has_unsafe(self) -> bool:
        """Whether an unsafe side was seen."""
        return any(limit.bound != "low" for limit in self.limits)

    def unsafe_probability(self, learning_rate: float) -> float:
        """Return P(unsafe within T) at a rate."""
        return unsafe_probability(self.limits, learning_rate)

    def rate_at(self, probability: float) -> float:
        """Return the rate at which P(unsafe) reaches a probability."""
        return rate_at(self.limits, probability)
