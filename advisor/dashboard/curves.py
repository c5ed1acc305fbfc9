"""The columns of runs that pages draw, read once by this server and then only what is new."""

import threading
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from storage.store import Store

Columns = dict[str, list[Any]]

WATCHED = (
    "step",
    "time",
    "sampled_at_step",
    "reward_mean",
    "gold_reward_mean",
    "learning_rate",
    "staleness_max",
    "cycle_drift",
    "displacement",
    "approx_kl",
    "kl_to_start",
    "clip_fraction_low",
    "clip_fraction_high",
    "ess_fraction",
    "sequence_ess_fraction",
    "entropy",
    "grad_norm",
    "gradient_cosine",
)
"""The columns that Watch and Compare draw."""
RUNS_KEPT = 32

_kept: OrderedDict[tuple[str, str], Columns] = OrderedDict()
_lock = threading.Lock()


def columns_of(store: Store, run_id: str) -> Columns:
    """Return the watched columns of a run, reading only the steps that are new.

    The newest known row is read again: when it is another one, the run was taken back to a
    checkpoint or imported anew since, and all of it is read.
    """
    key = store.url, run_id
    with _lock:
        columns = _kept.get(key)
        found = _newer(store, run_id, columns) if columns else None
        if columns is None or found is None:
            columns = store.series(run_id, WATCHED)
        else:
            columns = {name: [*columns[name], *found[name][1:]] for name in WATCHED}
        _kept[key] = columns
        _kept.move_to_end(key)
        while len(_kept) > RUNS_KEPT:
            _kept.popitem(last=False)
    return columns


def _newer(store: Store, run_id: str, columns: Columns) -> Columns | None:
    if not columns["step"]:
        return None
    last = columns["step"][-1]
    found = store.series(run_id, WATCHED, after=last - 1)
    if found["step"][:1] != [last]:
        return None
    newest = [repr(columns[name][-1]) for name in WATCHED]  # of which NaN equals itself
    return found if [repr(found[name][0]) for name in WATCHED] == newest else None


def window_of(columns: Mapping[str, list[Any]], last: int | None) -> Columns:
    """Return the columns over the last ``last`` learner steps; None: over all of them."""
    if last is None or not columns["step"]:
        return dict(columns)
    first = columns["step"][-1] - last
    start = next(i for i, step in enumerate(columns["step"]) if step > first)
    return {name: values[start:] for name, values in columns.items()}
