"""Lay runs side by side: the configuration that differs, and how each ended. Pure."""

from collections.abc import Mapping, Sequence
from typing import Any

from storage.records import RunInfo

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


def curve(
    series: Mapping[str, Sequence[Any]], name: str, align: str
) -> tuple[list[float | None], list[float | None]]:
    """Return x and y of one metric of one run.

    ``align`` is ``step``, ``version`` (the step whose weights sampled the batch: a reward belongs
    to it) or ``rate`` (Σ η, the cumulative learning rate).
    """
    y = list(series[name])
    if align == "version":
        return list(series["sampled_at_step"]), y
    if align == "rate":
        return _cumulative(series["learning_rate"]), y
    return list(series["step"]), y


def _cumulative(rates: Sequence[float | None]) -> list[float | None]:
    """Running sum; None from the first unknown rate on, because what follows is unknown too."""
    sums: list[float | None] = []
    total: float | None = 0.0
    for rate in rates:
        total = None if total is None or rate is None else total + rate
        sums.append(total)
    return sums
