"""What a governor rescues, and what it costs: the same sweeps under it, under others, and alone.

    python -m benchmarks.governing [--cells FILE] [--jobs 2] [--report]

Every cell is probed once (seed 100). Then every rate of its workload's grid is run on three seeds:
alone; under the governor of ``advisor guard`` with that probe; under the same governor that knows
no probe; and under ESS scaling, η·√min(1, ESS of the sequences), the rule of VCPO (theory.md §7)
with the sample size of a fresh batch as its reference. A fixed smaller rate, a quarter, is the run
alone two rates further down. Runs are ordinary ones of the archive (ETALON_DB), so an interrupted
benchmark goes on where it was. ``--report`` prints the table of what is there.
"""

import argparse
import math
import os
import statistics
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

from tqdm import tqdm

from advisor.experiments.cells import Cell, read_cells
from advisor.experiments.guard import found_bounds
from advisor.experiments.guard_command import DEFAULT_RISK
from advisor.experiments.probe import default_budget, probe
from advisor.governor import Governor as Rule
from advisor.truth import UNSAFE
from storage.engine import database_url
from storage.records import RunInfo, StepMetrics
from storage.store import Store
from trainer.config import TrainerConfig
from trainer.governing import Governor
from trainer.launch import create_run

CELLS = Path(__file__).parent / "governed_cells.json"
RATES = {
    "arithmetic": (6.25e-5, 1.25e-4, 2.5e-4, 5e-4, 1e-3, 2e-3),
    "preference": (6.25e-6, 1.25e-5, 2.5e-5, 5e-5, 1e-4, 2e-4, 4e-4),
}
"""At ratio 2, from below the best rate of earlier cells to beyond the rate that nearly all lose."""
LOWEST = 2
"""So many rates are there to find the best one, and to be the quarter of others."""
SEEDS = (30, 31, 32)
PROBE_SEED = 100
ARMS = ("alone", "governor", "governor without a probe", "ESS scaling")
QUARTER = "a quarter of the rate"


@dataclass(frozen=True, slots=True)
class Trial:
    """One run of the benchmark: a cell at a rate and a seed, in an arm."""

    cell: Cell
    arm: str
    rate: float
    seed: int

    @property
    def group(self) -> str:
        """The group of its run."""
        return f"governing {self.cell.name} {self.arm}"

    @property
    def config(self) -> TrainerConfig:
        """The configuration of its run."""
        config = self.cell.config(self.rate, self.seed)
        return config.model_copy(update={"group": self.group, "threads": 1})


def ess_scaling(row: StepMetrics | None) -> tuple[float, str]:
    """Scale by the root of the effective share of the newest batch's sequences."""
    share = None if row is None else row.sequence_ess_fraction
    if share is None or not math.isfinite(share):
        return 1.0, "no effective sample size is known"
    return max(1e-6, math.sqrt(min(1.0, share))), f"sequence ESS is {share:.0%}"


def carry_out(trial: Trial, calibration_id: str) -> None:
    """Carry a trial out in this process."""
    from trainer.worker import Worker

    store, config = Store.open(None), trial.config
    govern = governor_of(trial, store, calibration_id)
    kind = "train" if govern is None else "guarded"
    run = create_run(store, config, kind=kind)
    Worker(store, run, lambda *_: None, govern).run()
    store.close()


def governor_of(trial: Trial, store: Store, calibration_id: str) -> Governor | None:
    """Return the governor of a trial's arm; None where it runs alone."""
    if trial.arm == "alone":
        return None
    if trial.arm == "ESS scaling":
        return ess_scaling
    probed = calibration_id if trial.arm == "governor" else None
    bounds, _ = found_bounds(store, trial.config, DEFAULT_RISK, probed, alone=probed is None)
    return Rule(trial.config, bounds)


def probed(store: Store, cell: Cell) -> str:
    """Return the calibration of a cell; it is probed if it was not yet."""
    setting = cell.config(1e-4, PROBE_SEED).model_copy(update={"threads": 1})
    wanted = setting.model_dump(mode="json", exclude={"learning_rate"})
    for found in store.calibrations():
        if {k: v for k, v in found.setting.items() if k != "learning_rate"} == wanted:
            return found.id
    budget = default_budget(setting)
    with tqdm(total=budget, desc=f"probe {cell.name}", unit="step", disable=None) as bar:

        def progress(_words: str, done: int, _budget: int) -> None:
            bar.update(max(0, done - bar.n))

        return probe(store, setting, budget=budget, progress=progress).id


def trials(cells: Sequence[Cell]) -> Iterator[Trial]:
    """Return every trial, those alone first; the two lowest rates are run alone only."""
    for arm in ARMS:
        for cell in cells:
            rates = RATES[cell.setting["workload"]]
            for rate in rates if arm == "alone" else rates[LOWEST:]:
                for seed in SEEDS:
                    yield Trial(cell, arm, rate, seed)


def done(store: Store) -> dict[tuple[str, float, int], RunInfo]:
    """Return the ended runs of the benchmark by group, rate and seed."""
    return {
        (run.group, run.config["learning_rate"], run.config["seed"]): run
        for run in store.runs()
        if run.group is not None and run.group.startswith("governing ") and run.outcome is not None
    }


