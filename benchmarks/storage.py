"""How fast the store writes a learner step and opens a long run, beside others in the same run.

    python -m benchmarks.storage [--others PYTHON] [--steps N] [--appended N] [--rounds N] [--json]

Append: steps as wide as the trainer's, each in a transaction of its own, by Etalon, by plain
``sqlite3`` (the same row into the same table, one statement, nothing made of it) and by each tool
that the other Python can import, see ``benchmarks.other_stores``. Open: five metrics of one run of
a million steps, with a spike of one step, by a fresh process, from after imports to at most 2 000
points a metric; imports and the whole process stand beside. Rounds alternate between all; given
are the median and the range. The archives lie in a folder that is deleted afterwards.
"""

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

from storage.records import RunInfo
from storage.rows import to_row
from storage.store import Store

from .other_stores import SPIKE, TOOLS
from .overview import RUN, fill, full_row, reading

ARCHIVE = "archive.db"
ETALON, PLAIN = "etalon", "sqlite3"
Round = dict[str, float]


def append_by_etalon(folder: Path, count: int) -> Round:
    """Append steps one by one with the store; return seconds, of the processor too."""
    store = _archive(folder)
    rows = [full_row(RUN, t) for t in range(count)]
    store.append_step(rows[0])
    begun, busy = time.perf_counter(), time.process_time()
    for row in rows[1:]:
        store.append_step(row)
    found = {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - busy}
    store.close()
    return found


def append_by_sqlite(folder: Path, count: int) -> Round:
    """Append the same rows to the same table with nothing but the driver."""
    _archive(folder).close()
    rows = [tuple(to_row(full_row(RUN, t)).values()) for t in range(count)]
    names = ", ".join(to_row(full_row(RUN, 0)))
    statement = f"INSERT INTO steps ({names}) VALUES ({', '.join('?' * len(rows[0]))})"
    with closing(sqlite3.connect(folder / ARCHIVE, isolation_level=None)) as connection:
        for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
            connection.execute(f"PRAGMA {pragma}")
        connection.execute(statement, rows[0])
        begun, busy = time.perf_counter(), time.process_time()
        for row in rows[1:]:
            connection.execute(statement, row)
        return {"seconds": time.perf_counter() - begun, "cpu_seconds": time.process_time() - busy}


def by_other(python: str, tool: str, task: str, folder: Path, count: int) -> Round:
    """Let another tool do a task in a process of its own, and return what it says it took."""
    words = [python, "-m", "benchmarks.other_stores", tool, task, str(folder), str(count)]
    begun = time.perf_counter()
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    found: Round = json.loads(done.stdout.splitlines()[-1])
    return found | {"process_seconds": time.perf_counter() - begun}


def _archive(folder: Path) -> Store:
    store = Store.open(str(folder / ARCHIVE))
    store.create_run(RunInfo(id=RUN, name="a run", created_at=0.0))
    return store


def appending(python: str | None, folder: Path, count: int, rounds: int) -> dict[str, Any]:
    """Append with all in turns; steps per second, and the share of what plain sqlite3 reaches.

    The other tools append a tenth of the steps, because some take a hundredth of a second for each.
    """
    counts = dict.fromkeys(TOOLS, count // 10)
    writers: dict[str, Callable[[Path], Round]] = {
        ETALON: lambda place: append_by_etalon(place, count),
        PLAIN: lambda place: append_by_sqlite(place, count),
    }
    for tool in TOOLS if python else ():
        writers[tool] = partial(_append_by_other, str(python), tool, counts[tool])
    found: dict[str, list[Round]] = {name: [] for name in writers}
    for turn in range(rounds):
        for name, write in writers.items():
            place = folder / f"append-{name}-{turn}"
            place.mkdir()
            found[name].append(write(place))
    speeds = {
        unit: {
            name: [(counts.get(name, count) - 1) / each[unit] for each in each_round]
            for name, each_round in found.items()
        }
        for unit in ("seconds", "cpu_seconds")
    }
    return {
        name: {
            "steps_per_second": _spread(speeds["seconds"][name]),
            "by_cpu": _spread(speeds["cpu_seconds"][name]),
            "of_plain": _ratio(speeds["seconds"][name], speeds["seconds"][PLAIN]),
            "of_plain_by_cpu": _ratio(speeds["cpu_seconds"][name], speeds["cpu_seconds"][PLAIN]),
        }
        for name in found
    }


def _append_by_other(python: str, tool: str, count: int, folder: Path) -> Round:
    return by_other(python, tool, "append", folder, count)


def opening(python: str | None, folder: Path, steps: int, rounds: int) -> dict[str, Any]:
    """Open the long run with all in turns; seconds, and whether the spike is seen."""
    store = _archive(folder)
    fill(store, steps)
    tools = list(TOOLS) if python else []
    for tool in tools:
        (folder / tool).mkdir()
        by_other(str(python), tool, "fill", folder / tool, steps)
    found: dict[str, list[Round]] = {name: [] for name in (ETALON, *tools)}
    for _ in range(rounds):
        found[ETALON].append(_opened_by_etalon(store.url))
        for tool in tools:
            found[tool].append(by_other(str(python), tool, "read", folder / tool, steps))
    store.close()
    return {
        name: {
            "seconds": _spread([each["seconds"] for each in each_round]),
            "cpu_seconds": _spread([each["cpu_seconds"] for each in each_round]),
            "process_seconds": _spread([each["process_seconds"] for each in each_round]),
            "points": each_round[0]["points"],
            "spike_kept": all(each["spike_kept"] for each in each_round),
        }
        for name, each_round in found.items()
    }


def _opened_by_etalon(url: str) -> Round:
    found = reading(url, 0, 1)
    return {
        "seconds": found["read_seconds"],
        "cpu_seconds": found["read_cpu_seconds"],
        "process_seconds": found["process_seconds"],
        "points": found["points"],
        "spike_kept": found["highest"] == SPIKE,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _ratio(speeds: Sequence[float], plain: Sequence[float]) -> float:
    """Return the median over rounds of a speed as a share of plain sqlite3's in the same round."""
    return statistics.median(one / other for one, other in zip(speeds, plain, strict=True))


def main(argv: Sequence[str]) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--others", metavar="PYTHON", help="a Python that has the other tools")
    parser.add_argument("--steps", type=int, default=1_000_000, help="length of the run to open")
    parser.add_argument("--appended", type=int, default=5000, help="steps to append in a round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found: dict[str, Any] = {
            "append": appending(options.others, folder, options.appended, options.rounds),
            "open": opening(options.others, folder, options.steps, options.rounds),
            "load_average": os.getloadavg()[0],
        }
    if options.json:
        print(json.dumps(found))
        return 0
    for task in ("append", "open"):
        for tool, figures in found[task].items():
            print(f"{task:<7} {tool:<12}", *map(_shown, figures.items()), sep="  ")
    print(f"load average {found['load_average']:.1f}")
    return 0


def _shown(figure: tuple[str, Any]) -> str:
    name, value = figure
    if isinstance(value, dict):
        return f"{name} {value['median']:.4g} ({value['low']:.4g}-{value['high']:.4g})"
    return f"{name} {value:.3g}" if isinstance(value, float) else f"{name} {value}"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
