"""What a log means: the stack that wrote it, its setting, what becomes of its keys, the doubts.

Reads no file and no archive. What is told of a run before and now is taken together here.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ..commandline import BadInput
from .columns import Plan, plan_of
from .keys import stack_of
from .logs import Log, real
from .metric_names import DRIFT_COLUMNS
from .stacks import Stack, stack_named
from .told import config_held, config_told, renamed
from .wanted import takes_behavior_for_proximal

ROUNDING = 1e-3
"""Relative difference up to which a rate that was told is the one that was logged."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Understanding:
    """What a log was taken for; ``told`` and ``held`` as ``RunInfo.source`` keeps them.

    ``updates_per_version`` counts the learner steps of one version of the weights, by which ages
    were converted; 1 where the stack is not known.
    """

    stack: Stack | None
    told: Mapping[str, Any]
    held: Mapping[str, Any]
    config: Mapping[str, Any]
    updates_per_version: float
    plan: Plan
    notes: tuple[str, ...]


def understanding_of(
    log: Log, settings: Mapping[str, Any], stack: str | None, before: Mapping[str, Any]
) -> Understanding:
    """Return what a log means.

    Args:
        log: the log.
        settings: what is told now, see ``told.config_told``.
        stack: name of the stack as it is told now; None as before, or else by the keys.
        before: the ``source`` of the run when it was imported before; else empty.

    Raises:
        BadInput: the stack or a setting is not allowed, or the keys contradict the stack's drift.
    """
    chosen = stack or before.get("stack")
    known = stack_named(chosen) if chosen else betrayed(log)
    told: dict[str, Any] = {}
    for name, value in before.get("told", {}).items():  # older archives keep a stack's own names
        told = _together(told, renamed({name: value}, known))
    told = _together(told, renamed(settings, known))
    held, left_out = config_held(log.settings, known)
    config, companions = config_told(_together(held, told), known)
    updates = known.updates_per_version(companions) if known else 1.0
    plan = _plan(log, known, config, updates)
    _agrees(log, known, config, plan)
    logged = _from_log(log, plan)
    return Understanding(
        stack=known,
        told=told,
        held=held,
        config=logged | config,
        updates_per_version=updates,
        plan=plan,
        notes=(
            *log.notes,
            *plan.notes,
            *left_out,
            *_other_stack(log, known, plan),
            *_other_rate(logged, config),
            *_doubts(log, known, logged | config, told | held),
        ),
    )


def betrayed(log: Log) -> Stack | None:
    """Return the stack whose keys a log has."""
    found = stack_of(log.keys)
    if log.format == "trainer_state" and found not in ("trl", "trl_async"):
        return None
    return stack_named(found) if found else None


def _together(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was told before with what is told now; of two ways to tell S the newer holds."""
    of_age = {"knob", "max_staleness"}
    kept = {k: v for k, v in before.items() if k not in of_age or of_age.isdisjoint(now)}
    return kept | dict(now)


def _plan(log: Log, stack: Stack | None, config: Mapping[str, Any], updates: float) -> Plan:
    name = stack.name if stack else None
    return plan_of(log, name, updates, bypass_mode=takes_behavior_for_proximal(name, config))


def _agrees(log: Log, stack: Stack | None, config: Mapping[str, Any], plan: Plan) -> None:
    """Refuse to fill a drift column from a key that the log's own stack measures from elsewhere.

    Raises:
        BadInput: it would, and the advice would be of another drift.
    """
    theirs = betrayed(log)
    if stack is None or theirs is None or theirs.name == stack.name:
        return
    references = _plan(log, theirs, config, 1.0).references
    wrong = {
        key: f"{references[key].replace('_', ' ').removesuffix(' model')} policy"
        for key, metric in plan.columns.items()
        if metric.column in DRIFT_COLUMNS and references.get(key, "behavior") != "behavior"
    }
    if wrong:
        listed = ", ".join(f"{key} is against the {policy}" for key, policy in wrong.items())
        raise BadInput(
            f"stack: {stack.name} is not allowed: the keys are those of {theirs.name}, where "
            f"{listed}; allowed: {theirs.name}"
        )


def _other_stack(log: Log, stack: Stack | None, plan: Plan) -> list[str]:
    """Say what is lost where the keys are those of another stack than the one that was told."""
    found = betrayed(log)
    if stack is None or found is None or found.name == stack.name:
        return []
    theirs = {m.column for m in plan_of(log, found.name, 1.0).columns.values()}
    lost = sorted(str(c) for c in theirs - {m.column for m in plan.columns.values()})
    words = f"; as such they would fill {', '.join(lost)} too" if lost else ""
    return [f"the keys look like those of {found.name}, not of {stack.name}{words}"]


def _from_log(log: Log, plan: Plan) -> dict[str, Any]:
    """Return what a log tells of its configuration: the horizon, and the largest rate logged."""
    config: dict[str, Any] = {}
    if log.planned_steps:
        config["steps"] = log.planned_steps
    key = next((k for k, m in plan.columns.items() if m.column == "learning_rate"), None)
    found = [real(row.get(key)) for row in log.rows.values()] if key else []
    rates = [rate for rate in found if rate is not None and 0 < rate <= 10]
    return config | ({"learning_rate": max(rates)} if rates else {})


def _other_rate(logged: Mapping[str, Any], config: Mapping[str, Any]) -> list[str]:
    """Say that the rate that was told or configured is not the largest that was logged."""
    told, found = config.get("learning_rate"), logged.get("learning_rate")
    if told is None or found is None or math.isclose(told, found, rel_tol=ROUNDING):
        return []
    return [f"learning_rate {told:g} holds, as told or configured; the largest logged is {found:g}"]


def _doubts(
    log: Log, stack: Stack | None, config: Mapping[str, Any], told: Mapping[str, Any]
) -> list[str]:
    """Say what must be known to make use of the run and is not in the log."""
    notes = []
    if stack is None:
        notes.append("the stack is not known: names of Etalon's own are taken, no drift; --stack")
    elif "updates_per_batch" in stack.companions and "updates_per_batch" not in told:
        words = stack.companions["updates_per_batch"].words
        notes.append(f"ages assume one of the {words}; else --set updates_per_batch=…")
    for name in ("learning_rate", "max_staleness", "steps"):
        if name not in config:
            notes.append(f"{name} is not in the log; tell it with --set {name}=…")
    if stack and stack.name == "trl" and (log.window or 1) > 1:
        notes.append(f"each row averages {log.window} learner steps")
    if not log.times:
        notes.append("the log holds no times; the time of the file stands in")
    return notes
