"""The charts of one run, for the page that shows them first and the feed that keeps them going."""

import math

from advisor.clip_bias import clip_bias_figure
from advisor.dashboard.archive import shared_store, status_of
from advisor.dashboard.curves import drawn_part
from advisor.drawing import Figure
from advisor.figures import run_figures
from advisor.overview import cycle_of
from storage.records import RunInfo
from storage.store import Store

BIAS_PROBES = 200
WINDOWS = {"all steps": None, "last 5000": 5000, "last 1000": 1000, "last 200": 200}
"""What a reader may choose to see of a run, in learner steps."""


def run_charts(
    store: Store, run: RunInfo, window: str, until: int | None = None
) -> dict[str, Figure]:
    """Return the charts of a run by name over a window, in the order in which Watch shows them.

    A window that is not known is all steps; one that is ends at the learner step ``until``, or at
    the newest.
    """
    columns, outlines = drawn_part(store, run.id, WINDOWS.get(window), until)
    first, beyond = 0, math.inf
    if columns["step"]:
        first, beyond = columns["step"][0], columns["step"][-1] + 1
    evaluations = [
        (each.step, each.reward if each.gold is None else each.gold)
        for each in store.evaluations(run.id)
        if first <= each.step <= beyond  # the last weights are evaluated after the last step
    ]
    charts = run_figures(
        columns,
        evaluations,
        run.collapse_step,
        unmeasured=run.unmeasured,
        cycle=cycle_of(run),
        outlines=outlines,
    )
    if "clip_fraction_high" not in run.unmeasured:
        charts["clip_bias"] = clip_bias_figure(store.bias_probes(run.id, last=BIAS_PROBES))
    return charts


def drawn_now(run_id: str, window: str) -> tuple[dict[str, Figure], bool]:
    """Return the charts of a run as they are now, and whether more may come.

    Raises:
        StorageError: the archive does not answer, or the run is gone.
    """
    store = shared_store()
    run = store.run(run_id)
    return run_charts(store, run, window), status_of(run).alive
