"""Read the database of trackio: one SQLite file per project, with a table ``metrics``.

``metrics(run_name, step, metrics, timestamp)`` holds a JSON object per logging, as bytes in newer
versions, which also have a ``run_id``; of several runs of one name the newest is read. Numbers that
are none are the words "NaN" and "Infinity".

The file may be anybody's. It is opened to be read only; one that holds more than tables and indexes
is refused, because a view or a virtual table makes up rows without end; and both the work of a
statement and the text that it yields are bounded.
"""

import math
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ..commandline import BadInput
from .logs import MOST_STEP, Log, Rows, decoded, shown, whole_step

MARK = b"SQLite format 3\0"
WORDS: dict[str, float] = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
NEEDED = {"run_name", "step", "metrics"}
STORED = ("CREATE TABLE ", "CREATE INDEX ", "CREATE UNIQUE INDEX ")
"""How SQLite itself writes down what holds nothing but what was stored."""
WORK_A_ROW = 500
"""Steps of SQLite's machine per allowed row; a file full of other runs takes about twenty."""
LONGEST = 8 * 2**20
"""Bytes of the longest text or row."""


def is_database(beginning: bytes) -> bool:
    """Whether a file that begins with these bytes is an SQLite database."""
    return beginning.startswith(MARK)


def read_trackio(file: Path, *, most_bytes: int, most_rows: int, run: str | None = None) -> Log:
    """Read the rows of one run of a project.

    Args:
        file: the project's database.
        most_bytes: largest size of what is read, in characters of text.
        most_rows: largest number of rows that is read.
        run: name of the run; None where the project has only one.

    Raises:
        BadInput: it is no database of trackio, the run is not in it, or it holds too much.
    """
    with _opened(file, WORK_A_ROW * most_rows) as database:
        for (statement,) in database.execute("SELECT sql FROM sqlite_master WHERE sql NOT NULL"):
            if not str(statement).startswith(STORED):
                raise BadInput(f"file: {statement!r:.40}; allowed: tables and indexes alone")
        columns = {row[1] for row in database.execute("PRAGMA table_info(metrics)")}
        if not columns >= NEEDED:
            raise BadInput(
                "file: an SQLite database without trackio's table metrics (run_name, step, "
                "metrics); allowed: the database of a trackio project"
            )
        names = database.execute("SELECT run_name FROM metrics")
        name = _chosen(list({str(each): None for (each,) in _within(most_bytes, names)}), run)
        stamp = "timestamp" if "timestamp" in columns else "NULL"
        own = "run_id" if "run_id" in columns else "run_name"  # no text of a file is among these
        newest = f"SELECT {own} FROM metrics WHERE run_name = ? ORDER BY rowid DESC LIMIT 1"
        rows = f"SELECT step, metrics, {stamp}, {own} FROM metrics WHERE {own} = ({newest})"
        rows += " ORDER BY rowid"
        log = _log(name, _within(most_bytes, database.execute(rows, (name,))), most_rows)
        return replace(log, settings=_settings(database, most_bytes, name))


def _settings(database: sqlite3.Connection, most_bytes: int, name: str) -> dict[str, Any]:
    """Return the newest configuration of a run; none where the project keeps no such table."""
    columns = {row[1] for row in database.execute("PRAGMA table_info(configs)")}
    if not columns >= {"run_name", "config"}:
        return {}
    newest = "SELECT config FROM configs WHERE run_name = ? ORDER BY rowid DESC LIMIT 1"
    return next(
        (_object(t) or {} for (t,) in _within(most_bytes, database.execute(newest, (name,)))), {}
    )


@contextmanager
def _opened(file: Path, most_work: int) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)) as database:
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, LONGEST)
            database.set_progress_handler(lambda: 1, most_work)  # 1 ends the statement
            database.execute("PRAGMA trusted_schema = OFF")
            yield database
    except sqlite3.Error as error:
        ended = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT
        what = f"takes more than {most_work} steps" if ended else error
        raise BadInput(
            f"file: {file.name} cannot be read ({what}); allowed: the database of a trackio project"
        ) from None


def _within(most_bytes: int, found: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Yield rows as long as their text would fit in a file: the same may be stored for many."""
    size = 0
    for row in found:
        size += sum(len(each) for each in row if isinstance(each, str | bytes))
        if size > most_bytes:
            raise BadInput(f"metrics: more text than allowed; allowed: at most {most_bytes} bytes")
        yield row


def _chosen(names: list[str], run: str | None) -> str:
    if run is None and len(names) == 1:
        return names[0]
    listed = ", ".join(sorted(names)[:20]) or "none"
    if run is None and names:
        raise BadInput(f"run: the project has {len(names)} runs; name one with --run: {listed}")
    if run is None or run not in names:
        raise BadInput(f"run: {run!r} is not in the project; allowed: {listed}")
    return run


def _log(name: str, found: Iterable[tuple[Any, ...]], most_rows: int) -> Log:
    rows = Rows()
    times: dict[int, float] = {}
    faults: list[str] = []
    first = ""
    for number, (at, text, stamp, own) in enumerate(found, start=1):
        first = first or f"{own} {stamp}"  # another project may have a run of this name
        if number > most_rows:
            raise BadInput(f"rows: more than {most_rows}; allowed: at most {most_rows}")
        step, values = whole_step(at), _object(text)
        if step is None or values is None:
            what = f"step {at!r:.20}" if step is None else f"metrics {text!r:.40}"
            faults.append(
                f"row {number}: {what}; allowed: a whole step from 0 to {MOST_STEP}, a JSON object"
            )
            continue
        rows.add(step, values)
        if (time := _seconds(stamp)) is not None:
            times[step] = time
    if faults:
        raise BadInput(*shown(faults))
    return Log(
        format="trackio",
        first=first,
        rows=rows.ordered,
        keys=rows.keys,
        times=times,
        name=name,
        notes=rows.notes,
    )


def _object(text: Any) -> dict[str, Any] | None:
    try:
        found = decoded(text.decode() if isinstance(text, bytes) else str(text))
    except ValueError:
        return None
    if not isinstance(found, dict):
        return None
    return {k: WORDS.get(v, v) if isinstance(v, str) else v for k, v in found.items()}


def _seconds(stamp: Any) -> float | None:
    """Return seconds since 1970 of an ISO time; one without a zone is in UTC."""
    try:
        time = datetime.fromisoformat(str(stamp))
    except ValueError:
        return None
    return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
