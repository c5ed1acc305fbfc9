"""Whether the advice is true: cells, their truth, independent probes, and runs at what was advised.

Everything is an ordinary run of the archive, so a validation that is interrupted goes on where it
was. Which cells are for tuning and which are never looked at stands in the cells file.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from storage.commandline import BadInput
from storage.engine import home
from storage.records import RunInfo
from storage.store import Store
from trainer.config import TrainerConfig, checked_config

from ..calibrated import advise
from ..measured import Measured, measured
from ..recommendation import Advice, Question
from ..safe_levels import SafeLevels, safe_levels
from ..truth import (
    RateOutcome,
    best_index,
    grid_rate,
    largest_safe_index,
    next_rates,
    rate_outcome,
)

CELLS = Path(__file__).parent.parent / "data" / "cells.json"
PROJECT = Path(__file__).resolve().parents[2]
TRUTH_SEEDS = (0, 1, 2)
PROBE_SEEDS = (100, 200)
RUN_SEEDS = (10, 11, 12)
BEST_SEEDS = (20, 21, 22)
RISKS = (0.02, 0.1, 0.3)
UNUSED_RATE = 1e-4
FIRST = {
    ("arithmetic", "adamw"): 4,
    ("preference", "adamw"): -2,
    ("arithmetic", "sgd"): 12,
    ("preference", "sgd"): 8,
}
"""Grid index at which the search for the truth begins; it goes on from there by itself."""
TUNING = "tuning"
SPLITS = (TUNING, "held out")

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One setting to be judged on, its learning rate left open."""

    name: str
    split: str
    setting: Mapping[str, Any]
    seeds: tuple[int, ...] = TRUTH_SEEDS

    def config(self, learning_rate: float, seed: int) -> TrainerConfig:
        """Return the run of this cell at a rate and a seed."""
        return checked_config({**self.setting, "learning_rate": learning_rate, "seed": seed})


def read_cells(path: Path | None = None) -> list[Cell]:
    """Read a JSON list of settings, each with a name if wanted, a split, and seeds.

    ``seeds`` is a count or a list; a cell without a split counts as held out.

    Raises:
        BadInput: the file cannot be read, or a cell is not allowed; one line per fault.
    """
    where = path or CELLS
    try:
        rows = json.loads(where.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"cells: {where} cannot be read: {error}; a JSON list is wanted") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadInput(
            f"cells: {where} holds no list of settings; a JSON list of objects is wanted"
        )
    cells, faults = [], []
    for number, row in enumerate(rows):
        name = str(row.get("name", f"cell-{number + 1}"))
        try:
            cells.append(_cell(name, dict(row)))
        except BadInput as error:
            faults += [f"cells: {name}: {line}" for line in str(error).splitlines()]
    names = [cell.name for cell in cells]
    faults += [f"cells: {n}: this name is there twice" for n in {*names} if names.count(n) > 1]
    if faults:
        raise BadInput(*faults)
    return cells


def _cell(name: str, row: dict[str, Any]) -> Cell:
    row.pop("name", None)
    split, seeds = row.pop("split", SPLITS[1]), row.pop("seeds", len(TRUTH_SEEDS))
    if split not in SPLITS:
        raise BadInput(f"split: {split!r} is not allowed; allowed: {' | '.join(SPLITS)}")
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 1 <= seeds <= 100:
        seeds = list(range(seeds))
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int for s in seeds):
        raise BadInput(f"seeds: {seeds!r} is not allowed; allowed: 1…100, or a list of seeds")
    for free in ("learning_rate", "seed"):
        if free in row:
            raise BadInput(f"{free}: {row[free]!r} is not allowed; it is what is searched for")
    if len(set(map(str, seeds))) < len(seeds):
        raise BadInput(f"seeds: {seeds!r} is not allowed; allowed: each seed once")
    cell = Cell(name=name, split=split, setting=row, seeds=tuple(seeds))
    for seed in seeds:
        cell.config(UNUSED_RATE, seed)
    return cell


# -- the truth --------------------------------------------------------------------------------


def _group(split: str) -> str:
    return f"validation-{split.replace(' ', '-')}"


def truth_group(split: str) -> str:
    """Return the group of the runs that find the truth of a split's cells."""
    return f"{_group(split)}-truth"


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
    config = cell.config(1e-4, 0)
    return FIRST.get((config.workload, config.optimizer), 0)


