"""Lay runs side by side: what differs, how each ended, their curves along one axis. Pure."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from storage.records import Event, RunInfo, RunStatus

from .glossary import GLOSSARY
from .wording import MISSING, number

OUTCOME_FIELDS = (
    "status",
    "outcome",
    "collapse_step",
    "slide_step",
    "reward_first",
    "reward_best",
    "reward_last",
    "reward_final",
)
NOT_COMPARED = {"name", "group"}
ALIGNMENTS = {
    "step": "learner step",
    "version": "learner step whose weights sampled",
    "time": "seconds since the first learner step",
    "rate": "Σ η, the learning rate used so far",
    "exposure": "S · Σ η, staleness times the learning rate used so far",
    "drift": "displacement ‖θ − θ₀‖ (parameter units)",
}
NOT_JUDGED = "not judged"


# -- which runs -------------------------------------------------------------------------------


def regime_word(run: RunInfo, newest: Event | None) -> str:
    """Return the regime by which a run is filtered: its verdict, else what was last seen live.

    ``newest`` is the newest event of a regime change; without one a run is "not judged".
    """
    if run.outcome in ("collapsed", "diverged"):
        return str(run.outcome)
    if newest is not None:
        return str(newest.data.get("regime", NOT_JUDGED)).replace("_", " ")
    if run.status is RunStatus.FINISHED and run.outcome is not None:
        return str(run.outcome)
    return NOT_JUDGED


def matching(
    runs: Sequence[RunInfo],
    wanted: Mapping[str, Sequence[Any]],
    facts: Mapping[str, Callable[[RunInfo], Sequence[Any]]],
) -> list[RunInfo]:
    """Return the runs that have one of the wanted values of every fact; nothing wanted: any.

    ``facts`` maps the name of a fact to a function of a run that returns all of its values.
    """
    return [
        run
        for run in runs
        if all(not values or set(values) & set(facts[name](run)) for name, values in wanted.items())
    ]


# -- tables -----------------------------------------------------------------------------------


def differing_configuration(runs: Sequence[RunInfo]) -> list[dict[str, Any]]:
    """Return one row per setting that is not the same in all runs, with one column per run.

    A setting that a run does not have is shown as missing, which also counts as a difference.
    """
    names = {name: None for run in runs for name in run.config if name not in NOT_COMPARED}
    rows = []
    for name in names:
        values = [run.config.get(name, MISSING) for run in runs]
        if any(value != values[0] for value in values[1:]):
            shown = {run.id: _setting(v) for run, v in zip(runs, values, strict=True)}
            rows.append({"setting": name.replace("_", " "), **shown})
    return rows


def _setting(value: Any) -> str:
    return "default" if value is None else number(value, ".10g")


def outcome_rows(runs: Sequence[RunInfo]) -> list[dict[str, Any]]:
    """Return one row per outcome field with one column per run; missing values say so."""
    return [
        {
            "outcome": name.replace("_", " "),
            **{run.id: number(getattr(run, name), ".4g") for run in runs},
        }
        for name in OUTCOME_FIELDS
    ]


def by_run(rows: Sequence[Mapping[str, Any]], key: str, labels: Mapping[str, str]) -> list[Any]:
    """Turn rows per ``key`` with a column per run into rows per run with a column per key."""
    return [
        {"run": label, **{str(row[key]): row[run_id] for row in rows}}
        for run_id, label in labels.items()
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """A metric of one run in three numbers; None where it was not measured.

    ``best`` is by the direction that the glossary calls good, None where neither is.
    ``at_collapse`` is the value at the onset of a collapse.
    """

    best: float | None
    last: float | None
    at_collapse: float | None


def summary(series: Mapping[str, Sequence[Any]], name: str, collapse_step: int | None) -> Summary:
    """Return best, last and at-collapse value of a metric; a non-finite last value stays one."""
    known = [
        (step, value)
        for step, value in zip(series["step"], series[name], strict=True)
        if value is not None
    ]
    finite = [value for _, value in known if math.isfinite(value)]
    bad = GLOSSARY[name].bad if name in GLOSSARY else None
    best = None
    if finite and bad is not None:
        best = max(finite) if bad == "low" else min(finite)
    at = None
    if collapse_step is not None:
        at = next((value for step, value in known if step >= collapse_step), None)
    return Summary(best=best, last=known[-1][1] if known else None, at_collapse=at)


def summary_rows(
    summaries: Mapping[str, Summary], baseline: str | None
) -> list[dict[str, str | None]]:
    """Return one row per run, and beside each number what it differs by from the baseline run."""
    pinned = summaries.get(baseline) if baseline is not None else None
    rows = []
    for label, found in summaries.items():
        row: dict[str, str | None] = {"run": label}
        for name in ("best", "last", "at_collapse"):
            value = getattr(found, name)
            row[name.replace("_", " ")] = number(value, ".4g")
            if pinned is not None:
                row[f"Δ {name.replace('_', ' ')}"] = _difference(value, getattr(pinned, name))
        rows.append(row)
    return rows


def _difference(value: float | None, pinned: float | None) -> str:
    if value is None or pinned is None or not math.isfinite(value) or not math.isfinite(pinned):
        return MISSING
    return f"{value - pinned:+.3g}"


# -- curves -----------------------------------------------------------------------------------


def curve(
    series: Mapping[str, Sequence[Any]], name: str, align: str, max_staleness: int | None = None
) -> tuple[list[float | None], list[float | None]]:
    """Return x and y of one metric of one run; ``align`` is a key of ``ALIGNMENTS``.

    A place that is not known, such as the exposure of a run whose S is not, is None. Where the
    series is of some learner steps only, it brings its ``learning_rate_sum``.
    """
    y = list(series[name])
    if align == "version":
        return list(series["sampled_at_step"]), y
    if align == "time":
        return _since_first(series["time"]), y
    if align == "drift":
        return list(series["displacement"]), y
    if align in ("rate", "exposure"):
        used = _cumulative(series["learning_rate"])
        if "learning_rate_sum" in series:
            used = list(series["learning_rate_sum"])
        if align == "rate":
            return used, y
        return [None if u is None or max_staleness is None else max_staleness * u for u in used], y
    return list(series["step"]), y


def _since_first(times: Sequence[float | None]) -> list[float | None]:
    first = next((time for time in times if time is not None), None)
    return [None if time is None or first is None else time - first for time in times]


def _cumulative(rates: Sequence[float | None]) -> list[float | None]:
    """Running sum; None from the first unknown rate on, because what follows is unknown too."""
    sums: list[float | None] = []
    total: float | None = 0.0
    for rate in rates:
        total = None if total is None or rate is None else total + rate
        sums.append(total)
    return sums
