"""From a question and its evidence to advice: the rates, the binding limit, and why. Pure.

A first form: outcomes of runs of the same setting place the edge, measured constants say which
limit it is. The published settings answer when there is no run, marked as uncalibrated.
"""

import math
from collections.abc import Sequence

from storage.words import counted
from trainer.config import TrainerConfig

from .advice import NO_SLIDE, Advice, Question
from .constants import Constants, constants_of, kappas_at
from .learning_rate import FOREIGN_WIDTHS, Edge, Rates, Trial, safe_rates, two_constraint_rule
from .literature import PublishedRun, literature_trials, nearest
from .regime import Estimate, regime_of, unknown
from .run_facts import RunFacts
from .same_setting import differences
from .staleness_radius import no_clipping_radius
from .wording import rate as written


def recommend(
    question: Question, runs: Sequence[RunFacts], published: Sequence[PublishedRun]
) -> Advice:
    """Answer a question from the runs of the same setting, or else from published settings.

    Args:
        question: what is asked.
        runs: candidates; those of another setting are left out, and the reason says so.
        published: the packaged table, used when no run of the setting has an outcome.
    """
    same = deciding_runs(question, runs)
    decided = [run for run in same if run.unsafe is not None]
    if decided:
        return _from_runs(question, same, decided, left_out(question, runs, same))
    return _from_literature(question, same, published, left_out(question, runs, same))


def deciding_runs(question: Question, runs: Sequence[RunFacts]) -> list[RunFacts]:
    """Return the runs whose setting is the question's; η, S, T and seed may differ."""
    return [run for run in runs if not differences(run.config, question.setting)]


def left_out(
    question: Question,
    runs: Sequence[RunFacts],
    same: Sequence[RunFacts],
    *,
    undecided: bool = True,
) -> str:
    """Say which of the runs do not count; those without an outcome only if ``undecided`` says."""
    words = ""
    if undecided and (open_ended := sum(run.unsafe is None for run in same)):
        words += f" Archived runs of this setting without an outcome, not counted: {open_ended}."
    others = [run for run in runs if run not in same]
    if others:
        differs = ", ".join(differences(others[0].config, question.setting)[:3])
        words += f" Archived runs of another setting ({differs}), left out: {len(others)}."
    return words


def edge_of(question: Question, decided: Sequence[RunFacts]) -> Edge:
    """Return the edge at the question's S and T, from runs whose outcome is known."""
    setting = question.setting
    trials = [trial_of(run) for run in decided]
    return Edge(trials, max_staleness=setting.max_staleness, steps=setting.steps)


def published_edge(question: Question, published: Sequence[PublishedRun]) -> Edge:
    """Return the edge at the question's S and T, from published settings."""
    setting = question.setting
    return Edge(
        literature_trials(list(published)),
        max_staleness=setting.max_staleness,
        steps=setting.steps,
        widths=FOREIGN_WIDTHS,
    )


def trial_of(run: RunFacts) -> Trial:
    """Return what a run whose outcome is known says about the edge."""
    lost_at = run.onset + 1 if run.onset is not None and run.unsafe else run.steps
    return Trial(
        learning_rate=run.config.learning_rate,
        max_staleness=run.config.max_staleness,
        steps=max(1, lost_at),
        unsafe=bool(run.unsafe),
        label=_label(run),
    )


def _label(run: RunFacts) -> str:
    config = run.config
    return (
        f"run {run.run_id}: η={config.learning_rate:g}, S={config.max_staleness}, "
        f"{counted(run.steps, 'step')}: {run.verdict}"
    )


