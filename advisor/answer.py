"""The one path from store to evidence to answer to store, for command line and pages alike."""

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import median

from pydantic import ValidationError

from storage.commandline import BadInput
from storage.records import Recommendation, RunInfo
from storage.store import Store
from trainer.config import TrainerConfig, bounded_config, changed

from .calibrated import WHAT_IF, advise
from .calibration import clip_criterion, staleness_kappa
from .constants import constants_of
from .horizon import horizon_kappa, horizon_step, local_kappa, projected_alpha, used_kappa
from .imported import (
    KINDS,
    config_of_log,
    drift_so_far,
    evidence_of_logs,
    facts_of_log,
    logs_beside,
)
from .learning_rate import Edge, Trial
from .limits import ProbedEdge
from .literature import literature_trials, published_runs
from .measured import Measured, held, limits_at, measured, refusal, with_outcomes
from .passive import advise_from_logs, learned_limit
from .recommendation import (
    Advice,
    Question,
    checked_risk,
    deciding_runs,
    edge_of,
    published_edge,
    recommend,
    trial_of,
)
from .red_flags import SERIES as RED_FLAG_SERIES
from .red_flags import RedFlag, red_flags
from .regime import Diagnosis, Regime, change_of, regime_of, unknown
from .run_facts import RunFacts
from .safe_levels import safe_levels
from .same_setting import differences
from .staleness_radius import staleness_radius
from .stored_facts import ENDED, ends_of, facts_of
from .transfers import RefusedTransfer

LEAST_STEPS, TIMED_STEPS, TIMED_RUNS = 20, 50, 5
NEAREST = 40
"""Ended runs that a diagnosis reads, the nearest in learning rate: their constants are those of
other rates the less the farther, and a live page asks every other second."""
UNUSED_RATE = 1e-4
"""Fills the field of a question that asks for the rate."""


def config_of(run: RunInfo) -> TrainerConfig | None:
    """Return the configuration of a stored run; None when this trainer cannot read it."""
    try:
        return TrainerConfig.model_validate(run.config)
    except ValidationError:
        return None


def gather(store: Store, *, group: str | None = None, run_id: str | None = None) -> list[RunFacts]:
    """Return the evidence in the archive: one run, one group, or every run of the trainer.

    What was put away (archived) is none, unless it is the one run that was named. Logs of other
    trainers are evidence where they are named, for only a person knows which setting they are of.

    Raises:
        RunNotFound: the named run is not in the archive.
        BadInput: of none of the named logs the rate and S are known.
    """
    kept = store.runs(group=group, archived=False) if run_id is None else [store.run(run_id)]
    ours = [_with_drift(store, run, config) for run, config in _readable(kept)]
    named = group is not None or run_id is not None
    return ours or (evidence_of_logs(store, kept) if named else [])


def _with_drift(store: Store, run: RunInfo, config: TrainerConfig) -> RunFacts:
    """Return the facts of a run; while it has no outcome, what its batches tell of drift too."""
    facts = facts_of(store, run, config)
    if facts.unsafe is not None or facts.steps < LEAST_STEPS:
        return facts
    return replace(facts, logged=drift_so_far(store, run, config))


def _readable(runs: Sequence[RunInfo]) -> list[tuple[RunInfo, TrainerConfig]]:
    configs = [(run, config_of(run)) for run in runs if run.kind in ("train", "sweep")]
    return [(run, config) for run, config in configs if config is not None]


def _neighbors(store: Store, this: RunInfo, setting: TrainerConfig) -> list[RunFacts]:
    """Return the ended runs of the same setting that are nearest in learning rate."""
    own = math.log(setting.learning_rate)
    same = [
        (run, config)
        for run, config in _readable(store.runs(archived=False))
        if run.id != this.id and run.status in ENDED and not differences(config, setting)
    ]
    near = sorted(same, key=lambda each: abs(math.log(each[1].learning_rate) - own))[:NEAREST]
    facts = [facts_of(store, run, config) for run, config in near]
    return [each for each in facts if each.unsafe is not None]


def calibration_of(store: Store, calibration_id: str) -> Measured:
    """Return a stored calibration.

    Raises:
        CalibrationNotFound: it is not in the archive.
        BadInput: this version cannot read it.
    """
    found = store.calibration(calibration_id)
    try:
        return measured(found)
    except (ValidationError, TypeError, KeyError):
        raise BadInput(
            f"calibration: {calibration_id!r} was written by another version; probe again"
        ) from None


def fitting_calibration(store: Store, setting: TrainerConfig) -> Measured | None:
    """Return the calibration that speaks most directly of a setting, the newest of equals."""
    fitting = []
    for stored in store.calibrations():
        try:
            found = measured(stored)
        except (ValidationError, TypeError, KeyError):
            continue
        if refusal(found, setting) is None:
            old, new = found.setting, setting
            apart = abs(math.log((old.max_staleness + 1) / (new.max_staleness + 1)))
            apart += abs(math.log(old.steps / new.steps))
            fitting.append((len(differences(old, new)), apart, found))
    return min(fitting, key=lambda each: each[:2])[2] if fitting else None