def _ended(runs: Iterable[RunInfo]) -> list[RunInfo]:
    return [run for run in runs if run.outcome not in (None, "undetermined")]


def true_rate(found: Mapping[int, RateOutcome]) -> float | None:
    """Return the largest grid rate at and below which no seed is unsafe."""
    index = largest_safe_index(found)
    return None if index is None else grid_rate(index)


# -- probes and what they advise --------------------------------------------------------------


class ProbeFailed(RuntimeError):
    """A probe of a cell gave no calibration; the message holds what it printed."""


def run_probes(
    store: Store,
    cells: Sequence[Cell],
    *,
    jobs: int,
    progress: Progress,
    seeds: Sequence[int] = PROBE_SEEDS,
) -> dict[tuple[str, int], Measured]:
    """Probe every cell with every seed, each in a process of its own; those there are kept.

    Raises:
        ProbeFailed: a probe ended without a calibration.
    """
    wanted = [(cell, seed) for cell in cells for seed in seeds]
    missing = [each for each in wanted if _stored_probe(store, *each) is None]
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(_probe_process, store.url, cell, seed) for cell, seed in missing]
        for count, future in enumerate(as_completed(futures), 1):
            future.result()
            progress("probes", len(wanted) - len(missing) + count, len(wanted))
    found = {(cell.name, seed): _stored_probe(store, cell, seed) for cell, seed in wanted}
    return {key: value for key, value in found.items() if value is not None}


def _stored_probe(store: Store, cell: Cell, seed: int) -> Measured | None:
    setting = cell.config(UNUSED_RATE, seed)
    for calibration in store.calibrations():
        try:  # an option that came since has its default
            probed = TrainerConfig.model_validate(dict(calibration.setting))
        except ValidationError:
            continue
        if probed == setting:
            return measured(calibration)
    return None


