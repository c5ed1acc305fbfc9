"""What other stores of training metrics take for the work of ``benchmarks.storage``.

    OTHER_PYTHON -m benchmarks.other_stores TOOL append|fill|read FOLDER STEPS

Each is used by its own storage layer, without its server or its queue: trackio's
``SQLiteStorage``, MLflow's ``SqlAlchemyStore`` on SQLite, TensorBoard's event files. None of them
is a requirement, and nothing of Etalon is imported, so they may have an environment of their own:

    pip install trackio==0.43.0 mlflow==3.17.2 tensorboard==2.21.0

``append`` commits steps of 29 metrics one by one, ``fill`` makes a run of five metrics by the
fastest way there is, ``read`` opens it as far as a first chart of at most 2 000 points a metric.
One JSON object says how many seconds it took after imports, and what was read.
"""

import json
import math
import os
import sqlite3
import sys
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

METRICS = ("reward_mean", "approx_kl", "entropy", "grad_norm", "cycle_drift")
WIDE = 29
POINTS = 2000
PORTION = 50_000
SPIKE = 1000.0


def waves(t: int) -> tuple[float, ...]:
    """Return the five metrics of a step."""
    wave = math.sin(t / 1000)
    return 0.5 + 0.1 * wave, 1e-3 * wave * wave, 2.0 + wave, 5.0 + math.cos(t), 0.01 * (t % 8)


def spike_step(steps: int) -> int:
    """Return the one step at which the gradient norm is ``SPIKE``."""
    return (2 * steps // 3) | 1


def metrics_of(t: int, steps: int) -> dict[str, float]:
    """Return the five metrics of a step of a run of so many, with the spike in its place."""
    found = dict(zip(METRICS, waves(t), strict=True))
    return found | {"grad_norm": SPIKE} if t == spike_step(steps) else found


def wide(t: int) -> dict[str, float]:
    """Return a step as wide as the trainer's."""
    return {f"metric_{n:02}": 0.1 + t % 7 + n for n in range(WIDE)}


class Trackio:
    """One SQLite file per project, a step's metrics as JSON."""

    def __init__(self, folder: Path) -> None:
        os.environ["TRACKIO_DIR"] = str(folder)
        from trackio.sqlite_storage import SQLiteStorage

        self._storage = SQLiteStorage

    def prepare(self) -> None:
        """Nothing: the first step makes the file."""

    def append(self, t: int, metrics: dict[str, float]) -> None:
        """Commit one step."""
        self._storage.bulk_log("project", "run", [metrics], steps=[t])

    def fill(self, steps: int) -> None:
        """Make a run of five metrics."""
        for first in range(0, steps, PORTION):
            at = list(range(first, min(steps, first + PORTION)))
            self._storage.bulk_log("project", "run", [metrics_of(t, steps) for t in at], steps=at)

    def read(self) -> dict[str, list[float]]:
        """Read what a first chart shows."""
        rows = self._storage.get_logs("project", "run", max_points=POINTS)
        return {name: [row[name] for row in rows] for name in METRICS}


class MLflow:
    """A row per metric and step in SQLite."""

    def __init__(self, folder: Path) -> None:
        from mlflow.entities import Metric
        from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore

        self._metric, self._path = Metric, folder / "mlflow.db"
        self._store: Any = partial(
            SqlAlchemyStore, f"sqlite:///{self._path}", str(folder / "artifacts")
        )
        self._name = folder / "run"

    def prepare(self) -> None:
        """Begin a run."""
        self._opened = self._store()
        run = self._opened.create_run("0", "user", 0, [], "run")
        self._name.write_text(run.info.run_id)

    def append(self, t: int, metrics: dict[str, float]) -> None:
        """Commit one step."""
        values = [self._metric(name, value, t, t) for name, value in metrics.items()]
        self._opened.log_batch(self._name.read_text(), values, [], [])

    def fill(self, steps: int) -> None:
        """Make a run of five metrics."""
        columns = "key, value, timestamp, step, is_nan, run_uuid"
        statement = f"INSERT INTO metrics ({columns}) VALUES (?, ?, ?, ?, 0, ?)"
        run_id, connection = self._name.read_text(), sqlite3.connect(self._path)
        rows = (
            (name, value, t, t, run_id)
            for t in range(steps)
            for name, value in metrics_of(t, steps).items()
        )
        connection.executemany(statement, rows)
        connection.commit()
        connection.close()

    def read(self) -> dict[str, list[float]]:
        """Read what a first chart shows."""
        store, run_id = self._store(), self._name.read_text()
        bounds = {"max_results": POINTS, "start_step": None, "end_step": None}
        return {
            name: [
                found.value
                for found in store.get_metric_history_bulk_interval([run_id], name, **bounds)
            ]
            for name in METRICS
        }


class TensorBoard:
    """Records in an event file, read whole by its Python loader."""

    def __init__(self, folder: Path) -> None:
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.compat.proto.summary_pb2 import Summary
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._reader, self._event, self._summary = EventAccumulator, Event, Summary
        self._begin, self._folder = EventFileWriter, str(folder)

    def prepare(self) -> None:
        """Begin a run."""
        self._writer = self._begin(self._folder)

    def _add(self, t: int, metrics: dict[str, float]) -> None:
        values = [self._summary.Value(tag=k, simple_value=v) for k, v in metrics.items()]
        self._writer.add_event(
            self._event(wall_time=t, step=t, summary=self._summary(value=values))
        )

    def append(self, t: int, metrics: dict[str, float]) -> None:
        """Commit one step."""
        self._add(t, metrics)
        self._writer.flush()

    def fill(self, steps: int) -> None:
        """Make a run of five metrics."""
        for t in range(steps):
            self._add(t, metrics_of(t, steps))
        self._writer.close()

    def read(self) -> dict[str, list[float]]:
        """Read what a first chart shows."""
        found = self._reader(self._folder, size_guidance={"scalars": POINTS}).Reload()
        return {name: [each.value for each in found.Scalars(name)] for name in METRICS}


TOOLS = {"trackio": Trackio, "mlflow": MLflow, "tensorboard": TensorBoard}


def work(tool: Any, task: str, steps: int) -> Iterator[tuple[str, float]]:
    """Carry out a task and say what it took."""
    if task != "read":
        tool.prepare()
    rows = [wide(t) for t in range(steps)] if task == "append" else []
    if rows:
        tool.append(0, rows[0])  # what is made once
    begun, busy = time.perf_counter(), time.process_time()
    if task == "append":
        for t, row in enumerate(rows[1:], start=1):
            tool.append(t, row)
    elif task == "fill":
        tool.fill(steps)
    else:
        lines = tool.read()
    yield "seconds", time.perf_counter() - begun
    yield "cpu_seconds", time.process_time() - busy
    if task == "read":
        yield "points", max(map(len, lines.values()))
        yield "spike_kept", max(lines["grad_norm"]) == SPIKE


def main() -> None:
    """Carry out the task that the arguments name, and print what it took."""
    begun = time.perf_counter()
    name, task, folder, steps = sys.argv[1:]
    tool = TOOLS[name](Path(folder))
    found = {"import_seconds": time.perf_counter() - begun, **dict(work(tool, task, int(steps)))}
    print(json.dumps(found), flush=True)
    os._exit(0)  # what they leave running at exit is not asked for


if __name__ == "__main__":
    main()
