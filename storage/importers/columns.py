"""From the keys of a log to the columns of a step, and what could not become one."""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from ..records import METRIC_NAMES, StepMetrics
from .keys import metric_of
from .logs import MOST_STEP, Log, real
from .metric_names import DRIFT_COLUMNS, METRICS, Metric
from .stacks import STACKS

_WHOLE = {f.name for f in fields(StepMetrics) if f.type == int | None}
BYPASSED = {"actor/ppo_kl": "approx_kl", "train/ppo_kl": "approx_kl"}
"""k1 estimates mean(old − new) of the same KL(φ‖θ), where old is the behavior policy."""
MOST_TOKENS = 2**53
MICRO_BATCHES = "batch/microbatches_per_step"
BATCH = ("training_client/step", "progress/batch")
"""How tinker-cookbook counts its batches: when sampling runs ahead, and when it does not."""
_ONE_AGENT = re.compile(r"effective/[^/]+/reward/mean")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is done with each key of a log.

    ``columns`` are the keys that become a column, ``references`` the policy against which a key
    is measured, ``unknown`` the keys of which the stack's table knows nothing.
    """

    columns: Mapping[str, Metric]
    references: Mapping[str, str]
    unknown: tuple[str, ...]
    updates_per_version: float
    notes: tuple[str, ...] = ()
    reasons: Mapping[str, str] = field(default_factory=dict)


def plan_of(
    log: Log, stack: str | None, updates_per_version: float, *, bypass_mode: bool = False
) -> Plan:
    """Decide about every key of a log; ``stack`` None takes names of the glossary alone.

    A drift column is filled by nothing that is not measured from the behavior policy.
    ``bypass_mode`` says that the stack took the behavior policy for the proximal one.
    """
    keys = log.keys
    columns: dict[str, Metric] = {}
    references: dict[str, str] = {}
    unknown: list[str] = []
    notes: list[str] = []
    with_engine = stack == "trl" and any("sampling/" in key for key in keys)
    agents = [key for key in keys if stack == "prime_rl" and _ONE_AGENT.fullmatch(key)]
    for key in keys:
        metric = metric_of(stack, key)
        if stack is None and key in METRIC_NAMES and key not in DRIFT_COLUMNS:
            metric = Metric(column=key)
        if agents == [key]:
            metric = Metric(column="reward_mean")
        if metric is None:
            unknown.append(key)
            continue
        if with_engine and "clip_ratio/" in key:
            metric = Metric(reference="proximal")
        if bypass_mode and metric.reference == "proximal":
            metric = Metric(column=BYPASSED.get(key), reference="behavior")
        if metric.reference:
            references[key] = metric.reference
        if metric.column and metric.column not in {m.column for m in columns.values()}:
            columns[key] = metric
    if with_engine:
        notes.append("vLLM samples here, so clip_ratio is against the proximal policy: kept aside")
    drifts = [key for key in unknown if key in DRIFT_COLUMNS]
    if stack is None and drifts:
        notes.append(f"{', '.join(drifts)}: against which policy is not known; give --stack")
    return Plan(
        columns=columns,
        references=references,
        unknown=tuple(unknown),
        updates_per_version=updates_per_version,
        notes=tuple(notes),
        reasons=_reasons(stack, {m.column for m in columns.values() if m.column}, with_engine),
    )


def _reasons(stack: str | None, filled: set[str], with_engine: bool) -> dict[str, str]:
    """Say of every column that the log never fills why it is empty."""
    title = STACKS[stack].title if stack else "a log of an unknown stack"
    known = {m.column: key for key, m in METRICS[stack].items() if m.column} if stack else {}
    reasons = {}
    for name in METRIC_NAMES:
        if name in filled:
            continue
        if with_engine and name.startswith("clip_fraction"):
            reasons[name] = "with vLLM the clip ratio is against the proximal policy"
        elif name in known:
            reasons[name] = f"the log does not hold {known[name]}"
        elif name in DRIFT_COLUMNS and stack:
            reasons[name] = f"{title} logs no such drift from the behavior policy"
        else:
            reasons[name] = f"{title} does not log it"
    return reasons


def step_rows(log: Log, plan: Plan, run_id: str, time: float) -> Iterator[dict[str, Any]]:
    """Yield the steps of a run as ``StepMetrics`` takes them, each with what it has alone.

    Args:
        log: the log.
        plan: what is done with its keys.
        run_id: the run.
        time: seconds since 1970, which stand in where the log has none.
    """
    plain = {
        key: str(metric.column)
        for key, metric in plan.columns.items()
        if metric.shape == "as_is" and metric.column not in _WHOLE
    }
    for step, values in log.rows.items():
        row: dict[str, Any] = {"run_id": run_id, "step": step, "time": log.times.get(step, time)}
        extra: dict[str, Any] = {}
        for key, value in values.items():
            if type(value) is float and key in plain:  # nearly all of them
                row[plain[key]] = value
                continue
            metric = plan.columns.get(key)
            number = None if metric is None else _number(metric, value, values, plan)
            if metric is None or number is None:
                if value is not None:
                    extra[key] = value
            else:
                row[str(metric.column)] = number
        row["extra"] = extra
        yield row


def _number(metric: Metric, value: Any, row: Mapping[str, Any], plan: Plan) -> float | int | None:
    """Return a column's value; None when this is no number that the column takes."""
    number = real(value)
    if number is None or metric.column is None:
        return None
    if metric.column in _WHOLE:
        most = MOST_TOKENS if metric.column == "tokens" else MOST_STEP
        return int(number) if number.is_integer() and abs(number) <= most else None
    if metric.shape == "half_square":
        return None if number < 0 else math.sqrt(2 * number)
    if metric.shape == "as_is":
        return number
    return _learner_steps(metric, number, row, plan.updates_per_version)


def _learner_steps(
    metric: Metric, age: float, row: Mapping[str, Any], updates: float
) -> float | None:
    """Turn an age in versions of n updates into learner steps, over the n updates of its batch.

    A negative one is none. Counted ahead, it is of micro-batches of which each is learned from
    after the one before it.
    """
    if metric.shape == "behind_batch":
        batch = next((real(row[key]) for key in BATCH if key in row), None)
        if batch is None:
            return None
        age = batch - age
    if age < 0:
        return None
    oldest = metric.column == "staleness_max"
    waits = 0.0
    if metric.shape == "versions_ahead":
        waits = 1.0 if oldest else 1 / max(1.0, real(row.get(MICRO_BATCHES)) or 1.0)
    return waits + ((age + 1) * updates - 1 if oldest else age * updates + (updates - 1) / 2)
