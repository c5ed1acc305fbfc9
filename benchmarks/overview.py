"""How fast a long run opens, and what keeping its outline costs the trainer that writes it.

    python -m benchmarks.overview [--steps N] [--appended N] [--json]

Read: five metrics of one run of a million learner steps, opened by a fresh process, from opening
the archive to at most 2 000 points a metric; imports are given beside it. Write: learner steps
committed one by one, with and without rollups, in turns within one process. Seconds of the
processor stand beside those of the clock: on a machine that others use only they can be compared.
The archive lies in a folder that is deleted afterwards.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from storage.records import METRIC_NAMES, RunInfo, StepMetrics
from storage.store import Store

from .other_stores import METRICS, PORTION, metrics_of

RUN = "20260101-000000-000001"
TURN = 2000
"""Steps of one turn: several blocks, so that a turn bears its share of rolling up."""
WITH, WITHOUT = "with_rollups", "without_rollups"
READ = """
import time; begun = time.perf_counter()
import sys
from storage.store import Store
imported, cpu = time.perf_counter(), time.process_time()
store = Store.open(sys.argv[1], create=False)
lines = store.overview(sys.argv[2], sys.argv[3].split(","), first=int(sys.argv[4]))
cpu = time.process_time() - cpu
points, highest = max(len(s) for s, _ in lines.values()), max(max(v) for _, v in lines.values())
print(time.perf_counter() - imported, cpu, imported - begun, points, highest)
"""


def fill(store: Store, steps: int) -> None:
    """Write a run of waves with one spike the fast way, then roll it up."""
    names = ("run_id", "step", "time", *METRICS)
    places = ", ".join("?" * len(names))
    statement = f"INSERT INTO steps ({', '.join(names)}) VALUES ({places})"
    for first in range(0, steps, PORTION):
        at = range(first, min(steps, first + PORTION))
        rows = [(RUN, t, float(t), *metrics_of(t, steps).values()) for t in at]
        with store.writing() as connection:
            connection.exec_driver_sql(statement, rows)
    store.build_rollups()


def full_row(run_id: str, step: int) -> StepMetrics:
    """Return a step with as many metrics as the trainer writes."""
    whole = ("zero_variance_groups", "dropped_groups", "tokens", "sampled_at_step")
    names = [name for name in METRIC_NAMES if name not in whole][:29]
    measured: dict[str, Any] = dict.fromkeys(names, 0.1 + step % 7)
    return StepMetrics(run_id=run_id, step=step, time=float(step), **measured)


def reading(url: str, first: int, rounds: int) -> dict[str, Any]:
    """Time fresh processes that open the run from a step on; seconds, the median of all."""
    found = []
    for _ in range(rounds):
        words = [sys.executable, "-c", READ, url, RUN, ",".join(METRICS), str(first)]
        begun = time.perf_counter()
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        whole = time.perf_counter() - begun
        found.append([*(float(word) for word in done.stdout.split()), whole])
    seconds, cpu, imports, points, highest, process = zip(*found, strict=True)
    return {
        "read_seconds": statistics.median(seconds),
        "read_cpu_seconds": statistics.median(cpu),
        "import_seconds": statistics.median(imports),
        "process_seconds": statistics.median(process),
        "points": int(points[0]),
        "highest": highest[0],
    }


def writing(store: "PlainStore", appended: int) -> dict[str, float]:
    """Commit steps one by one into two runs in turns; return steps per second."""
    turns = max(1, appended // TURN)
    clock, cpu = {WITH: 0.0, WITHOUT: 0.0}, {WITH: 0.0, WITHOUT: 0.0}
    for name in clock:
        store.create_run(RunInfo(id=name, name=name, created_at=0.0))
        store.append_step(full_row(name, 0))
    for turn in range(turns):
        for name in clock:
            rows = [full_row(name, turn * TURN + i + 1) for i in range(TURN)]
            write = store.append_step if name == WITH else store.append_without_outline
            begun, busy = time.perf_counter(), time.process_time()
            for row in rows:
                write(row)
            clock[name] += time.perf_counter() - begun
            cpu[name] += time.process_time() - busy
    count = turns * TURN
    by_clock = {name: count / seconds for name, seconds in clock.items()}
    return by_clock | {f"{name}_by_cpu": count / seconds for name, seconds in cpu.items()}


def bulk(store: Store, count: int) -> dict[str, float]:
    """Write full rows in one transaction; return steps per second."""
    store.create_run(RunInfo(id="bulk", name="bulk", created_at=0.0))
    rows = [full_row("bulk", step) for step in range(count)]
    begun, busy = time.perf_counter(), time.process_time()
    store.append_steps(rows)
    clock, cpu = time.perf_counter() - begun, time.process_time() - busy
    return {"bulk": count / clock, "bulk_by_cpu": count / cpu}


class PlainStore(Store):
    """A store that can also write a step the way it would without rollups."""

    def append_without_outline(self, row: StepMetrics) -> None:
        """Write one learner step and keep no extremes."""
        from storage.models import steps

        with self.writing() as connection:
            self._upserts[steps].write(connection, [row])


def measured(steps: int, appended: int) -> dict[str, Any]:
    """Build the archive, measure, and return every figure."""
    with tempfile.TemporaryDirectory() as folder:
        store = PlainStore.open(str(Path(folder) / "long.db"))
        store.create_run(RunInfo(id=RUN, name="long", created_at=0.0))
        fill(store, steps)
        figures = {
            "steps": steps,
            "whole_run": reading(store.url, 0, 3),
            "last_20_000_steps": reading(store.url, max(0, steps - 20_000), 3),
            "append_step_per_second": writing(store, appended),
            "append_steps_per_second": bulk(store, appended),
        }
        store.close()
    return figures


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--steps", type=int, default=1_000_000, help="length of the run to read")
    parser.add_argument("--appended", type=int, default=20_000, help="steps to write one by one")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    figures = measured(options.steps, options.appended)
    if options.json:
        print(json.dumps(figures))
        return 0
    for name, value in figures.items():
        shown = value if isinstance(value, dict) else {"": value}
        print(name, *(f"{k} {v:.4g}".strip() for k, v in shown.items()), sep="  ")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
