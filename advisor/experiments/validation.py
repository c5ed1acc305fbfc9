"""Whether the advice is true: independent probes of cells advise, and runs at it are judged.

Everything is an ordinary run of the archive, so a validation that is interrupted goes on where it
was.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from storage.store import Store

from ..advice import Advice, Question
from ..calibrated import advise
from ..measured import Measured
from ..safe_levels import SafeLevels, safe_levels
from ..truth import RateOutcome, best_index, grid_rate
from .cell_probes import PROBE_SEEDS, run_probes
from .cell_runs import Progress, find_truth, runs_at, start_rewards, true_rate
from .cells import UNUSED_RATE, Cell
from .edges import rounded

RUN_SEEDS = (10, 11, 12)
BEST_SEEDS = (20, 21, 22)
RISKS = (0.02, 0.1, 0.3)


def _group(split: str) -> str:
    return f"validation-{split.replace(' ', '-')}"


def truth_group(split: str) -> str:
    """Return the group of the runs that find the truth of a split's cells."""
    return f"{_group(split)}-truth"


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
