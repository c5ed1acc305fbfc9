"""Read logs of one JSON object per line.

verl's file logger writes ``{"step": n, "data": {…}}``; prime-rl and tinker write flat rows with a
``step``, several partial ones per step. What a later row says of the same step and key holds.
"""

from collections.abc import Iterator
from typing import Any

from ..commandline import BadInput
from .logs import MOST_STEP, Log, Rows, TooDeep, decoded, moment, shown, whole_step

STEP_KEYS = ("step", "train/global_step", "global_step", "progress/batch")
TIME_KEYS = ("time", "timestamp", "_timestamp")
SUMMARIES = ("tokens/", "cost/")
"""Totals that tinker-cookbook writes as a row without a step."""


def read_jsonl(text: str, *, most_rows: int) -> Log:
    """Read the rows of a log.

    A last line without its end that is no JSON is still being written, and is left for later.

    Raises:
        BadInput: lines that are no row, each by its number, or more rows than allowed.
    """
    rows = Rows()
    times: dict[int, float] = {}
    faults: list[str] = []
    notes: list[str] = []
    first, count, summaries = "", 0, 0
    for number, (line, is_last) in enumerate(_lines(text), start=1):
        if not line or line.isspace():
            continue
        count += 1
        if count > most_rows:
            raise BadInput(f"rows: more than {most_rows}; allowed: at most {most_rows}")
        row = _row(line)
        if row is None:
            summaries += 1
            continue
        if isinstance(row, str):
            if is_last and row.endswith("not JSON"):
                notes = ["the last line is not finished and is left for the next import"]
            else:
                faults.append(f"line {number}: {row}; allowed: one JSON object with a step")
            continue
        step, values, time = row
        first = first or line.strip()
        rows.add(step, values)
        if time is not None:
            times[step] = time
    if faults:
        raise BadInput(*shown(faults))
    if summaries:
        notes.append(f"{summaries} rows sum up tokens or cost and belong to no step: left out")
    return Log(
        format="jsonl",
        first=first,
        rows=rows.ordered,
        keys=rows.keys,
        times=times,
        notes=(*notes, *rows.notes),
    )


def _lines(text: str) -> Iterator[tuple[str, bool]]:
    """Yield lines, and whether it is the last; a list of them would double the memory."""
    begin, end = 0, text.find("\n")
    while end >= 0:
        yield text[begin:end], False
        begin, end = end + 1, text.find("\n", end + 1)
    yield text[begin:], True


def _row(line: str) -> tuple[int, dict[str, Any], float | None] | str | None:
    """Return step, values and time of a line, or what is wrong with it; None of a summary."""
    try:
        found = decoded(line.strip())
    except ValueError as error:
        fault = error if isinstance(error, TooDeep) else "not JSON"
        return f"{line.strip()[:60]!r} is {fault}"
    if not isinstance(found, dict):
        return f"{line.strip()[:60]!r} is no object"
    key = next((key for key in STEP_KEYS if key in found), None)
    if key is None:
        if found and all(each.startswith(SUMMARIES) for each in found):
            return None
        return f"no step among its keys {', '.join(list(found)[:5]) or '(none)'}"
    step = whole_step(found[key])
    if step is None:
        return f"{key} {found[key]!r:.40} is not a whole number from 0 to {MOST_STEP}"
    inside = found.get("data")
    values = inside if isinstance(inside, dict) else found
    if key != "progress/batch" and values.get(key) == step:
        del values[key]
    time = None
    for name in TIME_KEYS:
        if name in found and (time := moment(found[name])) is not None:
            values.pop(name, None)
            break
    return step, values, time
