"""Copy an archive into an empty one, on either database, and compare every row of the two.

All is written and read back within one transaction of the new archive, so at whatever moment the
copying ends, it holds everything or nothing. The old archive is read within one transaction too: as
it was at one moment. Rows are moved as the databases hold them, JSON as its text, a portion at a
time, so memory does not grow with the archive. Files in ``ETALON_HOME`` are not touched.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any

from sqlalchemy import (
    Column,
    ColumnElement,
    Connection,
    MetaData,
    String,
    Table,
    Text,
    collate,
    func,
    insert,
    select,
    text,
)
from sqlalchemy.exc import DataError, IntegrityError

from .errors import CopyRefused
from .journal import all_journals
from .liveness import LOST_AFTER_SECONDS, PulseReader, process_gone
from .models import FactJSON, events, metadata, recommendations, runs
from .records import RunInfo
from .store import Store

PORTION = 2000
_NUL = "\N{SYMBOL FOR NULL}"
"""What PostgreSQL is given for a NUL, which its text cannot hold; see ``engine``."""


@dataclass(frozen=True, kw_only=True)
class Copied:
    """What a copy holds: rows by table, and how many of them had a NUL in a text replaced."""

    rows: dict[str, int]
    altered: int


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Rows that are moved and compared together: a table, or what it holds of one run."""

    table: Table
    run_id: str | None

    def rows(self, connection: Connection) -> Iterator[Sequence[tuple[Any, ...]]]:
        """Read the rows in the order of their key, which is that of bytes on both databases."""
        keys = [column for column in self.table.primary_key if column.name != "run_id"]
        query = select(self.table).order_by(*(_by_bytes(key, connection) for key in keys))
        if self.run_id is not None:
            query = query.where(self.table.c.run_id == self.run_id)
        found = connection.execute(query.execution_options(yield_per=PORTION))
        return (list(map(tuple, portion)) for portion in found.partitions())

    def __str__(self) -> str:
        of_run = "" if self.run_id is None else f" of run {self.run_id}"
        return f"{self.table.name}{of_run}"


def copy_archive(
    source: Store, target: Store, pulse: PulseReader, progress: Callable[[int, int], None]
) -> Copied:
    """Copy every row.

    Args:
        source: the old archive.
        target: the new one, without rows.
        pulse: has seen the runs of the old one, see ``refuse_living``.
        progress: told how many rows are done, of how many; those that are compared count too.

    Raises:
        CopyRefused: the new archive holds something, a run of the old one came alive or was not
            sent to its end, or what the new one holds is not what it was given. It is then as it
            was.
    """
    with source.reading() as old, target.writing() as new:
        _refuse_filled(new, target)
        _refuse_orphans(old)
        counts = {table.name: _count(old, table) for table in metadata.sorted_tables}
        parts = list(_parts(old))
        altered = done = 0
        for work in (_move, _compare):
            for part in parts:
                for rows, changed in work(old, new, part):
                    altered += changed
                    done += rows
                    progress(done, 2 * sum(counts.values()))
        _continue_numbers(new)
        refuse_living(source, pulse)
        refuse_unsent(source)
    target.to_disk()
    return Copied(rows=counts, altered=altered)


def refuse_living(
    source: Store, pulse: PulseReader, sleep: Callable[[float], None] = time.sleep
) -> None:
    """Refuse to copy while a process writes a run: what it writes next would be in one place only.

    A run of another host is watched until its heartbeat has stood still for long enough.

    Raises:
        CopyRefused: a run is alive.
    """
    for _ in range(round(LOST_AFTER_SECONDS) + 2):
        living = [run for run in source.runs() if _is_alive(run, pulse)]
        if any(process_gone(run) is False for run in living) or not living:
            break
        sleep(1.0)
    if living:
        raise CopyRefused(
            "\n".join(
                f"run: {run.id} is {run.status}; stop it first: python -m trainer stop {run.id}"
                for run in living
            )
        )


def _is_alive(run: RunInfo, pulse: PulseReader) -> bool:
    """Whether a process writes a run, or is about to; one that waits, or an import, has none."""
    has_process = run.pid is not None and not process_gone(run)
    return has_process and pulse.status(run).alive


