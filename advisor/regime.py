"""Which limit a run is at: every κ against 1, in the order of precedence of theory.md §3.

Pure: numbers in, a regime and its reason out. A regime that was not measured is never named.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any

from .red_flags import RedFlag

ROUNDING = 1e-9


class Regime(StrEnum):
    """What decides about a run, in the words that people read."""

    DIVERGED = "diverged"
    COLLAPSED = "collapsed"
    INSUFFICIENT_DATA = "insufficient_data"
    STALENESS_LIMITED = "staleness_limited"
    HORIZON_LIMITED = "horizon_limited"
    STEP_LIMITED = "step_limited"
    STABLE = "stable"


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """A number with its interval; every end that is None is unknown, and ``reason`` says why.

    ``is_bound`` marks a number of which one end only is known: ``value`` is None then.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    is_bound: bool = False
    reason: str | None = None

    def scaled(self, factor: float) -> "Estimate":
        """Return the estimate times a positive factor."""
        ends = [None if x is None else x * factor for x in (self.value, self.low, self.high)]
        return Estimate(
            value=ends[0], low=ends[1], high=ends[2], is_bound=self.is_bound, reason=self.reason
        )

    def dividing(self, numerator: float, reason: str | None = None) -> "Estimate":
        """Return numerator / self; an end that is unknown stays unknown on the other side.

        0 / 0 has no value: a radius of zero divides nothing.
        """

        def part(denominator: float | None) -> float | None:
            if denominator is None or (denominator == 0 and numerator == 0):
                return None
            return float("inf") if denominator == 0 else numerator / denominator

        return Estimate(
            value=part(self.value),
            low=part(self.high),
            high=part(self.low),
            is_bound=self.is_bound,
            reason=reason or self.reason,
        )


def unknown(reason: str) -> Estimate:
    """Return an estimate of which nothing is known, with the reason."""
    return Estimate(reason=reason)


def explained(answer: dict[str, Any]) -> dict[str, Any]:
    """Return a JSON answer with the reason of every estimate that has no value beside it."""
    reasons = {
        f"{name}_reason": part["reason"]
        for name, part in answer.items()
        if isinstance(part, dict) and "value" in part and part["value"] is None
    }
    return answer | reasons


