"""Find inconsistencies of an archive, name each in one line, and know how to mend most of them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from sqlalchemy import ColumnElement, Connection, Table, delete, func, select, text, update

from .engine import journal_file
from .errors import ArchiveUnavailable, JournalDamaged
from .journal import all_journals, kept_writes, send_journal
from .liveness import is_lost, process_gone
from .models import events, metadata, rollups, runs, steps
from .records import RunInfo, RunStatus
from .rollups import extremes, roll_up
from .store import Store
from .transactions import only_writer
from .words import counted, moment

_GAPS = """
    SELECT run_id, COUNT(*), MIN(step), MAX(step) FROM steps
    WHERE run_id NOT IN (SELECT id FROM runs WHERE kind IN ('imported', 'attached'))
    GROUP BY run_id HAVING MAX(step) - MIN(step) + 1 <> COUNT(*)
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Inconsistency:
    """One thing that is wrong: what, in words, and what mends it, if anything does.

    ``mend`` returns in words what it did.
    """

    what: str
    mend: Callable[[Store], str] | None = None


def inconsistencies(store: Store) -> list[str]:
    """Return one line per inconsistency; an empty list means none was found."""
    return [each.what for each in found_in(store)]


def found_in(store: Store) -> list[Inconsistency]:
    """Return every inconsistency, those first whose mending tells about others."""
    known = store.runs() if _are_readable(store) else []
    found = list(_journals(known))
    with store.reading() as connection:
        found += _of_database(connection)
        found += _orphans(connection)
        found += _gaps(connection)
        found += _doubled_events(connection)
        found += _untrue_rollups(connection)
    return [*found, *_runs_without_process(known), *_runs_without_end(known)]


def _are_readable(store: Store) -> bool:
    """Whether the runs of a damaged archive can be read at all."""
    try:
        store.runs()
    except ArchiveUnavailable:
        return False
    return True


def _of_database(connection: Connection) -> Iterator[Inconsistency]:
    if connection.dialect.name == "sqlite":
        for verdict in connection.execute(text("PRAGMA integrity_check")).scalars():
            if verdict != "ok":
                yield Inconsistency(what=f"database: {verdict}", mend=_index_anew)


def _index_anew(store: Store) -> str:
    with store.writing() as connection:
        connection.execute(text("REINDEX"))
    return "made the indexes anew"


def _journals(known: list[RunInfo]) -> Iterator[Inconsistency]:
    """Name what runs that nobody carries out could not send; of other archives it is none."""
    by_id = {run.id: run for run in known}
    for run_id in all_journals():
        run = by_id.get(run_id)
        if run is None or (run.status.alive and not is_lost(run)):
            continue
        try:
            writes = counted(kept_writes(run_id), "write")
        except JournalDamaged as error:
            yield Inconsistency(what=str(error))
            continue
        if run.status.alive and process_gone(run) is None:
            yield Inconsistency(what=f"journal: {writes} of run {run_id} {_elsewhere(run)}")
        else:
            what = f"journal: {writes} of run {run_id} never sent"
            yield Inconsistency(what=what, mend=partial(_send, run_id))


def _elsewhere(run: RunInfo) -> str:
    """Say why the journal of a run that is silent on another host is not sent from this one.

    It may live there, its archive away: what it adds while its journal is sent would be lost.
    """
    return (
        f"never sent: it ran on {run.host}, gave no sign of life since {moment(_sign(run))}, and "
        "only that host can tell whether it lives; check --repair there, or once it is surely "
        f"gone: python -m trainer stop {run.id}"
    )


def _send(run_id: str, store: Store) -> str:
    count = send_journal(store, run_id)
    return f"sent {counted(count, 'write')} of run {run_id} from {journal_file(run_id)}"


def _orphans(connection: Connection) -> Iterator[Inconsistency]:
    for table in [each for each in metadata.sorted_tables if "run_id" in each.c]:
        nobody = table.c.run_id.not_in(select(runs.c.id))
        query = select(table.c.run_id).where(nobody).distinct().order_by(table.c.run_id)
        for run_id in connection.execute(query).scalars():
            what = f"{table.name}: rows of run {run_id}, which does not exist"
            yield Inconsistency(what=what, mend=partial(_remove_orphans, table, run_id))