def refuse_unsent(source: Store) -> None:
    """Refuse to copy while a journal holds what the new archive would never hear of.

    Raises:
        CopyRefused: there is one of a run of the old archive.
    """
    known = {run.id for run in source.runs()}
    if unsent := [run_id for run_id in all_journals() if run_id in known]:
        raise CopyRefused(
            f"from: not all of run {', '.join(unsent)} was sent to it; "
            f"run: python -m storage check --repair --db '{source.shown_url}'"
        )


def _refuse_filled(new: Connection, target: Store) -> None:
    """Let nobody else write into the new archive, and look whether somebody has."""
    if new.dialect.name == "postgresql":
        names = ", ".join(metadata.tables)
        new.execute(text(f"LOCK TABLE {names} IN EXCLUSIVE MODE"))
    filled = [table.name for table in metadata.sorted_tables if not is_empty(new, table)]
    if filled:
        raise CopyRefused(
            f"to: {target.shown_url} holds rows already ({', '.join(filled)}); "
            "give a new file or an empty database"
        )


def is_empty(connection: Connection, table: Table) -> bool:
    """Whether a table has no row."""
    return connection.execute(select(text("1")).select_from(table).limit(1)).first() is None


def _parts(old: Connection) -> Iterator[_Part]:
    run_ids = old.execute(select(runs.c.id).order_by(runs.c.id)).scalars().all()
    for table in map(as_held, metadata.sorted_tables):
        for run_id in run_ids if "run_id" in table.c else (None,):
            yield _Part(table=table, run_id=run_id)


def as_held(table: Table) -> Table:
    """Return the table with JSON as the text that it is."""
    columns = [
        Column(c.name, Text if isinstance(c.type, FactJSON) else c.type, primary_key=c.primary_key)
        for c in table.columns
    ]
    return Table(table.name, MetaData(), *columns)


def _by_bytes(key: Column[Any], connection: Connection) -> ColumnElement[Any]:
    is_text = isinstance(key.type, String)
    return collate(key, "C") if is_text and connection.dialect.name == "postgresql" else key


def _move(old: Connection, new: Connection, part: _Part) -> Iterator[tuple[int, int]]:
    for rows in part.rows(old):
        try:
            names = part.table.c.keys()
            new.execute(insert(part.table), [dict(zip(names, row, strict=True)) for row in rows])
        except (DataError, IntegrityError) as error:
            raise CopyRefused(f"{part}: the new archive does not take it: {error.orig}") from None
        yield len(rows), 0


def _compare(old: Connection, new: Connection, part: _Part) -> Iterator[tuple[int, int]]:
    for given, held in zip_longest(part.rows(old), part.rows(new), fillvalue=()):
        altered = 0
        for row, copy in zip_longest(given, held):
            if row == copy:
                continue
            if row is None or copy is None:
                raise CopyRefused(f"{part}: the copy has not as many rows; nothing is copied")
            _refuse_change(part, row, copy)
            altered += 1
        yield len(given), altered


def _refuse_change(part: _Part, row: tuple[Any, ...], copy: tuple[Any, ...]) -> None:
    """Allow no change of a row but that of a NUL."""
    for name, given, held in zip(part.table.c.keys(), row, copy, strict=True):
        expected = given.replace("\0", _NUL) if isinstance(given, str) else given
        if expected != held:
            raise CopyRefused(f"{part}: {name} {given!r} became {held!r}; nothing is copied")


def _refuse_orphans(old: Connection) -> None:
    """Refuse an archive with rows of no run, which only another program can have left."""
    faults = []
    for table in metadata.sorted_tables:
        if "run_id" in table.c:
            known = select(runs.c.id)
            query = select(func.count()).where(table.c.run_id.not_in(known))
            if count := old.execute(query).scalar_one():
                faults.append(f"{table.name}: {count} rows are of no run; see storage check")
    if faults:
        raise CopyRefused("\n".join(faults))


def _count(connection: Connection, table: Table) -> int:
    return connection.execute(select(func.count()).select_from(table)).scalar_one()


def _continue_numbers(new: Connection) -> None:
    """Let PostgreSQL go on after the highest number; SQLite does so by itself."""
    if new.dialect.name != "postgresql":
        return
    for table in (events, recommendations):
        highest = new.execute(select(func.max(table.c.id))).scalar()
        if highest is not None:
            of_table = func.pg_get_serial_sequence(table.name, "id")
            new.execute(select(func.setval(of_table, highest)))