@dataclass(frozen=True, slots=True, kw_only=True)
class Diagnosis:
    """What a run's measurements say about it.

    ``kappa_horizon`` projects to the planned end, ``kappa_used`` is the same at the present step,
    ``horizon_step`` the learner step at which κ_horizon = 1 is reached at the present drift.
    ``kappa_slide`` is κ_horizon against the displacement at which such runs began to fall, which
    comes before they collapse; its value is None where none of them did.
    ``change`` says in numbers what would end an alarm; None without one.
    """

    regime: Regime
    reason: str
    kappa_staleness: Estimate
    kappa_horizon: Estimate
    kappa_slide: Estimate
    kappa_used: Estimate
    kappa_local: Estimate
    horizon_step: Estimate
    evidence: tuple[str, ...] = ()
    red_flags: tuple[RedFlag, ...] = ()
    change: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the diagnosis as the command line prints it: every None with its reason."""
        why = {} if self.change is not None else {"change_reason": "no limit is passed"}
        return explained(asdict(self)) | why

    @property
    def alarm(self) -> bool:
        """Whether a limit is passed or a red flag is up."""
        return self.regime in LIMITS.values() or bool(self.red_flags)


LIMITS = {
    "staleness": Regime.STALENESS_LIMITED,
    "horizon": Regime.HORIZON_LIMITED,
    "slide": Regime.HORIZON_LIMITED,
    "local_step": Regime.STEP_LIMITED,
}


def regime_of(kappas: Mapping[str, Estimate], verdict: str | None = None) -> tuple[Regime, str]:
    """Name the regime of a run or of a setting (theory.md §3).

    Args:
        kappas: κ by limit: ``staleness``, ``horizon``, ``local_step``, and ``slide`` where known.
        verdict: how the run ended, if it has; a survivor is stable by what happened to it unless
            a limit was certainly passed, though one seed proves nothing about the next. ``damaged``
            names no regime, but the reason says it first.

    Returns:
        The regime and one sentence why. A limit counts as passed when the *low* end of its κ is
        at least 1. ``stable`` needs the high end of every κ below 1. Anything between is
        ``insufficient_data``: the two ends would give different regimes.
    """
    if verdict in (Regime.DIVERGED, Regime.COLLAPSED):
        return Regime(verdict), f"the run has {verdict}"
    if verdict == "damaged":
        regime, reason = regime_of(kappas)
        return regime, f"the run ended damaged, below its start; {reason}"
    passed = {n: k.low for n, k in kappas.items() if k.low is not None and k.low >= 1}
    if passed:
        worst = max(passed, key=lambda name: passed[name])
        how = f"is at least {passed[worst]:.2g}, beyond its limit of 1"
        return LIMITS[worst], f"{_symbol(worst)} {how}"
    if verdict in ("healthy", "finished"):
        return Regime.STABLE, f"the run ended {verdict}; {_proven(kappas)}"
    open_ended = [_open(name, kappa) for name, kappa in kappas.items() if not _below_one(kappa)]
    if open_ended:
        return Regime.INSUFFICIENT_DATA, "; ".join(open_ended)
    highest = max(kappas, key=lambda name: kappas[name].high or 0.0)
    largest = f"{_symbol(highest)} {_span(kappas[highest])}"
    return Regime.STABLE, f"every κ is below 1; the largest is {largest}"


def change_of(
    regime: Regime,
    kappas: Mapping[str, Estimate],
    *,
    learning_rate: float,
    max_staleness: int,
    steps: int,
    alpha: float,
) -> str | None:
    """Say in numbers what would bring the limit that is passed back to 1; None if none is.

    Drift goes as η·k^α, so κ falls in proportion to η, and with the power α of S or T.
    """
    passed = (k.low for name, k in kappas.items() if LIMITS[name] is regime)
    over = max((low for low in passed if low is not None), default=None)
    if over is None:
        return None
    rate = f"a learning rate of at most {learning_rate / over:.2g}"
    shorter = over ** (-1 / alpha)
    if regime is Regime.STALENESS_LIMITED:
        return f"{rate}, or S of at most {int(max_staleness * shorter)}"
    if regime is Regime.HORIZON_LIMITED:
        return f"{rate}, or at most {int(steps * shorter)} steps"
    return rate


def _proven(kappas: Mapping[str, Estimate]) -> str:
    """Say what a survivor leaves open: its end decides, whatever its intervals of κ allow.

    Held against what it bore itself, its κ is at most 1.
    """
    words = "one seed is no proof for the next"
    beyond = {n: k for n, k in kappas.items() if k.high is None or k.high > 1 + ROUNDING}
    open_ended = [f"{_symbol(name)} {_span(kappa)}" for name, kappa in beyond.items()]
    if not open_ended:
        return words
    return f"{words}, and {' and '.join(open_ended)} alone would not say that it was safe"


def _below_one(kappa: Estimate) -> bool:
    return kappa.high is not None and kappa.high < 1


def _open(name: str, kappa: Estimate) -> str:
    if kappa.high is None and kappa.low is None:
        return f"{_symbol(name)} is unknown: {kappa.reason}"
    return f"{_symbol(name)} {_span(kappa)} does not decide: {kappa.reason or 'it straddles 1'}"


def _symbol(limit: str) -> str:
    return f"κ_{limit.removesuffix('_step')}"


def _span(kappa: Estimate) -> str:
    if kappa.low is None:
        return "(unknown)" if kappa.high is None else f"of at most {kappa.high:.2g}"
    if kappa.high is None:
        return f"of at least {kappa.low:.2g}"
    return f"of {kappa.low:.2g} to {kappa.high:.2g}"
