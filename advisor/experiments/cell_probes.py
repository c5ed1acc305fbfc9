"""Independent probes of cells: each in a process of its own, and kept."""

import os
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path

from storage.engine import home
from storage.store import Store

from ..measured import Measured, readable_probes
from .cell_runs import Progress
from .cells import UNUSED_RATE, Cell

PROJECT = Path(__file__).resolve().parents[2]
PROBE_SEEDS = (100, 200)


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
    kept = readable_probes(store.calibrations())
    missing = [each for each in wanted if _probe_of(*each, kept) is None]
    with ThreadPoolExecutor(jobs) as pool:
        futures = [pool.submit(_probe_process, store.url, cell, seed) for cell, seed in missing]
        for count, future in enumerate(as_completed(futures), 1):
            future.result()
            progress("probes", len(wanted) - len(missing) + count, len(wanted))
    kept = readable_probes(store.calibrations())
    found = {(cell.name, seed): _probe_of(cell, seed, kept) for cell, seed in wanted}
    return {key: value for key, value in found.items() if value is not None}


def _probe_of(cell: Cell, seed: int, kept: Sequence[Measured]) -> Measured | None:
    setting = cell.config(UNUSED_RATE, seed)
    return next((probe for probe in kept if probe.setting == setting), None)


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