def ask(
    *,
    settings: Mapping[str, object],
    evidence: Sequence[RunFacts],
    risk: float,
    found: Measured | None = None,
) -> Question:
    """Build a question; settings that are None come from the calibration, else the newest run.

    A ``learning_rate`` among the settings is the rate to judge.

    Raises:
        BadInput: a setting or the risk is not allowed.
    """
    risk = checked_risk(risk)
    base = evidence[0].config.model_dump() if evidence else {}
    if found is not None:
        base = {**found.setting.model_dump(), "seed": 0}
    config = bounded_config(changed({"learning_rate": UNUSED_RATE, **base}, settings))
    judged = None if settings.get("learning_rate") is None else config.learning_rate
    return Question(setting=config, risk=risk, learning_rate=judged)


def consider(
    question: Question, evidence: Sequence[RunFacts], found: Measured | None = None
) -> Advice:
    """Answer a question without keeping the answer, for what-if.

    A calibration, where there is one, answers; outcomes of archived runs of its setting move it.

    Raises:
        BadInput: the calibration says nothing about the asked setting.
    """
    if found is None:
        return _from_runs(question, evidence)
    try:
        return advise(question, learned_from(found, evidence), safe_levels())
    except RefusedTransfer as error:
        raise BadInput(
            f"calibration: {found.calibration.id!r} does not answer this: {error}; "
            "python -m advisor probe measures this setting"
        ) from None


def _from_runs(question: Question, evidence: Sequence[RunFacts]) -> Advice:
    """Answer from outcomes; without one, or from logs, by where clipping says staleness limits."""
    if not _speak_by_drift(question, evidence):
        return recommend(question, evidence, published_runs())
    advice = advise_from_logs(question, evidence)
    if isinstance(advice, Advice):
        return advice
    other = recommend(question, evidence, published_runs())
    return replace(other, reason=f"{other.reason} Of staleness the runs say nothing: {advice}.")


def _speak_by_drift(question: Question, evidence: Sequence[RunFacts]) -> bool:
    """Whether the runs of the setting tell more by their batches than by how they ended."""
    same = deciding_runs(question, evidence)
    logs = [run for run in same if run.logged is not None]
    measured_only = all(run.unsafe is None or run.displacement is None for run in same)
    return bool(logs) and measured_only


def learned_from(found: Measured, evidence: Sequence[RunFacts]) -> Measured:
    """Return a probe that has learned from the runs of its setting among the evidence.

    Only the 40 of them that are nearest in learning rate to its edge are read.
    """
    if found.shift is not None or not evidence:
        return found
    levels = safe_levels()
    limits = limits_at(found, found.setting, levels)
    if not limits:
        return found
    edge = math.log(min(limit.median for limit in limits))
    near = sorted(evidence, key=lambda run: abs(math.log(run.config.learning_rate) - edge))
    same = [run for run in near if not differences(found.setting, run.config)]
    return with_outcomes(found, same[:NEAREST], levels)


def learned_edge(
    question: Question, evidence: Sequence[RunFacts], found: Measured | None = None
) -> tuple[Edge | ProbedEdge, list[Trial]]:
    """Return the edge behind an answer and the trials it was learned from, for charts.

    Raises:
        RefusedTransfer: the calibration says nothing about the asked setting.
    """
    if found is not None:
        learned = learned_from(found, evidence)
        limits = limits_at(learned, question.setting, safe_levels())
        outcomes = [trial_of(run) for run in learned.outcomes]
        return ProbedEdge(limits=tuple(limits)), [*held(found), *outcomes]
    decided = [r for r in deciding_runs(question, evidence) if r.unsafe is not None]
    if _speak_by_drift(question, evidence):
        limit = learned_limit(question, deciding_runs(question, evidence))
        if not isinstance(limit, str):
            return ProbedEdge(limits=(limit,)), [trial_of(run) for run in decided]
    if decided:
        return edge_of(question, decided), [trial_of(run) for run in decided]
    published = published_runs()
    return published_edge(question, published), literature_trials(published)


def what_would_change(
    question: Question, evidence: Sequence[RunFacts], advice: Advice, found: Measured | None = None
) -> dict[str, float | None]:
    """Return the largest safe rate after each change that is usually open.

    A change that the evidence says nothing about is left out, so that no published number is held
    against a measured one.
    """
    answers: dict[str, float | None] = {}
    for name, change in WHAT_IF.items():
        values = {**question.setting.model_dump(), **change(question.setting)}
        try:
            changed = replace(question, setting=TrainerConfig.model_validate(values))
            other = consider(changed, evidence, found)
        except (BadInput, ValidationError):
            continue
        if other.calibrated == advice.calibrated and values != question.setting.model_dump():
            answers[name] = other.max_learning_rate
    return answers


