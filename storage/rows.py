"""Records to rows and back, NaN kept apart from NULL; for this package only."""

import math
from collections.abc import Mapping
from dataclasses import fields, replace
from typing import Any

from sqlalchemy import RowMapping, Table

from .records import RunInfo, RunStatus

EMPTY_AS_NULL = ("reasons", "extra", "source")
"""Mappings that are empty in most rows, and then take no place."""


def upsert(insert: Any, table: Table) -> Any:
    """Build "insert, or replace the row of the same key" once; both databases speak it alike."""
    keys = [column.name for column in table.primary_key]
    statement = insert(table)
    rest = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=rest)


def to_row(record: Any) -> dict[str, Any]:
    """Return what a table keeps of a record."""
    return storable({item.name: getattr(record, item.name) for item in fields(record)})


def storable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Send NaN to NULL, which SQLite would do anyway, and name it in ``non_finite``."""
    row = dict(values)
    non_finite = [n for n, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
    row.update({name: None for name in non_finite if math.isnan(row[name])})
    row["non_finite"] = non_finite or None
    for name in EMPTY_AS_NULL:  # empty in most of a run's many rows
        if name in row:
            row[name] = dict(row[name]) or None
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
