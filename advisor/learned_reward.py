"""How far a learned reward may be followed: √KL to the start, projected from the holds of a probe.

Pure. A learned reward rises while what was wanted falls, so no hold tells by its reward on which
side of the edge it lies. But gold is back at its start where √KL(θ_0‖θ) has a certain size, much
the same for all reward models that were tried (docs/validation.md), and how √KL grows can be seen.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from storage.words import counted
from trainer.config import TrainerConfig

from .limits import ONE_SIDED_LOG_SD, RateLimit
from .safe_levels import Level, SafeLevels
from .segments import Segment, is_learned_reward
from .wording import rate as written

LEAST_POINTS = 3
TRAVEL = ("rate_sum", "sqrt_kl", "displacement")
"""What the points of a segment's travel are."""
USUAL_GROWTH = {"sqrt_kl": (0.65, 0.1), "displacement": (0.7, 0.0)}
"""What the exponents α and b of a growth usually are."""
USUAL_WEIGHT = 10.0
"""How strongly they are pulled there: as by so many points whose ln Σ η scatters by 1."""
LEAST_ALPHA, LEAST_EXPONENT = 0.1, 0.2
"""A policy goes further with every step, and at a higher rate; a fit that says other is noise."""
SETTLED_STEPS = 20
"""Until Σ η is so many times η a policy moves by another exponent: momentum builds up."""
TOO_FAR = 1.4
"""Beyond this share of the safe level a policy is broken, and moves by other laws."""
PRIOR_KL_SLOPE = 0.7
UNLIKE_REWARD_LOG_SD = 0.45
"""Doubt, in ln √KL, of the safe level for reward models unlike those it was measured on."""
UNLIKE_REWARD = (
    "that level is of reward models on answers of three tokens; of yours it is a guess, which "
    "outcomes of your runs narrow"
)
EXTRAPOLATED_LOG_SD = 0.12
"""Added uncertainty per unit of ln Σ η beyond what the holds have travelled."""
UNREACHED_LOG_SD = 0.3
"""The same per unit of ln η by which the level lies outside of what the holds have reached."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """ln x = c + α·ln Σ η + b·ln η of √KL(θ_0‖θ) or ‖θ − θ_0‖, fitted to the holds of a probe.

    ``reached`` is the largest Σ η that was fitted, ``least`` and ``most`` the ends of x.
    """

    c: float
    alpha: float
    b: float
    reached: float
    least: float
    most: float

    @property
    def exponent(self) -> float:
        """How x grows with η after a given number of steps."""
        return self.alpha + self.b

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

    def unreached(self, value: float) -> float:
        """Return by how much, in ln η, a value lies outside of what was fitted."""
        outside = max(math.log(value / self.most), math.log(self.least / value), 0.0)
        return outside / self.exponent


def growth_of(
    setting: TrainerConfig, holds: Sequence[Segment], levels: SafeLevels, clock: str
) -> Growth | None:
    """Fit how far holds have gone where they have settled and their policy is not yet broken.

    Args:
        setting: its warm-up does not count, and a learned reward breaks a policy that goes too far.
        holds: of a probe.
        levels: safe levels.
        clock: ``sqrt_kl`` or ``displacement``.

    Returns:
        None without three points of policies that are not broken.
    """
    at = TRAVEL.index(clock)
    most = TOO_FAR * levels.sqrt_kl.value if is_learned_reward(setting) else math.inf
    moved = [
        (hold.learning_rate, point[0], point[at])
        for hold in holds
        for point in hold.travel
        if point[0] > hold.learning_rate * (setting.warmup_steps + 2)
        and min(point[1:]) > 0
        and point[1] <= most
    ]
    settled = [each for each in moved if each[1] > SETTLED_STEPS * each[0]]
    used = settled if len(settled) >= LEAST_POINTS else moved
    if len(used) < LEAST_POINTS:
        return None
    rates, sums, values = (np.log(column) for column in np.array(used).T)
    a = np.column_stack([np.ones_like(rates), sums, rates])
    pull = USUAL_WEIGHT * np.diag([0.0, 1.0, 1.0])
    usual = np.array([0.0, *USUAL_GROWTH[clock]])
    _, alpha, b = np.linalg.solve(a.T @ a + pull, a.T @ values + pull @ usual)
    alpha = max(LEAST_ALPHA, float(alpha))
    b = max(LEAST_EXPONENT - alpha, float(b))
    return Growth(
        c=float((values - alpha * sums - b * rates).mean()),
        alpha=alpha,
        b=b,
        reached=math.exp(float(sums.max())),
        least=math.exp(float(values.min())),
        most=math.exp(float(values.max())),
    )


def horizon_limit(
    setting: TrainerConfig, segments: Sequence[Segment], levels: SafeLevels
) -> RateLimit | None:
    """Return the rate at which a learned reward has been followed too far after T steps.

    √KL to the start after T steps is projected from the holds, and held against its safe level.
    None where the reward is no learned model's, or √KL was hardly measured.

    Args:
        setting: T and the warm-up are read off it.
        segments: of a probe.
        levels: safe levels.
    """
    if not is_learned_reward(setting):
        return None
    holds = [s for s in segments if not s.is_ramp]
    growth = growth_of(setting, holds, levels, "sqrt_kl")
    unit, level = rates_in_all(setting), sqrt_kl_level(setting, levels)
    if growth is None:
        return _broken_by_every_hold(holds, unit, TOO_FAR * level.value)
    log_rate = growth.log_rate(level.value, unit)
    beyond = max(0.0, math.log(unit) + log_rate - math.log(growth.reached))
    projected = math.hypot(
        levels.edge_over_horizon.log_sd,
        EXTRAPOLATED_LOG_SD * beyond,
        UNREACHED_LOG_SD * growth.unreached(level.value),
    )
    reason = (
        f"a learned reward has been followed too far where √KL to the start is {level.value:.2g}, "
        f"which {counted(setting.steps, 'step')} reach at {written(math.exp(log_rate))}"
    )
    return RateLimit(
        binding="horizon",
        median=math.exp(log_rate) * levels.edge_over_horizon.value,
        log_sd=max(projected, level.log_sd / growth.exponent),
        reason=reason if setting.workload == "preference" else f"{reason}; {UNLIKE_REWARD}",
    )


def sqrt_kl_level(setting: TrainerConfig, levels: SafeLevels) -> Level:
    """Return the safe level of √KL, less certain for reward models unlike those it is of."""
    known = levels.sqrt_kl
    if setting.workload == "preference":
        return known
    return replace(known, log_sd=math.hypot(known.log_sd, UNLIKE_REWARD_LOG_SD))


def _broken_by_every_hold(
    holds: Sequence[Segment], unit: float, too_far: float
) -> RateLimit | None:
    """Bound the edge from above where no hold was gentle enough to be fitted; None without one."""
    broke = [total for hold in holds for total, kl, _ in hold.travel if kl > too_far]
    if not broke:
        return None
    rate = min(broke) / unit
    return RateLimit(
        binding="horizon",
        median=rate / 2,
        log_sd=ONE_SIDED_LOG_SD,
        bound="high",
        reason="every hold went too far before it could be measured, one of them no further in "
        f"Σ η than such a run at {written(rate)}: the edge lies below",
    )


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
    level = sqrt_kl_level(setting, levels)
    target = math.log(level.value)
    near = sorted(points, key=lambda p: abs(p[1] - target))[: max(6, len(points) // 2)]
    x, y = np.array(near).T
    spread = float(((x - x.mean()) ** 2).sum())
    slope = (float(((x - x.mean()) * (y - y.mean())).sum()) + PRIOR_KL_SLOPE * 1.0) / (spread + 1.0)
    slope = max(slope, 0.3)
    at = float(x.mean()) + (target - float(y.mean())) / slope
    residual = float(np.std(y - y.mean() - slope * (x - x.mean())))
    error = math.hypot(level.log_sd, residual / math.sqrt(len(near) / 4)) / slope
    return Level(value=math.exp(at), log_sd=error)
