"""Dump a small archive as the code of an older commit writes it, for SQLite and PostgreSQL.

    git worktree add OLDER COMMIT
    python tests/storage/older/make.py OLDER [URL]

writes the archive with the ``storage`` package in OLDER, into a new file or into the empty database
at a URL, and prints it as SQL. Every field of every record of that time is filled, and some are
NaN, infinite or None. The files beside this one were made so:

    0001 of 1c1cced, 0002 of cb35a25, 0003 of a538cd3, 0004 of 633438a, 0005 of 8436725,
    0006 of c893c8c
"""

import math
import re
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

STRANGE = (0.1 + 0.2, math.nan, math.inf, -math.inf, None, -1e-300)
RUNS = ("20261124-083758-00000a", "20261124-083758-00000b")


def filled(record: type, number: int, **given: Any) -> Any:
    """Make a record whose every field differs from its neighbors' and from the next record's."""
    values: dict[str, Any] = {}
    for place, item in enumerate(fields(record)):
        written = str(getattr(item.type, "__name__", item.type))
        if item.name in given:
            values[item.name] = given[item.name]
        elif "Mapping" in str(item.type):
            values[item.name] = {"ä \"'": [number, {"deep": math.nan}], "0.01": 0.1 + number}
        elif "float" in str(item.type) and "None" in str(item.type):
            values[item.name] = STRANGE[(place + number) % len(STRANGE)]
        elif written.startswith("float"):
            values[item.name] = 1_795_000_000.123456 + number
        elif "int" in str(item.type) and item.name != "id":
            values[item.name] = 10 * place + number
        elif "bool" in str(item.type):
            values[item.name] = number % 2 == 1
        elif "tuple" in str(item.type):
            values[item.name] = RUNS
        elif "str" in str(item.type):
            values[item.name] = f"line one;\nüλ '{place}' \\n {number}"
    return record(**values)


def write(url: str) -> None:
    """Fill an archive with everything that the imported code knows to keep."""
    from storage import records
    from storage.store import Store

    store = Store.open(url)
    for number, run_id in enumerate(RUNS):
        status = list(records.RunStatus)[2 + number]
        store.create_run(filled(records.RunInfo, number, id=run_id, status=status))
        for step in range(6):
            of_run = {"run_id": run_id, "step": step}
            store.append_step(filled(records.StepMetrics, step, **of_run))
            for name, kind in (
                ("append_evaluation", "Evaluation"),
                ("append_drift", "LagDrift"),
                ("append_bias_probe", "BiasProbe"),
            ):
                if hasattr(store, name):
                    extra = {"correction": "clipped"} if kind == "BiasProbe" else {}
                    made = filled(getattr(records, kind), step, **of_run, **extra)
                    getattr(store, name)(made)
            store.append_event(
                filled(records.Event, step, **of_run, level="warning", kind="a kind")
            )
        if hasattr(store, "append_samples"):
            store.append_samples([filled(records.Sample, n, run_id=run_id) for n in range(3)])
            store.tag_run(run_id, ["A", "a", "ß"][number:])
        if hasattr(store, "raise_alert"):
            of_run = {"run_id": run_id, "rule": "r", "subject": "üλ", "step": number}
            store.raise_alert(**of_run, message="m", destinations=("log", "phone"))
    store.save_recommendation(filled(records.Recommendation, 1))
    if hasattr(store, "save_calibration"):
        store.save_calibration(filled(records.Calibration, 1, id="c", segments=({"a": math.inf},)))
    store.close()


def dump_of(url: str) -> Iterator[str]:
    """Give the lines of an archive as SQL."""
    if not url.startswith("postgresql"):
        for line in sqlite3.connect(url).iterdump():
            yield re.sub(r"(?<=,)(-?)Inf(?=,)", r"\g<1>9e999", line)  # which SQL has no word for
        return
    words = ["pg_dump", "--inserts", "--no-owner", url.replace("+psycopg", "")]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    yield from (line for line in said.splitlines() if not line.startswith(("\\", "--")) and line)


if __name__ == "__main__":
    sys.path.insert(0, sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        place = sys.argv[2] if len(sys.argv) > 2 else str(Path(folder) / "a.db")
        write(place)
        print("\n".join(dump_of(place)))
