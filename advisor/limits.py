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

from trainer.config import TrainerConfig

from .safe_levels import SafeLevels
from .segments import Segment, crossing, gains, is_learned_reward
from .wording import rate as written

NORMAL = NormalDist()
ONE_SIDED_LOG_SD = 0.7
"""Uncertainty of an edge of which only one side was seen."""
PRIOR_ALPHA = 0.7
"""What the drift exponent usually is."""


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
