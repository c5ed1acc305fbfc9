"""What every reader makes of a log: its rows by step, as the file has them, and when they were."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

MOST_STEP = 2**31 - 1
_CONSTANTS = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
_FAULTS_SHOWN = 5
_STEPS_SHOWN = 8

MOST_DEPTH = 50
"""Levels of lists and objects in a row, far fewer than what writes them again can bear."""
_EXACT = 15
"""Digits of which a whole number surely has a floating-point one of the same value."""

_HALF_A_CHARACTER = re.compile(r"\\u[dD][89a-fA-F]")


class TooDeep(ValueError):
    """JSON that is nested deeper than ``MOST_DEPTH``."""

    def __init__(self) -> None:
        super().__init__(f"nested deeper than {MOST_DEPTH} levels")


def _whole(digits: str) -> int | float:
    """Return a whole number; one that no floating point reaches is infinite, as 1e400 is."""
    if len(digits) <= _EXACT:
        return int(digits)
    near = float(digits)
    return int(digits) if math.isfinite(near) else near


_decoder = json.JSONDecoder(parse_constant=_CONSTANTS.__getitem__, parse_int=_whole)


def decoded(text: str) -> Any:
    """Read JSON as trainers write it: with the words NaN and Infinity, which strict JSON lacks.

    Half of a surrogate pair, which JSON can say and neither a database nor a page can hold, becomes
    the sign for an unknown character.

    Raises:
        TooDeep: it has more than ``MOST_DEPTH`` levels.
        ValueError: it is no JSON.
    """
    try:
        found = _decoder.decode(text)
    except RecursionError:
        raise TooDeep from None
    if text.count("{") + text.count("[") > MOST_DEPTH and _depth(found) > MOST_DEPTH:
        raise TooDeep
    escaped = "\\u" in text and _HALF_A_CHARACTER.search(text)
    return _whole_characters(found) if escaped else found


def _depth(value: Any) -> int:
    """Return how many levels of lists and objects there are, at most one more than are allowed."""
    level, depth = [value], 0
    while depth <= MOST_DEPTH:
        level = [each for each in level if isinstance(each, dict | list)]
        if not level:
            break
        depth += 1
        level = [
            inner for each in level for inner in (each.values() if isinstance(each, dict) else each)
        ]
    return depth


def _whole_characters(value: Any) -> Any:
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole_characters(each) for each in value]
    if isinstance(value, dict):
        return {_whole_characters(k): _whole_characters(each) for k, each in value.items()}
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """A log as read: ``rows`` by step, ascending, several rows of one step merged.

    ``first`` is the first row as text, by which the same log is known again when it has grown.
    ``times`` holds the seconds since 1970 of the rows that have them, ``window`` the number of
    steps that a row averages over (None when unknown), ``planned_steps`` the horizon, ``keys`` all
    keys in the order in which they appear, ``name`` what the log calls its run, ``settings`` what
    it holds of its configuration, in the stack's own names.
    """

    format: str
    first: str
    rows: Mapping[int, Mapping[str, Any]]
    keys: tuple[str, ...]
    times: Mapping[int, float]
    window: int | None = None
    name: str | None = None
    planned_steps: int | None = None
    notes: tuple[str, ...] = ()
    settings: Mapping[str, Any] = field(default_factory=dict)


class Rows:
    """Rows by step as they are read; of several values of one step and key the last one holds."""

    def __init__(self) -> None:
        self._by_step: dict[int, dict[str, Any]] = {}
        self._keys: dict[str, str] = {}  # one string of each: a reader makes its own in every row
        self._changed: dict[int, None] = {}

    def __len__(self) -> int:
        return len(self._by_step)

    def add(self, step: int, values: Mapping[str, Any]) -> None:
        """Join a row, or a part of one, to what there is of its step."""
        there = self._by_step.get(step)
        shared = self._keys.setdefault
        if there is None:
            self._by_step[step] = {shared(key, key): value for key, value in values.items()}
            return
        for key, value in values.items():
            if key in there and not _same(there[key], value):
                self._changed[step] = None
            there[shared(key, key)] = value

    @property
    def ordered(self) -> dict[int, dict[str, Any]]:
        """The rows in the order of their steps."""
        return {step: self._by_step[step] for step in sorted(self._by_step)}

    @property
    def keys(self) -> tuple[str, ...]:
        """All keys in the order in which they appear."""
        return tuple(self._keys)

    @property
    def notes(self) -> tuple[str, ...]:
        """Which steps were logged with other values before."""
        if not self._changed:
            return ()
        steps = sorted(self._changed)
        listed = ", ".join(map(str, steps[:_STEPS_SHOWN])) + (" …" * (len(steps) > _STEPS_SHOWN))
        return (f"{len(steps)} steps have several values of a key, the last is kept: {listed}",)


def _same(one: Any, other: Any) -> bool:
    both_nan = one != one and other != other  # noqa: PLR0124  # NaN alone is not itself
    return bool(one == other) or both_nan


def merged(logs: Sequence[Log]) -> Log:
    """Return the logs of one run as one; the first is what the run is known by."""
    if len(logs) == 1:
        return logs[0]
    rows = Rows()
    times: dict[int, float] = {}
    settings: dict[str, Any] = {}
    for log in logs:
        for step, row in log.rows.items():
            rows.add(step, row)
        times |= log.times
        settings |= log.settings
    notes = tuple(dict.fromkeys([*(note for log in logs for note in log.notes), *rows.notes]))
    return replace(
        logs[0], rows=rows.ordered, keys=rows.keys, times=times, notes=notes, settings=settings
    )


def whole_step(value: Any) -> int | None:
    """Return a step number, or None when this is none: a whole number from 0 to 2³¹ − 1."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if 0 <= value <= MOST_STEP and value == int(value) else None


def real(value: Any) -> float | None:
    """Return a number as floating point, or None when this is none, as a truth value is."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return float(value)
    except OverflowError:  # a whole number has no bound
        return math.inf if value > 0 else -math.inf


def moment(value: Any) -> float | None:
    """Return seconds since 1970, or None when this number is no such time."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return float(value) if is_number and 1e8 < value < 1e11 else None


def shown(faults: list[str]) -> list[str]:
    """Return the first few faults, and how many more there are."""
    more = len(faults) - _FAULTS_SHOWN
    return faults[:_FAULTS_SHOWN] + ([f"… and {more} more lines like these"] if more > 0 else [])
