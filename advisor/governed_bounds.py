"""From a question and its evidence to what a governor holds a run to. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from statistics import NormalDist
from typing import Any

from trainer.config import TrainerConfig
from trainer.losses import LOSSES

from .advice import Advice, Question
from .calibration import clip_criterion
from .constants import constants_of
from .governor import Bounds, Level
from .horizon import USUAL_ALPHA
from .learned_reward import critical_displacement, sqrt_kl_level
from .measured import Measured
from .recommendation import deciding_runs
from .red_flags import LEAST_SEQUENCE_ESS
from .run_facts import RunFacts
from .safe_levels import Level as Scattered
from .safe_levels import SafeLevels
from .segments import is_learned_reward

NO_GOING_TOO_FAR = "no run of this setting is known to have gone too far"


def bounds_of(
    question: Question,
    advice: Advice,
    evidence: Sequence[RunFacts],
    found: Measured | None,
    levels: SafeLevels,
    parameters: int | None,
) -> Bounds:
    """Return what is known of the limits of a run of the asked setting at the asked risk.

    Published settings hold nothing back, for their constants are not those of this one.

    Args:
        question: the setting, and the accepted P(unsafe within T).
        advice: what ``answer.consider`` says to the question.
        evidence: archived runs; those of another setting are left out.
        found: the calibration behind the advice, if there is one.
        levels: the safe levels.
        parameters: of the model; None where that is not known yet.
    """
    same = deciding_runs(question, evidence)
    rate = advice.max_learning_rate if advice.calibrated else None
    suggested = advice.suggested_learning_rate
    reasons = {}
    if rate is None:
        reasons["learning_rate"] = advice.reasons.get("max_learning_rate", advice.reason)
    displacement = _displacement(question, same, found, levels)
    if displacement is None:
        reasons["displacement"] = NO_GOING_TOO_FAR
    sqrt_kl = None
    if is_learned_reward(question.setting):
        sqrt_kl = _level(sqrt_kl_level(question.setting, levels), question.risk, levels)
    else:
        reasons["sqrt_kl"] = "only a learned reward can be followed too far from the start"
    return Bounds(
        learning_rate=None if rate is None else Level(safe=rate, aim=min(rate, suggested or rate)),
        displacement=displacement,
        sqrt_kl=sqrt_kl,
        clip_criterion=clip_criterion(same, parameters, question.setting.loss),
        best_share=levels.best_over_edge["survival"],
        reasons=reasons,
    )


def _displacement(
    question: Question, same: Sequence[RunFacts], found: Measured | None, levels: SafeLevels
) -> Level | None:
    if found is not None and is_learned_reward(question.setting):
        critical = critical_displacement(question.setting, found.holds, levels)
        if critical is not None:
            return _level(critical, question.risk, levels)
    if not same:
        return None
    constants = constants_of(same)
    lows = [r.low for r in (constants.r_slide, constants.r_crit) if r.value is not None and r.low]
    return Level(safe=min(lows), aim=min(lows)) if lows else None


def _level(critical: Scattered, risk: float, levels: SafeLevels) -> Level:
    """Return how far one may go at a risk, and where the reward is expected to be best.

    The rate that ends best is a share of the edge, and the clock grows as that rate to the power α.
    """
    safe = critical.value * math.exp(NormalDist().inv_cdf(risk) * critical.log_sd)
    aim = critical.value * levels.best_over_edge["horizon"] ** USUAL_ALPHA
    return Level(safe=safe, aim=min(safe, aim))


def as_json(bounds: Bounds) -> dict[str, Any]:
    """Return the bounds as a run keeps them, to go on under the same ones."""
    return asdict(bounds)


def from_json(kept: Mapping[str, Any]) -> Bounds:
    """Read the bounds that a run keeps.

    Raises:
        KeyError, TypeError: another version wrote them.
    """
    levels = {
        name: None if kept[name] is None else Level(**kept[name])
        for name in ("learning_rate", "displacement", "sqrt_kl")
    }
    low, high, source = kept["clip_criterion"]
    return Bounds(
        **levels,
        clip_criterion=(low, high, source),
        best_share=kept["best_share"],
        reasons=kept["reasons"],
    )


def words(bounds: Bounds, config: TrainerConfig) -> str:
    """Say in a sentence what a run is held to."""
    held = []
    if bounds.learning_rate is not None:
        held.append(
            f"a learning rate of {bounds.learning_rate.safe:.3g}, above which it is brought to "
            f"{bounds.learning_rate.aim:.3g}"
        )
    if bounds.displacement is not None:
        held.append(f"a displacement of {bounds.displacement.safe:.3g} after {config.steps} steps")
    if bounds.sqrt_kl is not None:
        held.append(f"√KL to the start of {bounds.sqrt_kl.safe:.3g}")
    if config.max_staleness > 0:
        held.append(f"drift within a cycle below R_batch ({bounds.clip_criterion[2]})")
        if not LOSSES[config.loss].has_clipping_radius:
            held.append(f"at least {LEAST_SEQUENCE_ESS:.0%} of the sequences effective")
    return "held to " + "; ".join(held) if held else "nothing is known to hold the run to"
