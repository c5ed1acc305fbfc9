"""Many trainers and dashboards on one archive at once: ``python -m benchmarks.load``.

    python -m benchmarks.load [--db URL] [--writers N] [--readers N] [--minutes N] [--json]

Each writer has a connection of its own and writes a run as the trainer does, learner steps
committed one by one as fast as they go, with an evaluation and a heartbeat now and then. Each
reader does once a second what the pages do: the list of all runs, the steps that one run has
gained, the outline of its charts. Processes hold several of either. Without ``--db`` the archive is
a SQLite file in a folder that is deleted afterwards; a database that is given keeps the runs.

Given are learner steps per second, the latency of each operation in milliseconds, every error, and
how many rows are not there though their writing was acknowledged. A reader that misses a row is an
error too. The exit code is 1 if there was any of these, or an inconsistency in the archive.
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from itertools import cycle
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from storage.check import inconsistencies
from storage.records import Evaluation, RunInfo, RunStatus
from storage.store import Store, new_run_id

from .other_stores import METRICS
from .overview import full_row

EVALUATED_EVERY = 50
LOOKED_EVERY_SECONDS = 1.0


@dataclass
class Worked:
    """What one writer or reader did: steps acknowledged, seconds by operation, errors."""

    run_id: str | None = None
    steps: int = 0
    seconds: dict[str, list[float]] = field(default_factory=dict)
    errors: list[str] = field(default_factory=list)

    @contextmanager
    def timed(self, operation: str) -> Iterator[None]:
        """Time an operation, or remember what went wrong with it."""
        begun = time.perf_counter()
        try:
            yield
        except Exception as error:
            self.errors.append(f"{operation}: {type(error).__name__}: {error}")
        self.seconds.setdefault(operation, []).append(time.perf_counter() - begun)


@dataclass(frozen=True, kw_only=True)
class Found:
    """What came out: steps per second, milliseconds by operation, and what was not to be."""

    writers: int
    readers: int
    seconds: float
    steps: int
    steps_per_second: float
    milliseconds: dict[str, dict[str, float]]
    errors: list[str]
    lost_rows: int
    inconsistencies: list[str]
    load_average: float
    cores: int

    @property
    def sound(self) -> bool:
        """Whether nothing went wrong."""
        return not (self.errors or self.lost_rows or self.inconsistencies)


def write(store: Store, worked: Worked, until: float) -> None:
    """Write a run as the trainer does until a moment of the monotonic clock."""
    run_id = worked.run_id = new_run_id()
    store.create_run(
        RunInfo(id=run_id, name="load", status=RunStatus.STOPPED, created_at=0.0, ended_at=0.0)
    )
    while time.monotonic() < until:
        row = full_row(run_id, worked.steps)
        before = len(worked.errors)
        with worked.timed("append a step"):
            store.append_step(row)
        if len(worked.errors) > before:
            continue  # not acknowledged: the same step again
        worked.steps += 1
        if worked.steps % EVALUATED_EVERY == 0:
            with worked.timed("append an evaluation"):
                store.append_evaluation(
                    Evaluation(run_id=run_id, step=row.step, time=0.0, rollouts=1, reward=0.5)
                )
            with worked.timed("heartbeat"):
                store.heartbeat(run_id, time.time())


def read(store: Store, worked: Worked, until: float) -> None:
    """Look at the archive as a dashboard does until a moment of the monotonic clock."""
    seen: dict[str, int] = {}
    for turn in cycle(range(1_000_000)):
        begun = time.monotonic()
        if begun >= until:
            return
        with worked.timed("list of runs"):
            known = [run.id for run in store.runs()]
            newest = store.last_steps()
            store.tags()
        begin = [run_id for run_id in known if run_id in newest]
        if begin:
            run_id = begin[turn // 5 % len(begin)]  # each is watched for a while
            after = seen.get(run_id, newest[run_id])
            with worked.timed("steps gained"):
                gained = store.series(run_id, ["step", *METRICS], after=after)["step"]
                seen[run_id] = gained[-1] if gained else after
                if gained != list(range(after + 1, seen[run_id] + 1)):
                    worked.errors.append(f"a reader missed steps of {run_id} after {after}")
            with worked.timed("outline of charts"):
                store.overview(run_id, METRICS)
        time.sleep(max(0.0, min(until, begun + LOOKED_EVERY_SECONDS) - time.monotonic()))


def work(kind: str, count: int, url: str, seconds: float, ready: Any, done: Any) -> None:
    """Be a process of several writers or readers, each a thread with a store of its own."""
    stores = [Store.open(url, create=False) for _ in range(count)]
    all_worked = [Worked() for _ in range(count)]
    task = write if kind == "write" else read
    ready.wait()
    until = time.monotonic() + seconds
    threads = [
        threading.Thread(target=_told, args=(task, store, worked, until))
        for store, worked in zip(stores, all_worked, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for store in stores:
        store.close()
    done.put([asdict(worked) for worked in all_worked])


def _told(
    task: Callable[[Store, Worked, float], None], store: Store, worked: Worked, until: float
) -> None:
    try:
        task(store, worked, until)
    except Exception as error:
        worked.errors.append(f"ended: {type(error).__name__}: {error}")


def measured(url: str, writers: int, readers: int, seconds: float, *, together: int = 8) -> Found:
    """Let writers and readers work for a while, then look for every acknowledged row.

    Args:
        url: the archive.
        writers: how many runs are written.
        readers: how many dashboards look.
        seconds: for how long.
        together: how many of either are in one process.
    """
    Store.open(url).close()
    context = get_context("spawn")
    portions = [("write", n) for n in _portions(writers, together)] + [
        ("read", n) for n in _portions(readers, together)
    ]
    ready, done = context.Barrier(len(portions)), context.Queue()
    processes = [
        context.Process(target=work, args=(kind, count, url, seconds, ready, done))
        for kind, count in portions
    ]
    for process in processes:
        process.start()
    worked = [Worked(**each) for _ in processes for each in done.get(timeout=seconds + 600)]
    load = os.getloadavg()[0]
    for process in processes:
        process.join()
    store = Store.open(url, create=False)
    lost = sum(_lost(store, each) for each in worked if each.run_id is not None)
    steps = sum(each.steps for each in worked)
    found = Found(
        writers=writers,
        readers=readers,
        seconds=seconds,
        steps=steps,
        steps_per_second=steps / seconds,
        milliseconds=_latencies(worked),
        errors=[error for each in worked for error in each.errors],
        lost_rows=lost,
        inconsistencies=inconsistencies(store),
        load_average=load,
        cores=len(os.sched_getaffinity(0)),
    )
    store.close()
    return found


def _portions(count: int, most: int) -> list[int]:
    whole, rest = divmod(count, most)
    return [most] * whole + [rest] * (rest > 0)


def _lost(store: Store, worked: Worked) -> int:
    """Count the steps that were acknowledged and are not there."""
    there = store.series(str(worked.run_id), ["step"])["step"]
    return len(set(range(worked.steps)) - set(there))


def _latencies(worked: Sequence[Worked]) -> dict[str, dict[str, float]]:
    found = {}
    for operation in dict.fromkeys(name for each in worked for name in each.seconds):
        taken = sorted(1e3 * s for each in worked for s in each.seconds.get(operation, ()))
        cuts = (
            statistics.quantiles(taken, n=100, method="inclusive") if len(taken) > 1 else taken * 99
        )
        found[operation] = {
            "times": float(len(taken)),
            "p50": cuts[49],
            "p95": cuts[94],
            "p99": cuts[98],
            "max": taken[-1],
        }
    return found


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--db", help="a database that is there; a SQLite file of its own if absent")
    parser.add_argument("--writers", type=int, help="8; 64 on PostgreSQL")
    parser.add_argument("--readers", type=int, help="4; 16 on PostgreSQL")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    many = (options.db or "").startswith("postgresql")
    with tempfile.TemporaryDirectory() as folder:
        found = measured(
            options.db or str(Path(folder) / "load.db"),
            options.writers or (64 if many else 8),
            options.readers or (16 if many else 4),
            60 * options.minutes,
        )
    if options.json:
        print(json.dumps(asdict(found)))
        return int(not found.sound)
    for name, value in asdict(found).items():
        if name != "milliseconds":
            print(f"{name:<24} {value}")
    for operation, row in found.milliseconds.items():
        print(f"{operation:<24}", *(f"{name} {value:.1f}" for name, value in row.items()), sep="  ")
    return int(not found.sound)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