def _remove_orphans(table: Table, run_id: str, store: Store) -> str:
    nobody = table.c.run_id.not_in(select(runs.c.id))
    with store.writing() as connection:
        gone = connection.execute(delete(table).where(table.c.run_id == run_id, nobody)).rowcount
    return f"removed {counted(gone, 'row')} of run {run_id} from {table.name}"


def _gaps(connection: Connection) -> Iterator[Inconsistency]:
    for run_id, count, first, last in connection.execute(text(_GAPS)):
        yield Inconsistency(
            what=f"steps: run {run_id} has {counted(count, 'row')} between step {first} and {last}"
        )


def _doubled_events(connection: Connection) -> Iterator[Inconsistency]:
    extra = select(events.c.run_id, func.count()).where(_is_there_before())
    for run_id, count in connection.execute(extra.group_by(events.c.run_id)):
        what = f"events: {count} of run {run_id} are there twice"
        yield Inconsistency(what=what, mend=partial(_remove_doubled, run_id))


def _is_there_before() -> ColumnElement[bool]:
    same = (events.c.run_id, events.c.time, events.c.kind, events.c.message)
    return events.c.id.not_in(select(func.min(events.c.id)).group_by(*same))


def _remove_doubled(run_id: str, store: Store) -> str:
    twice = (events.c.run_id == run_id) & _is_there_before()
    with store.writing() as connection:
        gone = connection.execute(delete(events).where(twice)).rowcount
    return f"removed {counted(gone, 'event')} of run {run_id}, there twice"


def _untrue_rollups(connection: Connection) -> Iterator[Inconsistency]:
    """Name the blocks whose extremes are not those of their steps."""
    for run_id in connection.execute(select(runs.c.id)).scalars().all():
        query = select(rollups).where(rollups.c.run_id == run_id)
        kept = {(r["block"], r["metric"]): dict(r) for r in connection.execute(query).mappings()}
        blocks = sorted({block for block, _ in kept})
        for block in blocks:
            rows = extremes(connection, run_id, block, block)
            true = {(block, row["metric"]): row for row in rows}
            if true != {key: row for key, row in kept.items() if key[0] == block}:
                what = f"rollups: block {block} of run {run_id} is not what its steps say"
                yield Inconsistency(what=what, mend=partial(_roll_up, run_id, block))


def _roll_up(run_id: str, block: int, store: Store) -> str:
    with store.writing() as connection:
        only_writer(connection, run_id)
        roll_up(connection, run_id, {block})
    return f"rolled up block {block} of run {run_id} anew"


def _runs_without_process(known: list[RunInfo]) -> Iterator[Inconsistency]:
    for run in known:
        if run.status.alive and process_gone(run):
            what = f"runs: {run.id} is {run.status} and its process is gone"
            yield Inconsistency(what=what, mend=partial(_stop, run))


def _stop(run: RunInfo, store: Store) -> str:
    now = store.run(run.id)
    ends = {"ended_at": _last_sign(store, now), "outcome_reason": "its process was gone"}
    if now.status.alive and process_gone(now):
        store.reclaim_run(now, status=RunStatus.STOPPED, **ends)
    return f"run {run.id} is {store.run(run.id).status}"


def _runs_without_end(known: list[RunInfo]) -> Iterator[Inconsistency]:
    for run in known:
        if not run.status.alive and run.kind == "train" and run.ended_at is None:
            what = f"runs: {run.id} is {run.status} and has no end time"
            yield Inconsistency(what=what, mend=partial(_end, run))


def _end(run: RunInfo, store: Store) -> str:
    sign = _last_sign(store, run)
    with store.writing() as connection:
        connection.execute(update(runs).where(runs.c.id == run.id).values(ended_at=sign))
    return f"run {run.id} ended when it gave its last sign of life"


def _last_sign(store: Store, run: RunInfo) -> float:
    """Return when a run was last heard of: its newest row, its heartbeat, or its beginning."""
    with store.reading() as connection:
        newest = select(func.max(steps.c.time)).where(steps.c.run_id == run.id)
        row = connection.execute(newest).scalar()
    return max(row or 0.0, _sign(run))


def _sign(run: RunInfo) -> float:
    return run.heartbeat_at or run.started_at or run.created_at