def _probe_process(url: str, cell: Cell, seed: int) -> None:
    words = [sys.executable, "-m", "advisor", "probe", "--json", "--seed", str(seed)]
    for name, value in cell.setting.items():
        option = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{option}" if value else f"--no-{option}")
        elif value is not None:
            words += [f"--{option}", str(value)]
    done = subprocess.run(
        words,
        cwd=PROJECT,
        env={**os.environ, "ETALON_HOME": str(home().resolve()), "ETALON_DB": url},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise ProbeFailed(f"the probe of cell {cell.name} failed: {done.stderr.strip()[-500:]}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tried:
    """What one probe advised for its cell: the advice by accepted risk."""

    cell: Cell
    probe_seed: int
    probe: Measured
    advice: Mapping[float, Advice]


def advice_for(
    cell: Cell, probe_seed: int, probe: Measured, levels: SafeLevels, risks: Sequence[float]
) -> Tried:
    """Ask the probe of a cell about that cell."""
    setting = cell.config(UNUSED_RATE, 0)
    given = {r: advise(Question(setting=setting, risk=r), probe, levels) for r in risks}
    return Tried(cell=cell, probe_seed=probe_seed, probe=probe, advice=given)


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


def rounded(rate: float) -> float:
    """Return a rate to three digits, so that the run at it has a readable name."""
    return float(f"{rate:.3g}")


# -- the verdict ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One probe's advice for its cell, and how runs at what it advised ended."""

    tried: Tried
    at_risk: Mapping[float, RateOutcome | None]
    at_suggested: RateOutcome | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Truth:
    """What is true of a cell: outcomes by grid index, the start's reward, and the best re-run."""

    cell: Cell
    outcomes: Mapping[int, RateOutcome]
    start: float
    best: RateOutcome | None

    @property
    def rate(self) -> float | None:
        """The largest rate of the grid at and below which no seed is unsafe."""
        return true_rate(self.outcomes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Validation:
    """Everything that a validation found."""

    split: str
    truths: Sequence[Truth]
    judged: Sequence[Judged]

    def truth_of(self, cell: Cell) -> Truth:
        """Return the truth of a cell."""
        return next(truth for truth in self.truths if truth.cell.name == cell.name)

    def as_json(self) -> dict[str, Any]:
        """Return the raw facts: the truth of every cell, and every advice with its runs."""
        return {
            "split": self.split,
            "cells": [
                {
                    "name": truth.cell.name,
                    "setting": dict(truth.cell.setting),
                    "true_max_learning_rate": truth.rate,
                    "start": truth.start,
                    "outcomes": {
                        str(grid_rate(i)): asdict(o) for i, o in sorted(truth.outcomes.items())
                    },
                    "best": None if truth.best is None else asdict(truth.best),
                }
                for truth in self.truths
            ],
            "probes": [
                {
                    "cell": each.tried.cell.name,
                    "probe_seed": each.tried.probe_seed,
                    "cost_steps": each.tried.probe.calibration.cost_steps,
                    "binding": first_advice(each.tried).binding,
                    "edge": first_advice(each.tried).edge,
                    "suggested": first_advice(each.tried).suggested_learning_rate,
                    "at_suggested": _plain(each.at_suggested),
                    "at_risk": {
                        str(risk): {
                            "max_learning_rate": each.tried.advice[risk].max_learning_rate,
                            "runs": _plain(outcome),
                        }
                        for risk, outcome in each.at_risk.items()
                    },
                }
                for each in self.judged
            ],
        }


def _plain(outcome: RateOutcome | None) -> dict[str, Any] | None:
    return None if outcome is None else asdict(outcome)


def first_advice(tried: Tried) -> Advice:
    """Return the advice at the smallest of the risks."""
    return tried.advice[min(tried.advice)]


def judge(
    store: Store,
    cells: Sequence[Cell],
    *,
    split: str,
    jobs: int | None,
    progress: Progress,
) -> Validation:
    """Probe every cell, advise, run what was advised, and find the truth.

    Raises:
        ProbeFailed: a probe ended without a calibration.
    """
    from trainer.sweep import free_jobs

    levels = safe_levels()
    at_once = jobs or free_jobs([cells[0].config(UNUSED_RATE, 0)])
    probes = run_probes(store, cells, jobs=at_once, progress=progress)
    tried = [
        advice_for(cell, seed, probes[cell.name, seed], levels, RISKS)
        for cell in cells
        for seed in PROBE_SEEDS
    ]
    group = _group(split)
    outcomes = _outcomes_of_advice(
        store, tried, group=f"{group}-advised", jobs=jobs, progress=progress
    )

    def outcome(cell: Cell, rate: float | None) -> RateOutcome | None:
        return None if rate is None else outcomes[cell.name, rounded(rate)]

    found = find_truth(store, cells, group=truth_group(split), jobs=jobs, progress=progress)
    best_of = _outcomes_at_best(
        store, cells, found, group=f"{group}-best", jobs=jobs, progress=progress
    )
    starts = start_rewards(store, truth_group(split), cells)
    return Validation(
        split=split,
        truths=[
            Truth(
                cell=cell,
                outcomes=found[cell.name],
                start=starts[cell.name],
                best=best_of.get(cell.name),
            )
            for cell in cells
        ],
        judged=[
            Judged(
                tried=each,
                at_risk={
                    r: outcome(each.cell, a.max_learning_rate) for r, a in each.advice.items()
                },
                at_suggested=outcome(each.cell, _suggested(each)),
            )
            for each in tried
        ],
    )


def _outcomes_of_advice(
    store: Store, tried: Sequence[Tried], *, group: str, jobs: int | None, progress: Progress
) -> dict[tuple[str, float], RateOutcome]:
    """Run each rate that was advised or suggested, and return how it went by cell and rate."""
    wanted: dict[tuple[str, float], tuple[Cell, float]] = {}
    for each in tried:
        for rate in (*(a.max_learning_rate for a in each.advice.values()), _suggested(each)):
            if rate is not None:
                wanted[each.cell.name, rounded(rate)] = each.cell, rate
    pairs = list(wanted.values())
    went = runs_at(store, pairs, RUN_SEEDS, group=group, jobs=jobs, progress=progress)
    return dict(zip(wanted, went, strict=True))


def _outcomes_at_best(
    store: Store,
    cells: Sequence[Cell],
    found: Mapping[str, Mapping[int, RateOutcome]],
    *,
    group: str,
    jobs: int | None,
    progress: Progress,
) -> dict[str, RateOutcome]:
    """Run each cell that gained at any rate again at its best one; return how that went by cell."""
    best = [(cell, best_index(found[cell.name])) for cell in cells]
    pairs = [(cell, grid_rate(index)) for cell, index in best if index is not None]
    went = runs_at(store, pairs, BEST_SEEDS, group=group, jobs=jobs, progress=progress)
    return {cell.name: outcome for (cell, _), outcome in zip(pairs, went, strict=True)}


def _suggested(tried: Tried) -> float | None:
    return first_advice(tried).suggested_learning_rate


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