def step_seconds(
    store: Store, question: Question, evidence: Sequence[RunFacts], found: Measured | None = None
) -> tuple[float, float] | None:
    """Return how long generating and learning take in a step; None if nothing was timed.

    A calibration has timed its holds; else the newest timed run of the setting says it.
    """
    if found is not None:
        return found.step_seconds
    for run in deciding_runs(question, evidence)[:TIMED_RUNS]:
        rows = store.steps(run.run_id, last=TIMED_STEPS)
        generate = [row.seconds_generate for row in rows if row.seconds_generate is not None]
        learn = [row.seconds_learn for row in rows if row.seconds_learn is not None]
        if generate and learn:
            return median(generate), median(learn)
    return None


def answer(
    store: Store,
    question: Question,
    evidence: Sequence[RunFacts],
    found: Measured | None = None,
) -> Advice:
    """Answer a question and keep the answer with its evidence in the archive."""
    advice = consider(question, evidence, found)
    keep(store, question, advice)
    return advice


def keep(store: Store, question: Question, advice: Advice) -> int:
    """Keep an answer with its evidence in the archive, and return its id."""
    return store.save_recommendation(
        Recommendation(
            time=time.time(),
            question={
                "setting": question.setting.model_dump(mode="json"),
                "risk": question.risk,
                "learning_rate": question.learning_rate,
            },
            answer=advice.as_json(),
            evidence=advice.evidence,
        )
    )


def earlier_advice(store: Store, *, last: int) -> list[tuple[Recommendation, list[RunInfo]]]:
    """Return the newest kept answers, each with the runs that were started from it."""
    given = store.recommendations(last=last)
    runs = store.runs()
    return [(each, [run for run in runs if run.recommendation_id == each.id]) for each in given]


def diagnose(store: Store, run_id: str) -> Diagnosis:
    """Say in which regime a run is, from its own steps and ended runs of the same setting.

    Only the 40 of them that are nearest in learning rate are read.

    Raises:
        RunNotFound: there is no such run.
    """
    run = store.run(run_id)
    logged = run.kind in KINDS
    config = config_of_log(store, run) if logged else config_of(run)
    if not isinstance(config, TrainerConfig):
        return _nothing(run, config or "its configuration is not one that this version can read")
    facts = (facts_of_log if logged else facts_of)(store, run, config)
    if facts.steps < LEAST_STEPS and run.outcome not in ("collapsed", "diverged"):
        return _nothing(run, f"{facts.steps} learner steps are too few; {LEAST_STEPS} are needed")
    flags = red_flags(ends_of(store, run_id, RED_FLAG_SERIES)[0], run.config)
    others = logs_beside(store, run) if logged else _neighbors(store, run, config)
    return diagnosis_of(facts, others, flags)


def diagnosis_of(
    facts: RunFacts, others: Sequence[RunFacts], flags: Sequence[RedFlag]
) -> Diagnosis:
    """Judge a run by its own facts and by ended runs of the same setting, of which it may be one.

    A run that has survived shows, as any other that did, what such runs bear; of a log nobody knows
    which part of a run it is.
    """
    known = [*others, facts] if facts.unsafe is False and facts.logged is None else others
    constants = constants_of(known, learning_rate=facts.config.learning_rate)
    criterion = clip_criterion(known, facts.parameters, facts.config.loss)
    r_batch = staleness_radius(facts, criterion)
    kappas = {
        "staleness": staleness_kappa(facts, r_batch),
        "horizon": horizon_kappa(facts, constants.r_crit),
        "local_step": local_kappa(facts, constants.r_step),
    }
    ended_as = facts.verdict if facts.unsafe is not None else None  # a run that was stopped did not
    slide = horizon_kappa(facts, constants.r_slide)
    if slide.value is not None:
        kappas["slide"] = slide
    regime, reason = regime_of(kappas, ended_as)
    return Diagnosis(
        regime=regime,
        reason=reason,
        kappa_staleness=kappas["staleness"],
        kappa_horizon=kappas["horizon"],
        kappa_slide=slide,
        kappa_used=used_kappa(facts, constants.r_crit),
        kappa_local=kappas["local_step"],
        horizon_step=horizon_step(facts, constants.r_crit),
        evidence=tuple(f"run {each.run_id}: {each.verdict}" for each in others),
        red_flags=tuple(flags),
        change=change_of(
            regime,
            kappas,
            learning_rate=facts.config.learning_rate,
            max_staleness=facts.config.max_staleness,
            steps=facts.config.steps,
            alpha=projected_alpha(facts),
        ),
    )


def _nothing(run: RunInfo, why: str) -> Diagnosis:
    verdict = run.outcome if run.outcome in ("collapsed", "diverged") else None
    regime = Regime(verdict) if verdict else Regime.INSUFFICIENT_DATA
    return Diagnosis(
        regime=regime,
        reason=f"the run has {verdict}" if verdict else why,
        kappa_staleness=unknown(why),
        kappa_horizon=unknown(why),
        kappa_slide=unknown(why),
        kappa_used=unknown(why),
        kappa_local=unknown(why),
        horizon_step=unknown(why),
    )
