"""What outcomes of runs add to a probe: how far they move its limits, and how sure they make them.

Pure. A probe's limits may all lie too high or too low by one factor e^δ, which a probe cannot see:
its error and the scatter of settings, N(0, τ²) in ln η. Runs of the setting whose outcome is known
say more about δ. Each is judged where it was made, at its own S and T, by the limits carried there;
what is left of a limit's spread there is the scatter of seeds. That a single run may be an accident
is in the likelihood: no outcome counts as less probable than ``ACCIDENT``.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.special import ndtr

from storage.words import counted

from .limits import RateLimit

SEED_LOG_SD = 0.15
"""Scatter of the edge between seeds of one setting: true grids go from no unsafe run to three of
three within a step of √2 or two (docs/validation.md)."""
ACCIDENT = 0.02
LEAST_LOG_SD = 0.05
SPANNED, POINTS = 4.0, 161


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """How a run ended: its rate, the limits carried to its S and T, and whether it was unsafe."""

    learning_rate: float
    limits: Sequence[RateLimit]
    unsafe: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shift:
    """What outcomes say of ln η of all limits: mean and spread of δ, and the prior spread τ."""

    mean: float
    log_sd: float
    prior_log_sd: float
    safe: int
    unsafe: int

    @property
    def _change(self) -> str:
        percent = round(100 * math.expm1(self.mean))
        if percent == 0:
            return "leave it where it is"
        return f"{'lower' if percent < 0 else 'raise'} it by {abs(percent)}%"

    def applied(self, limit: RateLimit) -> RateLimit:
        """Return a limit moved and narrowed by the outcomes."""
        own = limit.log_sd**2 - self.prior_log_sd**2
        spread = math.sqrt(max(own, SEED_LOG_SD**2) + self.log_sd**2)
        seen = {"low": self.unsafe, "high": self.safe}.get(limit.bound or "", 0) > 0
        runs = self.safe + self.unsafe
        return replace(
            limit,
            median=limit.median * math.exp(self.mean),
            log_sd=min(spread, limit.log_sd),
            bound=None if seen else limit.bound,
            reason=f"{limit.reason}; outcomes of {counted(runs, 'archived run')} {self._change}",
        )


def shift_of(limits: Sequence[RateLimit], outcomes: Sequence[Outcome]) -> Shift | None:
    """Return what outcomes say of the limits of the probed setting; None without any.

    Args:
        limits: at the probed setting; the one of the lowest rate gives the prior spread.
        outcomes: independent runs of the setting.
    """
    if not limits or not outcomes:
        return None
    binding = min(limits, key=lambda limit: limit.median)
    tau = math.sqrt(max(binding.log_sd**2 - SEED_LOG_SD**2, LEAST_LOG_SD**2))
    delta = np.linspace(-SPANNED * tau, SPANNED * tau, POINTS)
    log_weight = -0.5 * (delta / tau) ** 2
    for outcome in outcomes:
        safe = np.ones_like(delta)
        for limit in outcome.limits:
            spread = math.sqrt(max(limit.log_sd**2 - tau**2, SEED_LOG_SD**2))
            z = (math.log(outcome.learning_rate / limit.median) - delta) / spread
            safe *= ndtr(-z)
        probability = 1 - safe if outcome.unsafe else safe
        log_weight += np.log(ACCIDENT + (1 - 2 * ACCIDENT) * probability)
    weight = np.exp(log_weight - log_weight.max())
    weight /= weight.sum()
    mean = float(weight @ delta)
    return Shift(
        mean=mean,
        log_sd=math.sqrt(float(weight @ (delta - mean) ** 2)),
        prior_log_sd=tau,
        safe=sum(not outcome.unsafe for outcome in outcomes),
        unsafe=sum(outcome.unsafe for outcome in outcomes),
    )
