"""Runs of cells: on a grid of rates until their truth is known, and at rates that were advised."""

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence

from storage.records import RunInfo
from storage.store import Store

from ..truth import RateOutcome, grid_rate, largest_safe_index, next_rates, rate_outcome
from .cells import UNUSED_RATE, Cell
from .edges import rounded

FIRST = {
    ("arithmetic", "adamw"): 4,
    ("preference", "adamw"): -2,
    ("arithmetic", "sgd"): 12,
    ("preference", "sgd"): 8,
}
"""Grid index at which the search for the truth begins; it goes on from there by itself."""

Progress = Callable[[str, int, int], None]


def find_truth(
    store: Store,
    cells: Sequence[Cell],
    *,
    group: str,
    jobs: int | None,
    progress: Progress,
) -> dict[str, dict[int, RateOutcome]]:
    """Run the grid of every cell until its truth is known; return outcomes by cell and index."""
    from trainer.sweep import run_cells

    tried: dict[str, set[int]] = {cell.name: set() for cell in cells}
    found: dict[str, dict[int, RateOutcome]] = {cell.name: {} for cell in cells}
    while True:
        wanted = {c.name: next_rates(found[c.name], first_index(c)) for c in cells}
        if not any(wanted.values()):
            return found
        for name, indices in wanted.items():
            tried[name] |= set(indices)
        plan = [(c, i, s) for c in cells for i in sorted(tried[c.name]) for s in c.seeds]
        configs = [cell.config(grid_rate(index), seed) for cell, index, seed in plan]
        runs = run_cells(store, configs, group=group, jobs=jobs, progress=progress)
        for cell in cells:
            for index in tried[cell.name]:
                here = [
                    r for (c, i, _), r in zip(plan, runs, strict=True) if (c, i) == (cell, index)
                ]
                found[cell.name][index] = rate_outcome(_ended(here))


def first_index(cell: Cell) -> int:
    """Return where on the grid the search for a cell's truth begins."""
    config = cell.config(UNUSED_RATE, 0)
    return FIRST.get((config.workload, config.optimizer), 0)


def _ended(runs: Iterable[RunInfo]) -> list[RunInfo]:
    return [run for run in runs if run.outcome not in (None, "undetermined")]


def true_rate(found: Mapping[int, RateOutcome]) -> float | None:
    """Return the largest grid rate at and below which no seed is unsafe."""
    index = largest_safe_index(found)
    return None if index is None else grid_rate(index)


def runs_at(
    store: Store,
    wanted: Sequence[tuple[Cell, float]],
    seeds: Sequence[int],
    *,
    group: str,
    jobs: int | None,
    progress: Progress,
) -> list[RateOutcome]:
    """Run cells at given rates with fresh seeds; return the outcomes in order."""
    from trainer.sweep import run_cells

    configs = [cell.config(rounded(rate), seed) for cell, rate in wanted for seed in seeds]
    runs = run_cells(store, configs, group=group, jobs=jobs, progress=progress) if configs else []
    n = len(seeds)
    return [rate_outcome(_ended(runs[i * n : (i + 1) * n])) for i in range(len(wanted))]


def start_rewards(store: Store, group: str, cells: Sequence[Cell]) -> dict[str, float]:
    """Return the mean reward of θ_0 of every cell, gold where there is one."""
    runs = store.runs(group=group, archived=False)
    found = {}
    for cell in cells:
        mine = [run for run in runs if run_is_of(run, cell)]
        first = [e for run in mine for e in store.evaluations(run.id) if e.step == 0]
        found[cell.name] = statistics.fmean(e.reward if e.gold is None else e.gold for e in first)
    return found


def run_is_of(run: RunInfo, cell: Cell) -> bool:
    """Whether a run is of a cell, at whatever rate and seed."""
    own = cell.config(run.config["learning_rate"], run.config["seed"]).model_dump(mode="json")
    return {**run.config, "group": None} == own
