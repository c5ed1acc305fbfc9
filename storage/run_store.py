"""The store's half about runs: their records, their life, their tags."""

import itertools
import os
import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Any

from sqlalchemy import ColumnElement, and_, delete, select, update
from sqlalchemy.exc import IntegrityError

from .errors import RunAmbiguous, RunExists, RunNotFound, RunTakenOver
from .models import runs, tags
from .records import RunInfo, RunStatus
from .rows import run_info, storable, to_row
from .transactions import Transactions, only_writer
from .words import counted, some_of, visible


class _Numbers:
    """Numbers from a random one on: no two of a process are alike, and of two hardly any."""

    def __init__(self) -> None:
        self.begin()
        os.register_at_fork(after_in_child=self.begin)

    def begin(self) -> None:
        self._counted = itertools.count(secrets.randbelow(1 << 23))

    def next(self) -> int:
        return next(self._counted) % (1 << 24)


_numbers = _Numbers()


def new_run_id(now: float | None = None) -> str:
    """Return a fresh id whose text order is the order of creation: the UTC second, then a number.

    In one second it is the order of creation within a process, and chance between processes.
    """
    moment = time.gmtime(time.time() if now is None else now)
    return f"{time.strftime('%Y%m%d-%H%M%S', moment)}-{_numbers.next():06x}"


LEAST_OF_AN_ID = 4
"""Characters that stand for an id; fewer may be anything, and every id begins with a 2."""


