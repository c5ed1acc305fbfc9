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

from .advice import Advice, Question, checked_risk
from .calibrated import WHAT_IF, advise
from .imported import drift_so_far, evidence_of_logs
from .learning_rate import Edge, Trial
from .limits import ProbedEdge
from .literature import literature_trials, published_runs
from .measured import Measured, held, limits_at, readable_probes, refusal, with_outcomes
from .passive import advise_from_logs, learned_limit
from .recommendation import deciding_runs, edge_of, published_edge, recommend, trial_of
from .run_facts import RunFacts
from .safe_levels import safe_levels
from .same_setting import differences
from .stored_facts import LEAST_STEPS, NEAREST, facts_of, readable
from .transfers import RefusedTransfer

TIMED_STEPS, TIMED_RUNS = 50, 5
UNUSED_RATE = 1e-4
"""Fills the field of a question that asks for the rate."""


def gather(store: Store, *, group: str | None = None, run_id: str | None = None) -> list[RunFacts]:
    """Return the evidence in the archive: one run, one group, or every run of the trainer.

    What was put away (archived) is none, unless it is the one run that was named. Logs of other
    trainers are evidence where they are named, for only a person knows which setting they are of.

    Raises:
        RunNotFound: the named run is not in the archive.
        BadInput: of none of the named logs the rate and S are known.
    """
    kept = store.runs(group=group, archived=False) if run_id is None else [store.run(run_id)]
    ours = [_with_drift(store, run, config) for run, config in readable(kept)]
    named = group is not None or run_id is not None
    return ours or (evidence_of_logs(store, kept) if named else [])


def _with_drift(store: Store, run: RunInfo, config: TrainerConfig) -> RunFacts:
    """Return the facts of a run; while it has no outcome, what its batches tell of drift too."""
    facts = facts_of(store, run, config)
    if facts.unsafe is not None or facts.steps < LEAST_STEPS:
        return facts
    return replace(facts, logged=drift_so_far(store, run, config))


def calibration_of(store: Store, calibration_id: str) -> Measured:
    """Return a stored calibration.

    Raises:
        CalibrationNotFound: it is not in the archive.
        BadInput: this version cannot read it.
    """
    found = readable_probes([store.calibration(calibration_id)])
    if not found:
        raise BadInput(
            f"calibration: {calibration_id!r} was written by another version; probe again"
        )
    return found[0]


def fitting_calibration(store: Store, setting: TrainerConfig) -> Measured | None:
    """Return the calibration that speaks most directly of a setting, the newest of equals."""
    fitting = []
    for found in readable_probes(store.calibrations()):
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
