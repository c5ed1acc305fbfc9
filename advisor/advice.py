"""What is asked and what is answered: a question, the risk it accepts, and the advice. Pure."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from storage.commandline import BadInput
from trainer.config import TrainerConfig

from .regime import Estimate, Regime, explained, unknown

NO_SLIDE = "no run of this setting is known to have begun to fall at its horizon"


def checked_risk(risk: float | str) -> float:
    """Return an accepted P(unsafe), as a number or as it was typed.

    Raises:
        BadInput: it is no number in 0…1 exclusive.
    """
    try:
        found = float(risk)
    except ValueError:
        raise BadInput(f"risk: {risk!r} is not allowed; allowed: 0 < risk < 1") from None
    if not 0 < found < 1:
        shown = found if isinstance(risk, str) else risk
        raise BadInput(f"risk: {shown} is not allowed; allowed: 0 < risk < 1")
    return found


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What is asked: a setting (its ``learning_rate`` is ignored), a risk, maybe a rate to judge.

    ``risk`` is the accepted P(unsafe within T), in 0…1 exclusive.
    """

    setting: TrainerConfig
    risk: float
    learning_rate: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Advice:
    """The answer. ``reasons`` says, for every field that is None, why."""

    max_learning_rate: float | None
    suggested_learning_rate: float | None
    edge: float | None
    low: float | None
    high: float | None
    binding: str
    regime: Regime
    unsafe_probability: float | None
    forecast_collapse_step: float | None
    kappa_staleness: Estimate
    kappa_horizon: Estimate
    kappa_local: Estimate
    kappa_slide: Estimate = field(default_factory=lambda: unknown(NO_SLIDE))
    crossover_staleness: float | None
    reason: str
    calibrated: bool
    evidence: tuple[str, ...]
    red_flags: tuple[str, ...] = ()
    what_if: Mapping[str, float | None] = field(default_factory=dict)
    most_learning_staleness: int | None = None
    reasons: dict[str, str] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the answer as the command line prints it: every None with its ``…_reason``."""
        answer = explained(asdict(self))
        reasons = answer.pop("reasons")
        for name in [n for n, value in answer.items() if value is None or n == "regime"]:
            answer[f"{name}_reason"] = reasons.get(name, "not measured")
        return answer