def _from_runs(
    question: Question, same: Sequence[RunFacts], decided: Sequence[RunFacts], left_out: str
) -> Advice:
    edge = edge_of(question, decided)
    rates = safe_rates(edge, question.risk)
    suggested, suggested_reason = best_rate(decided, rates.max_learning_rate)
    judged = question.learning_rate or rates.max_learning_rate or rates.high
    constants = constants_of(same, learning_rate=judged)
    survived = sum(run.unsafe is False for run in decided)
    basis = f"{counted(len(decided), 'archived run')} of this setting, {survived} of them survived"
    return _advice(
        question,
        rates=rates,
        edge=edge,
        suggested=(suggested, suggested_reason),
        constants=constants,
        judged=judged,
        basis=basis,
        caveat=left_out,
        evidence=tuple(_label(run) for run in decided),
    )


def best_rate(decided: Sequence[RunFacts], largest: float | None) -> tuple[float | None, str]:
    """Return the rate of the survivor that ended best, held to the largest safe one."""
    if largest is None:
        return None, "no rate is safe at this risk on this evidence"
    survived = [run for run in decided if run.unsafe is False]
    ends = [
        (run.reward_final, run)
        for run in survived
        if run.reward_final is not None and math.isfinite(run.reward_final)
    ]
    if not ends:
        return (
            None,
            f"of {counted(len(survived), 'survivor')} none has an evaluation of its last policy",
        )
    gained = [end for end in ends if end[1].reward_start is None or end[0] > end[1].reward_start]
    if not gained:
        return None, "no survived run ended above its start: the start is the best policy so far"
    _, best = max(gained, key=lambda end: end[0])
    return min(best.config.learning_rate, largest), ""


def _from_literature(
    question: Question,
    same: Sequence[RunFacts],
    published: Sequence[PublishedRun],
    left_out: str,
) -> Advice:
    edge = published_edge(question, published)
    rates = safe_rates(edge, question.risk)
    close = nearest(list(published), question.setting.max_staleness)
    gentlest = _gentlest_stable(published, question)
    start = ""
    if gentlest is not None:
        start = (
            " The gentlest published rate that was stable at this staleness is "
            f"{written(gentlest)}: {edge.unsafe_probability(gentlest):.0%} of such settings "
            "are unsafe."
        )
    constants = constants_of(same, learning_rate=question.learning_rate)
    basis = f"{len(literature_trials(list(published)))} published settings, uncalibrated"
    caveat = start + (
        " The published settings are models of 0.6 B parameters and more, with other tasks, "
        "optimizers and clips, so the interval is wide; a run of your own setting replaces it."
        + left_out
    )
    return _advice(
        question,
        rates=rates,
        edge=edge,
        suggested=_of_published(gentlest, rates.max_learning_rate),
        constants=constants,
        judged=question.learning_rate or rates.max_learning_rate or gentlest,
        basis=basis,
        caveat=caveat,
        evidence=tuple(run.label for run in close),
        calibrated=False,
    )


def _gentlest_stable(published: Sequence[PublishedRun], question: Question) -> float | None:
    """Gentlest published rate that was stable at the asked staleness or more."""
    stable = (
        run.learning_rate
        for run in published
        if run.outcome == "stable"
        and run.learning_rate is not None
        and run.staleness >= question.setting.max_staleness
    )
    return min(stable, default=None)


def _of_published(gentlest: float | None, largest: float | None) -> tuple[float | None, str]:
    """Return the published rate to begin with, held to the largest safe one, or why none is."""
    if largest is None:
        return None, "no published rate is within the accepted risk; a probe may find one"
    if gentlest is None:
        return None, "no published setting of this staleness was stable"
    return min(gentlest, largest), ""


