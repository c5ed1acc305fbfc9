"""The largest safe learning rate: the two-constraint rule, and what outcomes of runs say.

Pure. Two ways to an answer stand side by side: the rule turns measured constants into a limit; the
edge is learned from which runs survived, with the rule's form only: halving S or T can never
lower the safe rate, and a factor in S+1 or T moves it by at most that factor (theory.md §3).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from .wording import rate as written

SLOPES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""−d log η_max / d log(S+1), and the same in T: 0 where that limit is slack, 1 where it binds and
drift is ballistic, 1/2 where it is diffusive. Every value is equally likely beforehand."""
OWN_WIDTHS = (0.1, 0.2, 0.4)
"""Logistic width of the edge in ln η among runs of one setting."""
FOREIGN_WIDTHS = (0.5, 1.0, 2.0)
"""The same among published settings, which differ in everything else too."""
EDGE_BEYOND_TRIED = math.log(100.0)
"""The edge may lie this far beyond the rates that were tried, and is equally likely anywhere."""
GRID = 240
LOG_NEGLIGIBLE = -30.0
"""Points of the posterior less likely than e^−30 of the best are left out."""
BISECTIONS = 32
EXTRAPOLATION_UP = 2.0
EXTRAPOLATION_DOWN = 4.0
"""How far beyond the rates that were tried advice may go, at the S and T of the evidence."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limit:
    """What the two-constraint rule allows; each rate is None when its constant is unknown."""

    learning_rate: float | None
    binding: str
    staleness: float | None
    horizon: float | None
    crossover_staleness: float | None


def two_constraint_rule(
    *,
    g_1: float,
    alpha: float,
    r_batch: float | None,
    r_crit: float | None,
    max_staleness: int,
    steps: int,
) -> Limit:
    """Return min{R_batch/(S·G_eff(S)), R_crit/(T·G_eff(T))} with G_eff(k) = G_1·k^(α−1).

    The rule of arXiv 2607.01083 with the effective update norm of theory.md §3 in place of the
    worst case.

    Args:
        g_1: drift per unit of learning rate after one learner step, > 0.
        alpha: drift exponent: 1 ballistic, 1/2 diffusive.
        r_batch: within-cycle drift at which the batch-level clip takes over, or None.
        r_crit: displacement at which runs of this setting collapse, or None.
        max_staleness: S in learner steps; with S = 0 staleness limits nothing (rate inf).
        steps: T.

    Returns:
        The limits and which binds: ``staleness``, ``horizon``, or ``none`` if no constant is
        known. The crossover S* = T·(R_batch/R_crit)^(1/α) is where the two limits meet.
    """
    staleness = None
    if max_staleness == 0:
        staleness = math.inf
    elif r_batch is not None:
        staleness = r_batch / (g_1 * max_staleness**alpha)
    horizon = None if r_crit is None else r_crit / (g_1 * steps**alpha)
    known = {"staleness": staleness, "horizon": horizon}
    finite = {n: v for n, v in known.items() if v is not None and math.isfinite(v)}
    binding = min(finite, key=lambda name: finite[name]) if finite else "none"
    crossover = None
    if r_batch is not None and r_crit is not None:
        crossover = steps * (r_batch / r_crit) ** (1 / alpha)
    return Limit(
        learning_rate=finite.get(binding),
        binding=binding,
        staleness=staleness,
        horizon=horizon,
        crossover_staleness=crossover,
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One run as evidence: how hard it was driven, for how long, and whether it was unsafe.

    ``steps`` is what it survived, or the step at which it was lost; None takes the asked T.
    """

    learning_rate: float
    max_staleness: int
    steps: int | None
    unsafe: bool
    label: str


@dataclass(frozen=True, slots=True, kw_only=True)
class _Posterior:
    """The points of the posterior that are likely at all, [N] each, and the middle (S_0, T_0)."""

    weight: NDArray[np.float64]
    middle: NDArray[np.float64]
    slope_s: NDArray[np.float64]
    slope_t: NDArray[np.float64]
    width: NDArray[np.float64]
    middle_s: float
    middle_t: float


@lru_cache(maxsize=8)  # one page reads it at many S and T
def _learned(trials: tuple[Trial, ...], widths: tuple[float, ...], steps: int | None) -> _Posterior:
    """Learn the edge; ``steps`` is the asked T where no trial has a length of its own."""
    rates = np.log([trial.learning_rate for trial in trials])
    stale = np.log([trial.max_staleness + 1 for trial in trials])
    known = [math.log(trial.steps) for trial in trials if trial.steps is not None]
    middle_s = float(stale.mean())
    middle_t = float(np.mean(known)) if steps is None else math.log(steps)
    longer = [math.log(trial.steps) if trial.steps else middle_t for trial in trials]
    beyond = EDGE_BEYOND_TRIED
    mu, a, b, w = np.meshgrid(
        np.linspace(float(rates.min()) - beyond, float(rates.max()) + beyond, GRID),
        SLOPES,
        SLOPES,
        widths,
        indexing="ij",
    )
    log_weight = np.zeros_like(mu)
    for rate, s, t, trial in zip(rates, stale, longer, trials, strict=True):
        z = (rate + a * (s - middle_s) + b * (t - middle_t) - mu) / w
        log_weight += -np.logaddexp(0.0, -z if trial.unsafe else z)
    log_weight -= log_weight.max()
    likely = log_weight > LOG_NEGLIGIBLE
    weight = np.exp(log_weight[likely])
    return _Posterior(
        weight=weight / weight.sum(),
        middle=mu[likely],
        slope_s=a[likely],
        slope_t=b[likely],
        width=w[likely],
        middle_s=middle_s,
        middle_t=middle_t,
    )