def run_all(cells: Sequence[Cell], arms: Sequence[str], jobs: int) -> None:
    """Carry out what is not there yet of some arms."""
    os.environ["ETALON_DB"] = database_url(None).render_as_string(hide_password=False)
    store = Store.open(None)
    calibrations = {cell.name: probed(store, cell) for cell in cells}
    there = done(store)
    missing = [t for t in trials(cells) if t.arm in arms and (t.group, t.rate, t.seed) not in there]
    store.close()
    with (
        ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool,
        tqdm(total=len(missing), unit="run") as bar,
    ):
        waiting = [pool.submit(carry_out, t, calibrations[t.cell.name]) for t in missing]
        for each in as_completed(waiting):
            each.result()
            bar.update()


# -- the table ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ended:
    """How a trial ended: whether it was unsafe, and where on the way from the start to the best."""

    unsafe: bool
    way: float


def ends(store: Store, cells: Sequence[Cell]) -> dict[tuple[str, str, float, int], Ended]:
    """Return how every trial ended, by cell, arm, rate and seed.

    The way is (r − start)/(best − start) of the last policy's evaluation, gold where there is one;
    best is the largest mean over the seeds among the constant rates that ran alone.
    """
    there, found = done(store), {}
    for cell in cells:
        rates = RATES[cell.setting["workload"]]
        runs = {
            (arm, rate, seed): there[f"governing {cell.name} {arm}", rate, seed]
            for arm in ARMS
            for rate in rates
            for seed in SEEDS
            if (f"governing {cell.name} {arm}", rate, seed) in there
        }
        alone = [[_final(runs["alone", rate, seed]) for seed in SEEDS] for rate in rates]
        best = max(statistics.fmean(each) for each in alone)
        start = statistics.fmean(_start(store, runs["alone", rates[0], s]) for s in SEEDS)
        for (arm, rate, seed), run in runs.items():
            way = (_final(run) - start) / (best - start)
            found[cell.name, arm, rate, seed] = Ended(run.outcome in UNSAFE, way)
        for rate, lower in zip(rates[LOWEST:], rates, strict=False):
            for seed in SEEDS:
                found[cell.name, QUARTER, rate, seed] = found[cell.name, "alone", lower, seed]
    return found


def _final(run: RunInfo) -> float:
    """Return the reward of the last policy; of one that diverged that of its last steps."""
    for value in (run.gold_reward_final, run.reward_final, run.gold_reward_last, run.reward_last):
        if value is not None:
            return value
    raise ValueError(f"run {run.id} has no reward")


def _start(store: Store, run: RunInfo) -> float:
    first = store.evaluations(run.id)[0]
    return first.reward if first.gold is None else first.gold


def table(store: Store, cells: Sequence[Cell]) -> str:
    """Return the table as Markdown, one line per workload and arm."""
    found = ends(store, cells)
    lines = [
        "| workload | under | unsafe runs prevented | rescued runs end at | of the safe runs lost "
        "| cost on safe runs (median, mean, worst tenth) |",
        "|---|---|---|---|---|---|",
    ]
    for workload in RATES:
        names = {cell.name for cell in cells if cell.setting["workload"] == workload}
        for arm in (*ARMS[1:], QUARTER):
            pairs = [
                (found[name, "alone", rate, seed], under)
                for (name, of, rate, seed), under in found.items()
                if name in names and of == arm
            ]
            if pairs:
                lines.append(f"| {workload} | {arm} | {_row(pairs)} |")
    return "\n".join(lines)


def _row(pairs: Sequence[tuple[Ended, Ended]]) -> str:
    lost = [under for alone, under in pairs if alone.unsafe]
    rescued = [under.way for under in lost if not under.unsafe]
    safe = [(alone, under) for alone, under in pairs if not alone.unsafe]
    cost = sorted(alone.way - under.way for alone, under in safe)
    ways = "-"
    if rescued:
        ways = f"{_quantile(rescued, 0.5):.0%} (mean {statistics.fmean(rescued):.0%})"
    spoiled = sum(under.unsafe for _, under in safe)
    costs = "-"
    if cost:
        costs = (
            f"{_quantile(cost, 0.5):+.0%}, {statistics.fmean(cost):+.0%}, "
            f"{_quantile(cost, 0.9):+.0%}"
        )
    return f"{len(rescued)} of {len(lost)} | {ways} | {spoiled} of {len(safe)} | {costs}"


def _quantile(values: Sequence[float], q: float) -> float:
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(q * len(ordered)))]


def main(argv: Sequence[str]) -> int:
    """Run what is missing, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.governing")
    parser.add_argument("--cells", type=Path, default=CELLS)
    parser.add_argument("--arms", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--report", action="store_true", help="only print what is there")
    options = parser.parse_args(argv)
    cells = read_cells(options.cells)
    if not options.report:
        run_all(cells, options.arms, options.jobs)
    print(table(Store.open(None), cells))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
