"""Write a run as a file: CSV or Parquet with its steps, or JSON with everything.

What was not measured is empty, null in JSON; a computed NaN or infinity is ``nan`` or ``inf`` in
CSV, itself in Parquet, and ``{"$float": "nan"}`` in JSON, as in the archive.
"""

import csv
import json
import os
import tempfile
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from .commandline import BadInput
from .models import tagged
from .records import METRIC_NAMES, RunInfo, StepMetrics
from .store import Store

_WHOLE = ("step", "sampled_at_step", "zero_variance_groups", "dropped_groups", "tokens")
_JSON = ("clipping_radii", "weight_radii", "reasons")


def export_run(store: Store, run_id: str, file: Path, *, force: bool = False) -> int:
    """Write a run into a file, which appears whole or not at all; return its number of steps.

    Args:
        store: the archive.
        run_id: the run.
        file: its ending is the format: ``.csv``, ``.parquet`` or ``.json``.
        force: write over a file that is there.

    Raises:
        BadInput: the file has another ending, is there already, or its folder is not.
        RunNotFound: there is no such run.
    """
    write = _WRITERS.get(file.suffix.lower())
    if write is None:
        raise BadInput(f"to: {str(file)!r} is not allowed; allowed: {' | '.join(_WRITERS)}")
    if file.is_dir() or (file.exists() and not force):
        raise BadInput(f"to: {file} is there already; give another name, or --force for a file")
    if not file.parent.is_dir():
        raise BadInput(f"to: the folder {file.parent} does not exist; make it first")
    run = store.run(run_id)
    steps = store.steps(run_id)
    handle, partial = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name[:100]}.")
    try:
        with os.fdopen(handle, "wb") as out:
            write(out, store, run, steps)
        Path(partial).chmod(0o644)
        Path(partial).replace(file)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    return len(steps)


def _columns(steps: list[StepMetrics]) -> dict[str, list[Any]]:
    """Return the steps by column; what an import brought besides is ``extra.KEY``."""
    names = ("step", "time", *METRIC_NAMES)
    columns: dict[str, list[Any]] = {n: [getattr(row, n) for row in steps] for n in names}
    for name in _JSON:
        values = (getattr(row, name) for row in steps)
        columns[name] = [json.dumps(tagged(value)) if value else None for value in values]
    for key in sorted({key for row in steps for key in row.extra}):
        columns[f"extra.{key}"] = [row.extra.get(key) for row in steps]
    return columns


def _write_csv(out: BinaryIO, _: Store, __: RunInfo, steps: list[StepMetrics]) -> None:
    columns = _columns(steps)
    lines: list[str] = []

    class Lines:
        def write(self, line: str) -> None:
            lines.append(line)

    writer = csv.writer(Lines())
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    out.write("".join(lines).encode())


def _write_parquet(out: BinaryIO, _: Store, run: RunInfo, steps: list[StepMetrics]) -> None:
    import pyarrow
    from pyarrow import parquet  # slow to import and rarely needed

    arrays = {}
    for name, values in _columns(steps).items():
        if name in _WHOLE:
            arrays[name] = pyarrow.array(values, type=pyarrow.int64())
        elif all(value is None or type(value) in (int, float) for value in values):
            numbers = [None if value is None else float(value) for value in values]
            arrays[name] = pyarrow.array(numbers, type=pyarrow.float64(), from_pandas=False)
        else:
            texts = [_as_text(value) for value in values]
            arrays[name] = pyarrow.array(texts, type=pyarrow.string())
    about = {"run": json.dumps(tagged(asdict(run)))}
    parquet.write_table(pyarrow.table(arrays).replace_schema_metadata(about), out)


def _as_text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else json.dumps(tagged(value))


def _write_json(out: BinaryIO, store: Store, run: RunInfo, steps: list[StepMetrics]) -> None:
    whole = {
        "run": asdict(run),
        "tags": store.tags().get(run.id, ()),
        "steps": [asdict(row) for row in steps],
        "evaluations": [asdict(row) for row in store.evaluations(run.id)],
        "drifts": [asdict(row) for row in store.drifts(run.id)],
        "bias_probes": [asdict(row) for row in store.bias_probes(run.id)],
        "samples": [asdict(row) for row in store.samples(run.id)],
        "events": [asdict(row) for row in store.events(run.id, last=1_000_000)],
    }
    out.write(json.dumps(tagged(whole), allow_nan=False).encode())


_WRITERS: dict[str, Callable[[BinaryIO, Store, RunInfo, list[StepMetrics]], None]] = {
    ".csv": _write_csv,
    ".parquet": _write_parquet,
    ".json": _write_json,
}
