"""An open archive as transactions: every write and every read is one, short and of its own.

A long reader would stop SQLite from checkpointing its log. On PostgreSQL a read sees one moment, as
it does on SQLite, and whoever writes the steps of a run does so alone (``only_writer``). What the
database says is translated into the errors of this package.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Connection, Engine, Table, event, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DataError, DBAPIError, IntegrityError, ProgrammingError

from .engine import open_engine, shown
from .errors import ArchiveUnavailable, WriteRefused
from .models import bias_probes, drifts, evaluations, runs, samples, steps
from .rows import Upsert, upsert

_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_REPLACED = (steps, evaluations, drifts, bias_probes, samples)
"""Tables in which a row of the same key replaces the one that is there."""
_READING: dict[str, dict[str, Any]] = {
    "sqlite": {"etalon_writes": False},
    "postgresql": {"isolation_level": "REPEATABLE READ", "postgresql_readonly": True},
}


class Transactions:
    """An open archive. One instance per process; safe to share between its threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        insert = _INSERT[engine.dialect.name]
        path = engine.url.database
        is_file = engine.dialect.name == "sqlite" and path not in (None, "", ":memory:")
        self._file = (str(path), _identity(str(path))) if is_file else None
        if is_file:
            event.listen(engine, "do_connect", self._refuse_to_begin_anew)
        self._insert = insert
        self._upserts = {table: Upsert(insert, table, engine.dialect) for table in _REPLACED}
        self._run_upsert = upsert(insert, runs)
        self._newest: dict[str, int] = {}  # last step of each run that this store has written to

    @classmethod
    def open(
        cls,
        url: str | None = None,
        *,
        create: bool = True,
        patience: float | None = None,
    ) -> Self:
        """Open the archive at a URL or path (None: the configured default); see ``open_engine``."""
        return cls(open_engine(url, create=create, patience=patience))

    @property
    def url(self) -> str:
        """The URL under which another process opens the same archive."""
        return self._engine.url.render_as_string(hide_password=False)

    @property
    def file(self) -> Path | None:
        """The file of the archive; None when it is on a server."""
        return None if self._file is None else Path(self._file[0])

    def close(self) -> None:
        """Return every connection."""
        self._engine.dispose()

    @property
    def shown_url(self) -> str:
        """The URL as it may be shown, without a password."""
        return shown(self._engine.url)

    def check_answers(self) -> None:
        """Read next to nothing, so that an archive that does not answer says so here.

        Raises:
            ArchiveUnavailable: it does not answer, or its file is gone or another one.
        """
        self.check_place()
        with self.reading() as connection:
            connection.execute(select(runs.c.id).limit(1)).first()

    def check_place(self) -> None:
        """Look whether the file of the archive is where it was opened.

        A SQLite file that was moved or deleted still answers those who have it open, and what is
        written to it is lost.

        Raises:
            ArchiveUnavailable: it is gone or another one.
        """
        if self._file is not None and _identity(self._file[0]) != self._file[1]:
            raise ArchiveUnavailable(
                f"db: {self._file[0]} is gone, or another file than was opened; put it back"
            )

    def to_disk(self) -> None:
        """Bring to the disk what was committed, as far as a SQLite file leaves that to the system.

        A commit outlives any process without it, but no power cut.
        """
        if self._file is not None:
            with suppress(FileNotFoundError), Path(f"{self._file[0]}-wal").open("rb") as log:
                os.fsync(log.fileno())

    @property
    def is_replaced(self) -> bool:
        """Whether another file lies where the archive was opened, so that it must be again."""
        now = None if self._file is None else _identity(self._file[0])
        return now is not None and self._file is not None and now != self._file[1]

    def _refuse_to_begin_anew(self, *_: Any) -> None:
        """Let no further connection make an empty archive where the file was moved away."""
        if self._file is not None and not Path(self._file[0]).exists():
            raise sqlite3.OperationalError(f"{self._file[0]} is gone")

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open one write transaction; for this package only."""
        with self._translated(), self._engine.connect() as connection:
            connection.execution_options(etalon_writes=True)
            with connection.begin():
                yield connection

    def write_alone(self, table: Table, record: Any) -> None:
        """Write one record of a SQLite archive as a transaction of its own; for this package only.

        There one statement is one transaction. It goes to the driver itself, because SQLAlchemy's
        share of a transaction takes several times as long as SQLite's.
        """
        upsert = self._upserts[table]
        with self._translated():
            try:
                with closing(self._engine.raw_connection()) as connection:
                    connection.cursor().execute(upsert.statement, upsert.parameters(record))
            except sqlite3.Error as error:
                raise DBAPIError.instance(
                    upsert.statement, None, error, sqlite3.Error, dialect=self._engine.dialect
                ) from error

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open one read transaction; for this package only."""
        with self._translated(), self._engine.connect() as connection:
            connection.execution_options(**_READING[connection.dialect.name])
            with connection.begin():
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except (DataError, ProgrammingError) as error:
            raise WriteRefused(f"db: the archive does not take that: {error.orig}") from error
        except DBAPIError as error:
            raise ArchiveUnavailable(
                f"db: {shown(self._engine.url)} does not answer: {error.orig}"
            ) from error


def only_writer(connection: Connection, what: str) -> None:
    """Wait until nobody else writes ``what``, and keep it until this transaction ends.

    SQLite has one writer anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtextextended(what, 0))))


def _identity(path: str) -> tuple[int, int] | None:
    """Tell a file from any other by device and inode; None where there is none, or an empty one.

    That is a copy that begins: SQLite would write into it.
    """
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return (found.st_dev, found.st_ino) if found.st_size else None
