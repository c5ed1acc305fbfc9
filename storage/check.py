"""Find inconsistencies of an archive, and name each in one line."""

from collections.abc import Iterator

from sqlalchemy import Connection, select, text

from .models import metadata, rollups, runs
from .rollups import extremes
from .store import Store

_STEPS_OF_NO_RUN = """
    SELECT DISTINCT run_id FROM {table} WHERE run_id NOT IN (SELECT id FROM runs)
"""
_GAPS = """
    SELECT run_id, COUNT(*), MIN(step), MAX(step) FROM steps
    WHERE run_id NOT IN (SELECT id FROM runs WHERE kind IN ('imported', 'attached'))
    GROUP BY run_id HAVING MAX(step) - MIN(step) + 1 <> COUNT(*)
"""
_ENDED_WITHOUT_END = """
    SELECT id, status FROM runs
    WHERE status NOT IN ('queued', 'running') AND kind = 'train' AND ended_at IS NULL
"""


def inconsistencies(store: Store) -> list[str]:
    """Return one line per inconsistency; an empty list means none was found."""
    found: list[str] = []
    with store.reading() as connection:
        if connection.dialect.name == "sqlite":
            verdicts = connection.execute(text("PRAGMA integrity_check")).scalars()
            found += [f"database: {verdict}" for verdict in verdicts if verdict != "ok"]
        for table in [t.name for t in metadata.sorted_tables if "run_id" in t.c]:
            orphans = connection.execute(text(_STEPS_OF_NO_RUN.format(table=table))).scalars()
            found += [f"{table}: rows of run {run_id}, which does not exist" for run_id in orphans]
        for run_id, count, first, last in connection.execute(text(_GAPS)):
            found.append(f"steps: run {run_id} has {count} rows between step {first} and {last}")
        for run_id, status in connection.execute(text(_ENDED_WITHOUT_END)):
            found.append(f"runs: {run_id} is {status} and has no end time")
        found += _untrue_rollups(connection)
    return found


def _untrue_rollups(connection: Connection) -> Iterator[str]:
    """Name the blocks whose extremes are not those of their steps."""
    for run_id in connection.execute(select(runs.c.id)).scalars().all():
        query = select(rollups).where(rollups.c.run_id == run_id)
        kept = {(r["block"], r["metric"]): dict(r) for r in connection.execute(query).mappings()}
        blocks = sorted({block for block, _ in kept})
        for block in blocks:
            rows = extremes(connection, run_id, block, block)
            true = {(block, row["metric"]): row for row in rows}
            if true != {key: row for key, row in kept.items() if key[0] == block}:
                yield f"rollups: block {block} of run {run_id} is not what its steps say"