class RunStore(Transactions):
    """What the archive knows of runs as a whole."""

    def create_run(self, run: RunInfo) -> None:
        """Add a run.

        Raises:
            RunExists: a run of that id is there already.
        """
        try:
            with self.writing() as connection:
                connection.execute(runs.insert(), to_row(run))
        except IntegrityError:
            raise RunExists(f"run: {run.id} is in the archive already") from None

    def update_run(self, run_id: str, **changes: Any) -> None:
        """Change some fields of a run.

        Raises:
            RunNotFound: there is no such run.
        """
        if not self._change(runs.c.id == run_id, changes):
            raise self._not_found(run_id)

    def reclaim_run(self, run: RunInfo, **changes: Any) -> bool:
        """Change a run that is still as it was read; False when it has been taken or lives.

        Of all processes that try with the same reading, one succeeds: it counts a sign of life.
        """
        as_read = (
            (runs.c.id == run.id)
            & (runs.c.status == run.status)
            & (runs.c.heartbeat_count == run.heartbeat_count)
        )
        return self._change(as_read, {**changes, "heartbeat_count": run.heartbeat_count + 1})

    def _change(self, chosen: ColumnElement[bool], changes: Mapping[str, Any]) -> bool:
        """Change the run of a condition, if there is one, and say whether there was."""
        with self.writing() as connection:
            query = select(runs.c.non_finite).where(chosen).with_for_update()
            found = connection.execute(query).first()
            if found is None:
                return False
            kept = [name for name in found.non_finite or () if name not in changes]
            values = storable(dict(changes))
            values["non_finite"] = kept + (values["non_finite"] or []) or None
            return connection.execute(update(runs).where(chosen).values(values)).rowcount == 1

    def run(self, run_id: str) -> RunInfo:
        """Return one run.

        Raises:
            RunNotFound: there is no such run; the message names the nearest ids.
        """
        with self.reading() as connection:
            row = connection.execute(select(runs).where(runs.c.id == run_id)).mappings().first()
        if row is None:
            raise self._not_found(run_id)
        return run_info(row)

    def run_id_of(self, asked: str) -> str:
        """Return the id of the one run that a person asks for.

        Args:
            asked: an id, four characters or more of its beginning, what is behind its last dash,
                or a name.

        Raises:
            RunNotFound: there is no such run; the message names the nearest ids.
            RunAmbiguous: there are several; the message names them.
        """
        query = select(runs.c.id, runs.c.name).order_by(runs.c.id.desc())
        with self.reading() as connection:
            names: dict[str, str] = {row.id: row.name for row in connection.execute(query)}
        if asked in names:
            return asked
        is_part = len(asked) >= LEAST_OF_AN_ID
        found = [
            each
            for each, name in names.items()
            if name == asked or (is_part and (each.startswith(asked) or each.endswith(f"-{asked}")))
        ]
        if not asked or not found:
            raise self._not_found(asked)
        if len(found) > 1:
            several = f"{len(found)} runs: {some_of(found)}"
            raise RunAmbiguous(f"run: {asked!r} fits {several}; give more of the id of one")
        return found[0]

    def runs(self, *, archived: bool | None = None, group: str | None = None) -> list[RunInfo]:
        """Return the runs, newest first; ``archived`` and ``group`` filter, None keeps all."""
        query = select(runs).order_by(runs.c.id.desc())
        if archived is not None:
            query = query.where(runs.c.archived.is_(archived))
        if group is not None:
            query = query.where(runs.c.group == group)
        with self.reading() as connection:
            return [run_info(row) for row in connection.execute(query).mappings()]

    def claim_run(self, run_id: str, **changes: Any) -> bool:
        """Mark a queued run as running, with these changes; False when it is not to be had.

        Of all processes that try, one gets it. A run that was put away is not to be had.
        """
        queued = (runs.c.id == run_id) & (runs.c.status == RunStatus.QUEUED) & ~runs.c.archived
        values = {"status": RunStatus.RUNNING, **changes}
        with self.writing() as connection:
            return connection.execute(update(runs).where(queued).values(values)).rowcount == 1

    def take_run(
        self, chosen: Callable[[list[RunInfo]], RunInfo | None], **changes: Any
    ) -> RunInfo | None:
        """Change the run that is ``chosen`` of those that are alive, and return it as it was.

        Nobody else takes one in between, so two processes never take the same.
        """
        alive = runs.c.status.in_([status for status in RunStatus if status.alive])
        with self.writing() as connection:
            only_writer(connection, "taking a run")
            query = select(runs).where(alive, ~runs.c.archived).with_for_update()
            run = chosen([run_info(row) for row in connection.execute(query).mappings()])
            if run is not None:
                connection.execute(update(runs).where(runs.c.id == run.id).values(changes))
            return run

    def revise_group(
        self, group: str, revised: Callable[[list[RunInfo]], Iterable[RunInfo]]
    ) -> None:
        """Write what ``revised`` makes of the runs of a group, newest first, in one transaction.

        A record of a new id is added, one of a known id replaced. Nobody else revises the group or
        writes a run of it in between, so two processes that add what is missing add it once.
        """
        query = select(runs).where(runs.c.group == group).order_by(runs.c.id.desc())
        query = query.with_for_update()
        with self.writing() as connection:
            only_writer(connection, f"group {group}")
            found = [run_info(row) for row in connection.execute(query).mappings()]
            for run in revised(found):
                connection.execute(self._run_upsert, to_row(run))

    def heartbeat(self, run_id: str, now: float, **process: Any) -> bool:
        """Count one sign of life of a run and return whether somebody asked it to stop.

        ``process`` are the columns that tell who gives it.

        Raises:
            RunTakenOver: the run has another process now, or was ended as if it had none.
        """
        own = and_(runs.c.id == run_id, *(runs.c[name] == value for name, value in process.items()))
        with self.writing() as connection:
            counted = connection.execute(
                update(runs)
                .where(own)
                .values(heartbeat_count=runs.c.heartbeat_count + 1, heartbeat_at=now)
            )
            query = select(
                runs.c.stop_requested, runs.c.host, runs.c.pid, runs.c.status, runs.c.outcome_reason
            )
            found = connection.execute(query.where(runs.c.id == run_id)).first()
            if found is not None and counted.rowcount == 0:
                raise RunTakenOver(
                    f"run: {run_id} is carried out by process {found.pid} on {found.host} now"
                    if RunStatus(found.status).alive
                    else f"run: {run_id} was {found.status} meanwhile: "
                    f"{visible(str(found.outcome_reason))}"
                )
            return bool(found and found.stop_requested)

    def delete_run(self, run_id: str) -> None:
        """Remove a run and every row of it; what was advised from it keeps its id as text.

        Raises:
            RunNotFound: there is no such run.
        """
        with self.writing() as connection:
            gone = connection.execute(delete(runs).where(runs.c.id == run_id)).rowcount
        self._newest.pop(run_id, None)
        if not gone:
            raise self._not_found(run_id)

    # -- tags ---------------------------------------------------------------------------------

    def tag_run(self, run_id: str, words: Iterable[str]) -> None:
        """Give a run these tags and no others.

        Raises:
            RunNotFound: there is no such run.
        """
        rows = [{"run_id": run_id, "tag": word} for word in dict.fromkeys(words)]
        try:
            with self.writing() as connection:
                connection.execute(delete(tags).where(tags.c.run_id == run_id))
                if rows:
                    connection.execute(tags.insert(), rows)
        except IntegrityError:
            raise self._not_found(run_id) from None

    def tags(self) -> dict[str, tuple[str, ...]]:
        """Return the tags of every run that has any, in alphabetical order."""
        found: dict[str, tuple[str, ...]] = {}
        with self.reading() as connection:
            for run_id, word in connection.execute(select(tags)):
                found[run_id] = (*found.get(run_id, ()), word)
        return {run_id: tuple(sorted(words)) for run_id, words in found.items()}

    def _not_found(self, run_id: str) -> RunNotFound:
        with self.reading() as connection:
            known = list(connection.execute(select(runs.c.id)).scalars())
        near = get_close_matches(run_id, known, n=3, cutoff=0.5)
        hint = f"nearest: {', '.join(near)}" if near else f"it holds {counted(len(known), 'run')}"
        return RunNotFound(f"run: {run_id!r} is not in the archive; {hint}")
