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

from .safe_levels import Level, SafeLevels
from .segments import Segment, crossing, gains, is_learned_reward
from .wording import rate as written

NORMAL = NormalDist()
ONE_SIDED_LOG_SD = 0.7
"""Uncertainty of an edge of which only one side was seen."""
PRIOR_ALPHA = 0.7
"""What the drift exponent usually is."""
PRIOR_GROWTH, PRIOR_WEIGHT = (0.65, 0.1), 10.0
"""What the exponents α and b of a growth usually are, and the weight of that in measured points."""
LEAST_POINTS = 3
TRAVEL = ("rate_sum", "sqrt_kl", "displacement")
"""What the points of a segment's travel are."""
SETTLED_STEPS = 20
"""The first steps grow by another exponent: momentum builds up, and no rollout is stale yet."""
TOO_FAR = 1.4
"""Beyond this share of the safe level a policy is broken, and moves by other laws."""
PRIOR_KL_SLOPE = 0.7
UNLIKE_REWARD_LOG_SD = 0.7
UNLIKE_REWARD = (
    "that level is of reward models on answers of three tokens; of yours it is a guess, which "
    "outcomes of your runs narrow"
)
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
class Growth:
    """ln x = c + α·ln Σ η + b·ln η of √KL(θ_0‖θ) or ‖θ − θ_0‖, fitted to the holds of a probe.

    ``reached`` is the largest Σ η that was fitted.
    """

    c: float
    alpha: float
    b: float
    reached: float

    @property
    def exponent(self) -> float:
        """How x grows with η after a given number of steps."""
        return max(0.2, self.alpha + self.b)

    def at(self, rate_sum: float, learning_rate: float) -> float:
        """Return x after Σ η at a rate."""
        return math.exp(self.c + self.alpha * math.log(rate_sum) + self.b * math.log(learning_rate))

    def log_rate(self, value: float, unit: float) -> float:
        """Return ln η at which x reaches a value once Σ η is ``unit`` times η."""
        return (math.log(value) - self.c - self.alpha * math.log(unit)) / self.exponent

    def rate_sum(self, value: float, learning_rate: float) -> float:
        """Return Σ η after which x reaches a value at a rate."""
        rest = math.log(value) - self.c - self.b * math.log(learning_rate)
        return math.exp(rest / self.alpha)


def growth_of(
    setting: TrainerConfig, holds: Sequence[Segment], levels: SafeLevels, clock: str
) -> Growth | None:
    """Fit how far holds have gone where they have settled and their policy is not yet broken.

    Args:
        setting: of the probe; its warm-up does not count.
        holds: of the probe.
        levels: safe levels; far beyond that of √KL a policy counts as broken.
        clock: ``sqrt_kl`` or ``displacement``.

    Returns:
        None without three points.
    """
    at = TRAVEL.index(clock)
    moved = [
        (hold.learning_rate, point[0], point[1], point[at])
        for hold in holds
        for point in hold.travel
        if point[0] > hold.learning_rate * (setting.warmup_steps + 2) and min(point[1:]) > 0
    ]
    settled = [
        each
        for each in moved
        if each[1] > SETTLED_STEPS * each[0] and each[2] <= TOO_FAR * levels.sqrt_kl.value
    ]
    used = settled if len(settled) >= LEAST_POINTS else moved
    if len(used) < LEAST_POINTS:
        return None
    rates, sums, _, values = (np.log(column) for column in np.array(used).T)
    a = np.column_stack([np.ones_like(rates), sums, rates])
    pull = PRIOR_WEIGHT * np.diag([0.0, 1.0, 1.0])
    fit = np.linalg.solve(a.T @ a + pull, a.T @ values + pull @ np.array([0.0, *PRIOR_GROWTH]))
    return Growth(
        c=float(fit[0]), alpha=float(fit[1]), b=float(fit[2]), reached=math.exp(float(sums.max()))
    )


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

    √KL to the start after T steps is projected from the holds, and held against its safe level.

    Args:
        setting: T and the warm-up are read off it.
        segments: of a probe.
        levels: safe levels.
    """
    if not is_learned_reward(setting):
        return None
    growth = growth_of(setting, [s for s in segments if not s.is_ramp], levels, "sqrt_kl")
    if growth is None:
        return None
    unit = rates_in_all(setting)
    log_rate = growth.log_rate(levels.sqrt_kl.value, unit)
    beyond = max(0.0, math.log(unit) + log_rate - math.log(growth.reached))
    level = levels.edge_over_horizon
    projected = math.hypot(level.log_sd, EXTRAPOLATED_LOG_SD * beyond)
    limit = RateLimit(
        binding="horizon",
        median=math.exp(log_rate) * level.value,
        log_sd=max(projected, levels.sqrt_kl.log_sd / growth.exponent),
        reason="a learned reward has been followed too far where √KL to the start is "
        f"{levels.sqrt_kl.value:.2g}, which {counted(setting.steps, 'step')} reach at "
        f"{written(math.exp(log_rate))}",
    )
    if setting.workload == "preference":
        return limit
    return limit.moved(1.0, UNLIKE_REWARD_LOG_SD, UNLIKE_REWARD)


def rates_in_all(setting: TrainerConfig) -> float:
    """Return Σ η of a run over its learning rate: T less what warm-up and decay take off."""
    return sum(setting.learning_rate_at(t) for t in range(setting.steps)) / setting.learning_rate


def critical_displacement(
    setting: TrainerConfig, holds: Sequence[Segment], levels: SafeLevels
) -> Level | None:
    """Return R_crit on the displacement clock: where √KL of the holds reaches its safe level.

    By a line in logarithms through the points nearest to it; None without three.
    """
    points = [
        (math.log(distance), math.log(kl))
        for hold in holds
        for rate_sum, kl, distance in hold.travel
        if kl > 0 and distance > 0 and rate_sum > hold.learning_rate * (setting.warmup_steps + 2)
    ]
    if len(points) < LEAST_POINTS:
        return None
    target = math.log(levels.sqrt_kl.value)
    near = sorted(points, key=lambda p: abs(p[1] - target))[: max(6, len(points) // 2)]
    x, y = np.array(near).T
    spread = float(((x - x.mean()) ** 2).sum())
    slope = (float(((x - x.mean()) * (y - y.mean())).sum()) + PRIOR_KL_SLOPE * 1.0) / (spread + 1.0)
    slope = max(slope, 0.3)
    at = float(x.mean()) + (target - float(y.mean())) / slope
    residual = float(np.std(y - y.mean() - slope * (x - x.mean())))
    error = math.hypot(levels.sqrt_kl.log_sd, residual / math.sqrt(len(near) / 4)) / slope
    return Level(value=math.exp(at), log_sd=error)


def alpha_of(segments: Sequence[Segment]) -> float:
    """Return the drift exponent of the gentlest hold from its G_eff(k), held in 0.1…1."""
    return _growth_in_lag(segments)[1]


def g_1_of(segments: Sequence[Segment]) -> float | None:
    """Return G_1 of G_eff(k) = G_1·k^(α−1), in parameter units per unit of learning rate."""
    return _growth_in_lag(segments)[0]


def _growth_in_lag(segments: Sequence[Segment]) -> tuple[float | None, float]:
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
