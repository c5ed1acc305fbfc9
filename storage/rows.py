"""Records to rows and back, NaN kept apart from NULL; for this package only."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from operator import attrgetter
from typing import Any

from sqlalchemy import Connection, Dialect, RowMapping, Table

from .models import FactJSON
from .records import RunInfo, RunStatus

EMPTY_AS_NULL = ("reasons", "extra", "source")
"""Mappings that are empty in most rows, and then take no place."""


def upsert(insert: Any, table: Table) -> Any:
    """Build "insert, or replace the row of the same key" once; both databases speak it alike.

    A column that is not inserted is NULL afterwards.
    """
    keys = [column.name for column in table.primary_key]
    statement = insert(table)
    rest = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=rest)


class Upsert:
    """The statement of ``upsert``, compiled once and handed to the driver as it is.

    SQLAlchemy would build the parameters of every execution anew, which costs as much as writing.
    With ``names`` rows have these columns alone, which spares what an import leaves empty.
    """

    def __init__(
        self, insert: Any, table: Table, dialect: Dialect, names: Sequence[str] | None = None
    ) -> None:
        compiled = upsert(insert, table).compile(dialect=dialect, column_keys=names)
        self.statement = str(compiled)
        self._order = compiled.positiontup  # None where the driver takes parameters by name
        self._json = {
            column.name: column.type
            for column in table.columns
            if isinstance(column.type, FactJSON) and (names is None or column.name in names)
        }
        self._dialect = dialect

    def write(self, connection: Connection, records: list[Any]) -> None:
        """Insert these records, each in place of one of the same key."""
        self.write_rows(connection, map(to_row, records))

    def write_rows(self, connection: Connection, rows: Iterable[dict[str, Any]]) -> None:
        """Insert rows as ``storable`` returns them, each in place of one of the same key."""
        given = [self._of_row(row) for row in rows]
        connection.exec_driver_sql(self.statement, given if len(given) > 1 else given[0])

    def parameters(self, record: Any) -> Any:
        """Return what the driver is given of a record, by name or in the statement's order."""
        return self._of_row(to_row(record))

    def _of_row(self, row: dict[str, Any]) -> Any:
        for name, kind in self._json.items():
            if row[name] is not None:
                row[name] = kind.process_bind_param(row[name], self._dialect)
        return row if self._order is None else tuple([row[name] for name in self._order])


def to_row(record: Any) -> dict[str, Any]:
    """Return what a table keeps of a record."""
    names, values = _fields_of(record.__class__)
    return storable(dict(zip(names, values(record), strict=True)))


@cache
def _fields_of(record: type[Any]) -> tuple[tuple[str, ...], Any]:
    names = tuple(item.name for item in fields(record))
    return names, attrgetter(*names)


def storable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Send NaN to NULL, which SQLite would do anyway, and name it in ``non_finite``."""
    row = dict(values)
    non_finite = [
        name for name, value in row.items() if isinstance(value, float) and not math.isfinite(value)
    ]
    if non_finite:
        row.update({name: None for name in non_finite if math.isnan(row[name])})
    row["non_finite"] = non_finite or None
    for name in EMPTY_AS_NULL:  # empty in most of a run's many rows
        if name in row:
            row[name] = row[name] or None
    return row


def from_row(record: type[Any], row: RowMapping) -> Any:
    """Return the record of this type that a row holds."""
    values = dict(row)
    for name in values.pop("non_finite") or ():
        if values[name] is None:
            values[name] = math.nan
    for name in EMPTY_AS_NULL:
        if name in values:
            values[name] = values[name] or {}
    return record(**values)


def run_info(row: RowMapping) -> RunInfo:
    """Return the run that a row holds."""
    run: RunInfo = from_row(RunInfo, row)
    return replace(run, status=RunStatus(run.status))
