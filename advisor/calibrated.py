"""From a probe to advice: the largest safe rate at the asked setting, and why. Pure."""

import math
from collections.abc import Callable, Sequence

from storage.words import counted
from trainer.config import TrainerConfig

from .advice import Advice, Question
from .learned_reward import growth_of, rates_in_all
from .limits import RateLimit, alpha_of, rate_at, unsafe_probability
from .measured import Measured, limits_at, refusal
from .recommendation import trial_of
from .regime import Estimate, regime_of, unknown
from .safe_levels import SafeLevels
from .segments import FRESH_ABOVE, gains, is_learned_reward
from .staleness_radius import no_clipping_radius
from .transfers import RefusedTransfer
from .wording import rate as written

NINETY = 1.645
STALENESSES = (0, 1, 2, 4, 8, 16, 32, 64, 128)
WHAT_IF: dict[str, Callable[[TrainerConfig], dict[str, float]]] = {
    "half_max_staleness": lambda c: {"max_staleness": c.max_staleness // 2},
    "half_steps": lambda c: {"steps": max(1, c.steps // 2)},
    "double_clip": lambda c: {
        **({"clip_epsilon": min(0.99, 2 * c.epsilon_low)} if c.clip_epsilon else {}),
        "clip_epsilon_high": min(100.0, 2 * c.epsilon_high),
    },
    "double_batch": lambda c: {"prompts": 2 * c.prompts},
}


def advise(question: Question, found: Measured, levels: SafeLevels) -> Advice:
    """Answer a question from a probe.

    Raises:
        RefusedTransfer: the probe says nothing about the asked setting.
    """
    why_not = refusal(found, question.setting)
    if why_not is not None:
        raise RefusedTransfer(why_not)
    limits = limits_at(found, question.setting, levels)
    if not limits:
        return _nothing(question, found)
    seen = [x for x in limits if x.bound != "high"]
    largest = rate_at(limits, question.risk) if seen else None
    binding = min(limits, key=lambda x: x.median)
    edge = rate_at(limits, 0.5) if binding.bound is None else None
    suggested, suggested_why = _suggested(found, limits, levels, largest)
    own = question.learning_rate
    judged = own or largest or binding.median
    kappas = kappas_at(found, question.setting, limits, levels, judged)
    regime, regime_why = regime_of(kappas)
    forecast, forecast_why = _forecast(question, found, levels)
    reasons = {
        "max_learning_rate": f"{binding.reason}; probe at lower rates",
        "suggested_learning_rate": suggested_why,
        "edge": binding.reason,
        "low": binding.reason,
        "high": binding.reason,
        "unsafe_probability": "no learning rate was given to judge (--learning-rate)",
        "forecast_collapse_step": forecast_why,
        "crossover_staleness": _no_crossover(found, limits),
        "most_learning_staleness": "generation and learning were not timed, or no rate is safe",
        "regime": regime_why,
    }
    return Advice(
        max_learning_rate=largest,
        suggested_learning_rate=suggested,
        edge=edge,
        low=rate_at(limits, 0.05) if binding.bound != "high" else None,
        high=rate_at(limits, 0.95) if binding.bound != "low" else None,
        binding=binding.binding,
        regime=regime,
        unsafe_probability=None if own is None else unsafe_probability(limits, own),
        forecast_collapse_step=forecast,
        kappa_staleness=kappas["staleness"],
        kappa_horizon=kappas["horizon"],
        kappa_local=kappas["local_step"],
        crossover_staleness=crossover(found, question.setting, limits),
        reason=_sentence(question, found, largest, edge, binding),
        calibrated=True,
        evidence=_evidence(found),
        what_if=what_if(question, found, levels),
        most_learning_staleness=most_learning_staleness(question, found, levels),
        reasons=reasons,
    )


def _evidence(found: Measured) -> tuple[str, ...]:
    segments = (
        f"run {s.run_id}: {'ramp to' if s.is_ramp else 'hold at'} η={s.learning_rate:g}, "
        f"S={s.max_staleness}, {counted(s.steps, 'step')}"
        for s in found.segments
    )
    return (*segments, *(trial_of(run).label for run in found.outcomes))


def _nothing(question: Question, found: Measured) -> Advice:
    why = "the probe held no rate long enough to say anything; give it a larger --budget"
    fields = ("max_learning_rate", "suggested_learning_rate", "edge", "low", "high")
    nothing = unknown(why)
    regime, regime_why = regime_of({"staleness": nothing})
    return Advice(
        max_learning_rate=None,
        suggested_learning_rate=None,
        edge=None,
        low=None,
        high=None,
        binding="none",
        regime=regime,
        unsafe_probability=None,
        forecast_collapse_step=None,
        kappa_staleness=nothing,
        kappa_horizon=nothing,
        kappa_local=nothing,
        crossover_staleness=None,
        reason=f"No rate can be advised: {why}.",
        calibrated=True,
        evidence=tuple(f"run {s.run_id}" for s in found.segments),
        reasons={
            **dict.fromkeys((*fields, "unsafe_probability", "forecast_collapse_step"), why),
            "crossover_staleness": why,
            "most_learning_staleness": why,
            "regime": regime_why,
        },
    )


def _suggested(
    found: Measured, limits: Sequence[RateLimit], levels: SafeLevels, largest: float | None
) -> tuple[float | None, str]:
    """Where the final reward is expected to be best: a fitted share of the edge.

    Holds stand near the edge, where little is gained in their few steps, so a small gain is no
    reason to withhold a rate; that none gained at all is, and then no rate is safe either.
    """
    if largest is None:
        if not any(g > 0 for _, g, _ in gains(found.stale, found.segments)):
            return None, "no hold gained on the start: the start is the best policy so far"
        return None, "no rate is safe at this risk on this evidence"
    return min(*(_best_by(limit, levels) for limit in limits), largest), ""


def _best_by(limit: RateLimit, levels: SafeLevels) -> float:
    """Return the rate that ends best by one limit."""
    by = "horizon" if limit.binding == "horizon" else "survival"
    return limit.median * levels.best_over_edge[by]


def kappas_at(
    found: Measured,
    asked: TrainerConfig,
    limits: Sequence[RateLimit],
    levels: SafeLevels,
    learning_rate: float,
) -> dict[str, Estimate]:
    """Return κ of every limit at a rate, each relative to its safe level, which is 1.

    At a fixed S, drift within a cycle is proportional to η, so κ_staleness is η over the rate at
    which staleness breaks the run; likewise for a single step. A limit that does not bind is
    known to lie above the one that does, so its κ is bounded from above only.
    """
    by = {limit.binding: limit for limit in limits}
    survival = by.get("staleness") or by.get("local_step")
    kappas = {
        "staleness": unknown("the reward is a learned model's: its fall cannot be waited for"),
        "local_step": unknown("the reward is a learned model's: its fall cannot be waited for"),
    }
    if survival is not None:
        other = "local_step" if survival.binding == "staleness" else "staleness"
        kappas[survival.binding] = _kappa(survival, learning_rate)
        binding = kappas[survival.binding]
        kappas[other] = Estimate(
            high=binding.high,
            is_bound=True,
            reason=f"{survival.binding.replace('_', ' ')} limits before it does",
        )
    if asked.max_staleness == 0:
        kappas["staleness"] = Estimate(
            value=0.0, low=0.0, high=0.0, reason="S = 0: every rollout is fresh"
        )
    horizon = by.get("horizon")
    drift = growth_of(found.setting, found.holds, levels, "displacement")
    if horizon is not None and drift is not None:
        at = math.exp(drift.exponent * math.log(learning_rate / horizon.median))
        half = NINETY * horizon.log_sd * drift.exponent
        kappas["horizon"] = Estimate(
            value=at, low=at * math.exp(-half), high=at * math.exp(half), reason=horizon.reason
        )
    else:
        kappas["horizon"] = _bounded_horizon(found, asked, levels, learning_rate)
    return kappas


def _kappa(limit: RateLimit, learning_rate: float) -> Estimate:
    at, half = learning_rate / limit.median, NINETY * limit.log_sd
    low, high = at * math.exp(-half), at * math.exp(half)
    if limit.bound == "low":
        return Estimate(high=high, is_bound=True, reason=limit.reason)
    if limit.bound == "high":
        return Estimate(low=low, is_bound=True, reason=limit.reason)
    return Estimate(value=at, low=low, high=high, reason=limit.reason)


def _bounded_horizon(
    found: Measured, asked: TrainerConfig, levels: SafeLevels, learning_rate: float
) -> Estimate:
    """R_crit is above what a hold that gained has travelled: an upper bound of κ_horizon."""
    drift = growth_of(found.setting, found.holds, levels, "displacement")
    gained = [s.travel[-1][2] for s in found.holds if s.travel and (s.gain or 0) > 0]
    if drift is None or not gained:
        return unknown("no hold gained, so how far the policy may go is not known")
    reach = drift.at(rates_in_all(asked) * learning_rate, learning_rate)
    return Estimate(
        high=reach / max(gained),
        is_bound=True,
        reason=f"holds gained up to a displacement of {max(gained):.2g} and none ended for having "
        "gone too far, so R_crit is only bounded from below",
    )


def crossover(found: Measured, asked: TrainerConfig, limits: Sequence[RateLimit]) -> float | None:
    """Return S* below which less staleness buys no learning rate; None when it is not known."""
    by = {limit.binding: limit for limit in limits}
    stale, horizon = by.get("staleness"), by.get("horizon")
    if stale is None or horizon is None or asked.max_staleness == 0:
        return None
    return float(
        asked.max_staleness * (stale.median / horizon.median) ** (1 / alpha_of(found.holds))
    )


def _no_crossover(found: Measured, limits: Sequence[RateLimit]) -> str:
    binding = min(limits, key=lambda x: x.median).binding
    if binding == "staleness":
        return (
            f"staleness binds, and without it the edge lies at least {FRESH_ABOVE:g} times higher; "
            "where exactly was not probed"
        )
    return f"{binding.replace('_', ' ')} binds at S = {found.setting.max_staleness} already"


def _forecast(question: Question, found: Measured, levels: SafeLevels) -> tuple[float | None, str]:
    """Return the learner step at which a learned reward has been followed into collapse.

    With stale rollouts clipping slows a broken policy down, and it is a step before which none is
    expected (docs/theory.md).
    """
    own = question.learning_rate
    if own is None:
        return None, "no learning rate was given to judge (--learning-rate)"
    if not is_learned_reward(found.setting):
        return None, "R_crit is only bounded from below: no run of this setting went too far"
    growth = growth_of(found.setting, found.holds, levels, "sqrt_kl")
    if growth is None:
        return None, "the probe measured too little of how √KL grows"
    collapsed = levels.sqrt_kl.value * levels.collapse_over_damage
    step = growth.rate_sum(collapsed, own) / own + question.setting.warmup_steps / 2
    if step > question.setting.steps:
        return None, f"none within {counted(question.setting.steps, 'step')}"
    return step, ""


def what_if(question: Question, found: Measured, levels: SafeLevels) -> dict[str, float | None]:
    """Return the largest safe rate after each change that is usually open; None: not known."""
    answers: dict[str, float | None] = {}
    for name, change in WHAT_IF.items():
        values = {**question.setting.model_dump(), **change(question.setting)}
        try:
            limits = limits_at(found, TrainerConfig.model_validate(values), levels)
        except ValueError:  # a refused transfer, or a setting that is not allowed
            answers[name] = None
            continue
        known = [x for x in limits if x.bound != "high"]
        answers[name] = rate_at(limits, question.risk) if known else None
    return answers


def most_learning_staleness(question: Question, found: Measured, levels: SafeLevels) -> int | None:
    """Return the S at which the safe rate times the learner steps per hour is largest.

    With fresh rollouts generation and learning take turns; with S of at least 1 they overlap, so a
    step takes as long as the slower of them. Progress is taken as the sum of rates. Only S to which
    the probe speaks are compared; the smaller S wins a tie. None if nothing was timed.
    """
    if found.step_seconds is None:
        return None
    g, u = found.step_seconds
    gained: dict[int, float] = {}
    for staleness in sorted({*STALENESSES, question.setting.max_staleness}):
        asked = question.setting.model_copy(update={"max_staleness": staleness})
        try:
            limits = limits_at(found, asked, levels)
        except RefusedTransfer:
            continue
        if any(x.bound != "high" for x in limits):
            seconds = g + u if staleness == 0 else max(g, u)
            gained[staleness] = rate_at(limits, question.risk) / seconds
    return max(gained, key=lambda s: (gained[s], -s)) if gained else None


def _sentence(
    question: Question,
    found: Measured,
    largest: float | None,
    edge: float | None,
    binding: RateLimit,
) -> str:
    setting = question.setting
    where = f"at S = {setting.max_staleness} over {counted(setting.steps, 'step')}"
    basis = f"a probe of {counted(found.calibration.learner_steps, 'learner step')}"
    if found.outcomes:
        basis += f" and {counted(len(found.outcomes), 'archived run')}"
    which = binding.binding.replace("_", " ")
    unclipped = no_clipping_radius(setting)
    if largest is None:
        return f"No rate can be advised {where}: {binding.reason} ({basis}). {unclipped}".strip()
    at = f"; half of such runs fail at {written(edge)}" if edge is not None else ""
    return (
        f"Up to {written(largest)} {where} the risk of an unsafe run stays within "
        f"{100 * question.risk:.3g}%{at} ({basis}). The binding limit is {which}: {binding.reason}."
        f" {unclipped}"
    ).strip()
