"""The columns of runs that pages draw, read once by this server and then only what is new."""

import math
import threading
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

from advisor.drawing import Outline
from storage.records import RunInfo
from storage.store import Store

Columns = dict[str, list[Any]]
Line = tuple[list[int], list[float]]

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
LONG = 10_000
"""Learner steps from which on a run is drawn from its outline."""
COMPARED_POINTS = 500

_kept: OrderedDict[tuple[str, str], Columns] = OrderedDict()
_outlined: OrderedDict[tuple[str, str], tuple[Any, dict[str, Line], dict[str, Line]]] = (
    OrderedDict()
)
_compared: OrderedDict[tuple[str, str, str], tuple[Any, Columns]] = OrderedDict()
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


def compared_columns(store: Store, run: RunInfo, name: str) -> Columns:
    """Return the watched columns of a run for one of its metrics.

    Of a long run only at some learner steps: those of the metric's outline, which holds its
    extremes, the first, the newest, and the onset of a collapse. ``learning_rate_sum`` then holds
    Σ η up to each, since the rates between them are not there to add up.
    """
    newest = store.last_step(run.id)
    if newest is None or newest < LONG:
        return columns_of(store, run.id)
    key = store.url, run.id, name
    row = store.series(run.id, WATCHED, after=newest - 1)
    state = newest, run.collapse_step, repr(row)
    with _lock:
        kept = _compared.get(key)
    if kept is None or kept[0] != state:  # read without the lock, for which live charts wait
        outline = store.overview(run.id, [name], points=COMPARED_POINTS)[name][0]
        at = {0, *outline, newest, run.collapse_step or newest}
        columns = store.series_at(run.id, WATCHED, at)
        columns["learning_rate_sum"] = store.sums_at(run.id, "learning_rate", columns["step"])
        kept = state, columns
    with _lock:
        _compared[key] = kept
        _compared.move_to_end(key)
        while len(_compared) > RUNS_KEPT:
            _compared.popitem(last=False)
    return kept[1]


def _newer(store: Store, run_id: str, columns: Columns) -> Columns | None:
    if not columns["step"]:
        return None
    last = columns["step"][-1]
    found = store.series(run_id, WATCHED, after=last - 1)
    if found["step"][:1] != [last]:
        return None
    newest = [repr(columns[name][-1]) for name in WATCHED]  # of which NaN equals itself
    return found if [repr(found[name][0]) for name in WATCHED] == newest else None


def outlines_of(store: Store, run_id: str) -> dict[str, Outline]:
    """Return the watched columns of a long run in outline: blocks, then its newest steps.

    The blocks are read again only when one more is whole, or their last step is another.
    """
    names = [name for name in WATCHED if name not in ("step", "time", "sampled_at_step")]
    beyond = store.first_step_beyond_blocks(run_id)
    tail = store.series(run_id, ["step", *names], after=beyond - 2)
    first = 1 if tail["step"][:1] == [beyond - 1] else 0
    state = beyond, [repr(tail[name][:first]) for name in names]  # of which NaN equals itself
    with _lock:
        kept = _outlined.get((store.url, run_id))
    if kept is None or kept[0] != state:
        extremes = store.overview(run_id, names, last=max(0, beyond - 1))
        kept = state, extremes, store.block_means(run_id, names, before=beyond)
        with _lock:
            _outlined[store.url, run_id] = kept
            while len(_outlined) > RUNS_KEPT:
                _outlined.popitem(last=False)
    _, extremes, means = kept
    newest = {name: values[first:] for name, values in tail.items()}
    return {name: _outline(extremes[name], means[name], newest, name) for name in names}


def _outline(
    extremes: tuple[list[int], list[float]],
    block_means: tuple[list[int], list[float]],
    newest: Mapping[str, list[Any]],
    name: str,
) -> Outline:
    measured = [(s, v) for s, v in zip(newest["step"], newest[name], strict=True) if v is not None]
    x, y = [step for step, _ in measured], [value for _, value in measured]
    finite = [value for value in y if math.isfinite(value)]
    mean_x, mean_y = block_means
    if finite:
        mean_x, mean_y = [*mean_x, x[len(x) // 2]], [*mean_y, sum(finite) / len(finite)]
    return Outline(x=[*extremes[0], *x], y=[*extremes[1], *y], mean_x=mean_x, mean_y=mean_y)


def drawn_part(
    store: Store, run_id: str, last: int | None, until: int | None = None
) -> tuple[Columns, dict[str, Outline] | None]:
    """Return what to draw of a run over its last steps (None: all): columns, or outlines.

    With ``until`` they are the last up to and with that learner step.
    """
    newest = store.last_step(run_id)
    if newest is None or newest < LONG:
        return window_of(columns_of(store, run_id), last, until), None
    if last is not None:
        end = newest if until is None else min(newest, until)
        return store.series(run_id, WATCHED, after=end - last, until=end), None
    return {name: [] for name in WATCHED}, outlines_of(store, run_id)


def window_of(
    columns: Mapping[str, list[Any]], last: int | None, until: int | None = None
) -> Columns:
    """Return the columns over the last ``last`` learner steps (None: all) up to and with one."""
    if last is None or not columns["step"]:
        return dict(columns)
    end = columns["step"][-1] if until is None else min(columns["step"][-1], until)
    within = slice(bisect_right(columns["step"], end - last), bisect_right(columns["step"], end))
    return {name: values[within] for name, values in columns.items()}