class Edge:
    """Where runs begin to fail: a posterior on a grid, read at one S and T.

    P(unsafe) = logistic((ln η + a·ln((S+1)/(S_0+1)) + b·ln(T/T_0) − μ)/w), where μ is the edge at
    the middle (S_0, T_0) of the evidence, uniform over what was tried and a factor of 100 beyond,
    the slopes a and b are uniform over ``SLOPES`` and the width w over ``widths``. What is learned
    does not depend on the S and T that are asked, so the prediction is monotone in η, S and T.
    """

    def __init__(
        self,
        trials: Sequence[Trial],
        *,
        max_staleness: int,
        steps: int,
        widths: Sequence[float] = OWN_WIDTHS,
    ) -> None:
        """Learn the edge from at least one trial, to read it at (S, T)."""
        rates = [math.log(trial.learning_rate) for trial in trials]
        self.tried_low, self.tried_high = min(rates), max(rates)
        self.steps, self.max_staleness = steps, max_staleness
        self.has_unsafe = any(trial.unsafe for trial in trials)
        self.has_safe = any(not trial.unsafe for trial in trials)
        own_lengths = any(trial.steps is not None for trial in trials)
        known = _learned(tuple(trials), tuple(widths), None if own_lengths else steps)
        longer_cycle = math.log(max_staleness + 1) - known.middle_s
        longer_run = math.log(steps) - known.middle_t
        self._weight, self._width, self._middle = known.weight, known.width, known.middle
        self._edge = known.middle - known.slope_s * longer_cycle - known.slope_t * longer_run

    def unsafe_probability(self, learning_rate: float) -> float:
        """Return the predictive P(unsafe within T) at a learning rate, in 0…1."""
        return self._predict(math.log(learning_rate), self._edge)

    def _predict(self, log_rate: float, edge: NDArray[np.float64]) -> float:
        with np.errstate(over="ignore"):  # e^x beyond the largest number is a probability of 0
            odds_against = np.exp((edge - log_rate) / self._width)
        return float((self._weight / (1.0 + odds_against)).sum())

    def reaches(self, risk: float) -> bool:
        """Whether the evidence, at its own middle S and T, shows a risk this low.

        It must do so within a factor of 4 below the smallest rate that was tried: further down it
        is the assumed tail that speaks, not the runs.
        """
        near = self.tried_low - math.log(EXTRAPOLATION_DOWN)
        return self._predict(near, self._middle) <= risk

    def rate_at(self, probability: float) -> float:
        """Return the learning rate at which the predictive P(unsafe) reaches a probability."""
        margin = float(self._width.max()) * 20
        low, high = float(self._edge.min()) - margin, float(self._edge.max()) + margin
        for _ in range(BISECTIONS):  # the prediction rises with the rate
            middle = (low + high) / 2
            if self._predict(middle, self._edge) < probability:
                low = middle
            else:
                high = middle
        return math.exp((low + high) / 2)

    def quantile(self, probability: float) -> float:
        """Return a quantile of where the edge itself lies."""
        order = np.argsort(self._edge)
        cumulative = np.cumsum(self._weight[order])
        return math.exp(float(np.interp(probability, cumulative, self._edge[order])))


@dataclass(frozen=True, slots=True, kw_only=True)
class Rates:
    """The rates read off an edge; each that is None has its reason under its name."""

    max_learning_rate: float | None
    edge: float | None
    low: float | None
    high: float | None
    reasons: dict[str, str]


def safe_rates(edge: Edge, risk: float) -> Rates:
    """Return the largest rate with P(unsafe) ≤ risk, the 50 % point and its 90 % interval.

    What was never seen is not claimed: without an unsafe trial the edge has no upper end and the
    rate stops at twice the largest tried one; without a safe trial there is no lower end, and no
    rate is advised at all. A rate more than four times below what was tried is advised only where
    the form of the law leads there from a risk that the evidence ``reaches``.
    """
    reasons: dict[str, str] = {}
    if not edge.has_safe:
        tried = math.exp(edge.tried_low)
        why = (
            f"no run of the evidence survived, the gentlest at learning rate {written(tried)}; "
            f"make one at {written(tried / 4)}"
        )
        reasons |= dict.fromkeys(("max_learning_rate", "edge", "low"), why)
        return Rates(
            max_learning_rate=None, edge=None, low=None, high=edge.quantile(0.95), reasons=reasons
        )
    rate = min(edge.rate_at(risk), EXTRAPOLATION_UP * math.exp(edge.tried_high))
    largest: float | None = rate
    gentlest = math.exp(edge.tried_low)
    if rate < gentlest / EXTRAPOLATION_DOWN and not edge.reaches(risk):
        largest = None
        reasons["max_learning_rate"] = (
            f"the evidence does not reach a risk of {100 * risk:.3g}%: at {written(gentlest)}, the "
            f"gentlest that was tried, {edge.unsafe_probability(gentlest):.0%} of such runs "
            "are unsafe"
        )
    if not edge.has_unsafe:
        why = (
            f"every run of the evidence survived, the hardest driven at learning rate "
            f"{written(math.exp(edge.tried_high))}; the edge lies somewhere above"
        )
        reasons |= dict.fromkeys(("edge", "high"), why)
        return Rates(
            max_learning_rate=largest,
            edge=None,
            low=edge.quantile(0.05),
            high=None,
            reasons=reasons,
        )
    return Rates(
        max_learning_rate=largest,
        edge=edge.rate_at(0.5),
        low=edge.quantile(0.05),
        high=edge.quantile(0.95),
        reasons=reasons,
    )
