"""Find inconsistencies of an archive, and name each in one line."""

from sqlalchemy import text

from .store import Store

_STEPS_OF_NO_RUN = """
    SELECT DISTINCT run_id FROM {table} WHERE run_id NOT IN (SELECT id FROM runs)
"""
_GAPS = """
    SELECT run_id, COUNT(*), MIN(step), MAX(step) FROM steps GROUP BY run_id
    HAVING MAX(step) - MIN(step) + 1 <> COUNT(*)
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
        for table in ("steps", "evaluations", "events"):
            orphans = connection.execute(text(_STEPS_OF_NO_RUN.format(table=table))).scalars()
            found += [f"{table}: rows of run {run_id}, which does not exist" for run_id in orphans]
        for run_id, count, first, last in connection.execute(text(_GAPS)):
            found.append(f"steps: run {run_id} has {count} rows between step {first} and {last}")
        for run_id, status in connection.execute(text(_ENDED_WITHOUT_END)):
            found.append(f"runs: {run_id} is {status} and has no end time")
    return found