def _advice(
    question: Question,
    *,
    rates: Rates,
    edge: Edge,
    suggested: tuple[float | None, str],
    constants: Constants,
    judged: float | None,
    basis: str,
    caveat: str,
    evidence: tuple[str, ...],
    calibrated: bool = True,
) -> Advice:
    setting = question.setting
    kappas = _kappas(constants, judged, setting)
    binding, binding_reason = _binding(kappas)
    regime, regime_reason = regime_of(kappas)
    own = question.learning_rate
    forecast, forecast_reason = _forecast(constants, own, setting)
    crossover = _crossover(constants, setting)
    reasons = {
        **rates.reasons,
        "suggested_learning_rate": suggested[1],
        "unsafe_probability": "no learning rate was given to judge (--learning-rate)",
        "forecast_collapse_step": forecast_reason,
        "crossover_staleness": "R_batch and R_crit are not both known for this setting",
        "most_learning_staleness": "only a probe times generation and learning",
    }
    return Advice(
        max_learning_rate=rates.max_learning_rate,
        suggested_learning_rate=suggested[0],
        edge=rates.edge,
        low=rates.low,
        high=rates.high,
        binding=binding,
        regime=regime,
        unsafe_probability=None if own is None else edge.unsafe_probability(own),
        forecast_collapse_step=forecast,
        kappa_staleness=kappas["staleness"],
        kappa_horizon=kappas["horizon"],
        kappa_local=kappas["local_step"],
        kappa_slide=kappas.get("slide", unknown(NO_SLIDE)),
        crossover_staleness=crossover,
        reason=_sentence(question, rates, basis)
        + f" {binding_reason}{caveat} {no_clipping_radius(setting)}".rstrip(),
        calibrated=calibrated,
        evidence=evidence,
        reasons={**reasons, "regime": regime_reason},
    )


def _kappas(
    constants: Constants, judged: float | None, setting: TrainerConfig
) -> dict[str, Estimate]:
    if judged is None:
        return dict.fromkeys(("staleness", "horizon", "local_step"), unknown("no rate to judge"))
    return kappas_at(
        constants,
        learning_rate=judged,
        max_staleness=setting.max_staleness,
        steps=setting.steps,
    )


def _binding(kappas: dict[str, Estimate]) -> tuple[str, str]:
    """The limit with the largest κ among those that are measured, not merely bounded."""
    known = {n: k.value for n, k in kappas.items() if k.value is not None and k.value > 0}
    if not known:
        return "none", "Which limit binds is not measured for this setting."
    name = max(known, key=lambda n: known[n])
    bounded = [n for n, k in kappas.items() if k.value is None]
    rest = f"; {' and '.join(bounded)} not measured".replace("_", " ") if bounded else ""
    return name, f"The binding limit is {name.replace('_', ' ')} (κ ≈ {known[name]:.2g}{rest})."


def _forecast(
    constants: Constants, learning_rate: float | None, setting: TrainerConfig
) -> tuple[float | None, str]:
    if learning_rate is None:
        return None, "no learning rate was given to judge (--learning-rate)"
    c = constants
    if c.r_crit.value is None:
        return None, c.r_crit.reason or "R_crit is not known for this setting"
    if c.g_1 is None or c.alpha is None:
        return None, "no run of this setting is long enough to fit its drift"
    if c.g_1 * learning_rate * setting.steps**c.alpha < c.r_crit.value:
        return None, f"none within {counted(setting.steps, 'step')}"
    return (c.r_crit.value / (c.g_1 * learning_rate)) ** (1 / c.alpha), ""


def _crossover(constants: Constants, setting: TrainerConfig) -> float | None:
    c = constants
    if c.g_1 is None or c.alpha is None:
        return None
    return two_constraint_rule(
        g_1=c.g_1,
        alpha=c.alpha,
        r_batch=c.r_batch.value,
        r_crit=c.r_crit.value,
        max_staleness=setting.max_staleness,
        steps=setting.steps,
    ).crossover_staleness


def _sentence(question: Question, rates: Rates, basis: str) -> str:
    setting = question.setting
    where = f"at S = {setting.max_staleness} over {counted(setting.steps, 'step')}"
    if rates.max_learning_rate is None:
        return f"No rate can be advised {where}: {rates.reasons['max_learning_rate']} ({basis})."
    edge = "no edge was seen"
    if rates.edge is not None:
        edge = f"half of such runs fail at {written(rates.edge)}"
    risk = question.risk
    return (
        f"Up to {written(rates.max_learning_rate)} {where} the risk of an unsafe run stays within "
        f"{100 * risk:.3g}%; {edge} ({basis})."
    )
