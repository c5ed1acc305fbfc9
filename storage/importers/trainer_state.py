"""Read the ``trainer_state.json`` that TRL and transformers keep in every checkpoint.

Its ``log_history`` holds one row per logging, averaged over ``logging_steps`` learner steps.
"""

from collections import Counter
from itertools import pairwise
from typing import Any

from ..commandline import BadInput
from .logs import MOST_STEP, Log, Rows, decoded, shown, whole_step


def read_trainer_state(text: str, *, most_rows: int) -> Log:
    """Read the rows of the log history.

    Raises:
        BadInput: the text is no trainer state, entries have no step, or there are too many.
    """
    state = _state(text)
    history = state["log_history"]
    if len(history) > most_rows:
        raise BadInput(f"rows: {len(history)}; allowed: at most {most_rows}")
    rows = Rows()
    faults: list[str] = []
    for number, entry in enumerate(history, start=1):
        step = whole_step(entry.get("step")) if isinstance(entry, dict) else None
        if step is None:
            faults.append(
                f"log_history entry {number}: {str(entry)[:60]!r} has no step; allowed: an object "
                f"with a whole number step from 0 to {MOST_STEP}"
            )
            continue
        rows.add(step, {k: v for k, v in entry.items() if k != "step"})
    if faults:
        raise BadInput(*shown(faults))
    planned = whole_step(state.get("max_steps"))
    return Log(
        format="trainer_state",
        first=repr(sorted(history[0].items())) if history else "",
        rows=rows.ordered,
        keys=rows.keys,
        times={},
        window=_window(state.get("logging_steps"), list(rows.ordered)),
        notes=rows.notes,
        planned_steps=planned or None,
    )


def _state(text: str) -> dict[str, Any]:
    try:
        state = decoded(text.strip())
    except ValueError as error:
        raise BadInput(
            f"file: not JSON ({str(error)[:80]}); allowed: a whole trainer_state.json"
        ) from None
    if not isinstance(state, dict) or not isinstance(state.get("log_history"), list):
        raise BadInput("file: no log_history; allowed: the trainer_state.json of a checkpoint")
    return state


def _window(told: Any, steps: list[int]) -> int | None:
    """Return how many steps a row averages over: as told, else the commonest distance of rows."""
    if (window := whole_step(told)) is not None and window >= 1:
        return window
    distances = Counter(b - a for a, b in pairwise(steps))
    return distances.most_common(1)[0][0] if distances else None
