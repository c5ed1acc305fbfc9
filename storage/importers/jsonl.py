"""Read logs of one JSON object per line.

verl's file logger writes ``{"step": n, "data": {…}}``; prime-rl and tinker write flat rows with a
``step``, several partial ones per step. What a later row says of the same step and key holds.
"""

from typing import Any

from ..commandline import BadInput
from .logs import MOST_STEP, Log, decoded, moment, ordered, shown, whole_step

STEP_KEYS = ("step", "train/global_step", "global_step", "progress/batch")
TIME_KEYS = ("time", "timestamp", "_timestamp")


def read_jsonl(text: str, *, most_rows: int) -> Log:
    """Read the rows of a log.

    A last line without its end that is no JSON is still being written, and is left for later.

    Raises:
        BadInput: lines that are no row, each by its number, or more rows than allowed.
    """
    rows: dict[int, dict[str, Any]] = {}
    times: dict[int, float] = {}
    faults: list[str] = []
    notes: tuple[str, ...] = ()
    first, count = "", 0
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        count += 1
        if count > most_rows:
            raise BadInput(f"rows: more than {most_rows}; allowed: at most {most_rows}")
        row = _row(line)
        if isinstance(row, str):
            if number == len(lines) and row.endswith("not JSON"):
                notes = ("the last line is not finished and is left for the next import",)
            else:
                faults.append(f"line {number}: {row}; allowed: one JSON object with a step")
            continue
        step, values, time = row
        first = first or line.strip()
        rows.setdefault(step, {}).update(values)
        if time is not None:
            times[step] = time
    if faults:
        raise BadInput(*shown(faults))
    by_step, keys = ordered(rows)
    return Log(format="jsonl", first=first, rows=by_step, keys=keys, times=times, notes=notes)


def _row(line: str) -> tuple[int, dict[str, Any], float | None] | str:
    """Return step, values and time of a line, or what is wrong with it."""
    try:
        found = decoded(line.strip())
    except (ValueError, RecursionError):
        return f"{line.strip()[:60]!r} is not JSON"
    if not isinstance(found, dict):
        return f"{line.strip()[:60]!r} is no object"
    key = next((key for key in STEP_KEYS if key in found), None)
    if key is None:
        return f"no step among its keys {', '.join(list(found)[:5]) or '(none)'}"
    step = whole_step(found[key])
    if step is None:
        return f"{key} {found[key]!r:.40} is not a whole number from 0 to {MOST_STEP}"
    inside = found.get("data")
    values = dict(inside) if isinstance(inside, dict) else dict(found)
    if values.get(key) == found[key] and key != "progress/batch":
        del values[key]
    time = None
    for name in TIME_KEYS:
        if time is None and (time := moment(found.get(name))) is not None:
            values.pop(name, None)
    return step, values, time
