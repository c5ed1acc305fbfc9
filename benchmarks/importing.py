"""How fast a long log is imported, beside the least that could be done with it.

    python -m benchmarks.importing [--rows N] [--rounds N] [--json]

A log of verl with ten keys, imported into a new archive; in turns with it ``json.loads`` of every
line and one ``sqlite3`` insert of the same numbers into a bare table. Processor seconds of this
process (user and system), the median and the range.
"""

import argparse
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from storage.importers.importing import import_file
from storage.store import Store

KEYS = (
    *("actor/lr", "actor/grad_norm", "actor/pg_loss", "actor/entropy", "critic/score/mean"),
    *("actor/ppo_kl", "actor/pg_clipfrac", "perf/throughput"),
    *(f"training/off_policy/trajectory_staleness/{end}" for end in ("mean", "max")),
)


def write_log(path: Path, rows: int) -> None:
    """Write a log of random numbers, in (0, 1)."""
    rng = random.Random(0)
    with path.open("w", encoding="utf-8") as log:
        for step in range(rows):
            log.write(json.dumps({"step": step, "data": {k: rng.random() for k in KEYS}}) + "\n")


def by_etalon(log: Path, folder: Path) -> None:
    """Import into a new archive."""
    with closing(Store.open(str(folder / "archive.db"))) as store:
        import_file(store, log)


def barely(log: Path, folder: Path) -> None:
    """Decode every line and store its numbers, checking nothing."""
    with closing(sqlite3.connect(folder / "bare.db")) as database, log.open() as lines, database:
        columns = ", ".join(f"c{n} REAL" for n in range(len(KEYS)))
        database.execute(f"CREATE TABLE steps (step INTEGER PRIMARY KEY, {columns})")
        rows = ((each["step"], *each["data"].values()) for each in map(json.loads, lines))
        marks = ", ".join("?" * (len(KEYS) + 1))
        database.executemany(f"INSERT INTO steps VALUES ({marks})", rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description="Time the import of a long log.")
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    ways: dict[str, Callable[[Path, Path], None]] = {"etalon": by_etalon, "bare": barely}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "log.jsonl"
        write_log(log, options.rows)
        for _ in range(options.rounds):
            for name, way in ways.items():
                with tempfile.TemporaryDirectory() as own:
                    begun = time.process_time()
                    way(log, Path(own))
                    seconds[name].append(time.process_time() - begun)
    ratios = [ours / bare for ours, bare in zip(*seconds.values(), strict=True)]
    if options.json:
        print(json.dumps({"rows": options.rows, "cpu_seconds": seconds, "ratios": ratios}))
        return
    for name, found in {**seconds, "ratio": ratios}.items():
        middle = statistics.median(found)
        print(f"{name:8} {middle:.2f} ({min(found):.2f}–{max(found):.2f})")


if __name__ == "__main__":
    main()
