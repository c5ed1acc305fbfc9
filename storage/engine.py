"""How an archive is opened: where it lies, the SQLite settings, and the schema check.

SQLite runs in WAL with synchronous=NORMAL, foreign keys and a busy timeout, so one trainer commits
a row per learner step while any number of pages read. A write transaction starts with
BEGIN IMMEDIATE: one that began by reading could not be promoted while another writer holds the
lock, whatever the timeout. PostgreSQL is for archives that several machines write.
"""

import os
import re
import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import Any

from sqlalchemy import Engine, create_engine, event, inspect, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError

from .errors import ArchiveUnavailable, PathOutside, SchemaMismatch
from .models import SCHEMA_REVISION, metadata

BUSY_TIMEOUT_SECONDS = 30.0
UNANSWERED_MILLISECONDS = 30_000
"""A PostgreSQL server that acknowledges nothing for so long is away, though nobody hung up."""


def home() -> Path:
    """Return the folder that holds the archive, warm starts and logs (``ETALON_HOME``)."""
    return Path(os.environ.get("ETALON_HOME") or "runs")


def checkpoint_folder(run_id: str) -> Path:
    """Return where the checkpoints of a run lie, by the number of learner steps taken.

    Raises:
        PathOutside: the id names no folder of its own there.
    """
    return home() / "checkpoints" / part_of_path(run_id)


def journals_folder() -> Path:
    """Return where the journals of runs lie."""
    return home() / "journals"


def journal_file(run_id: str) -> Path:
    """Return where a run keeps what the archive does not take, until it does.

    Raises:
        PathOutside: the id names no file of its own there.
    """
    return journals_folder() / f"{part_of_path(run_id)}.jsonl"


def policy_folder(run_id: str) -> Path:
    """Return where the last policy of a run lies, if it was to be kept.

    Raises:
        PathOutside: the id names no folder of its own there.
    """
    return home() / "policies" / part_of_path(run_id)


def part_of_path(run_id: str) -> str:
    """Return an id as it may stand in a path: whoever writes to the archive chose it.

    Raises:
        PathOutside: it would lead to another folder.
    """
    if not re.fullmatch(r"[\w.-]+", run_id) or set(run_id) == {"."}:
        raise PathOutside(f"run: {run_id!r} is no id; allowed: letters, digits, - _ and .")
    return run_id


def database_url(given: str | None) -> URL:
    """Return the archive's URL: the given one, else ``ETALON_DB``, else a file in ``home()``.

    A plain path is taken as a SQLite file.

    Raises:
        ArchiveUnavailable: the text is not a database URL, or names an unsupported database.
    """
    written = os.environ.get("ETALON_DB") or None if given is None else given
    if written is None:
        return URL.create("sqlite", database=str((home() / "etalon.db").resolve()))
    if not written.strip():
        raise ArchiveUnavailable(f"db: {written!r} names no file; give a file path or a URL")
    if "://" not in written and not ("@" in written and written.startswith("postgres")):
        return URL.create("sqlite", database=str(Path(written).resolve()))
    try:
        url = make_url(written)
    except (ArgumentError, ValueError):
        raise ArchiveUnavailable(
            f"db: {without_password(written)!r} is not a database URL; allowed: sqlite:///FILE, "
            "a file path, or postgresql+psycopg://USER@HOST/NAME"
        ) from None
    if "@" in (url.host or ""):  # the rest of a password, which every complaint would show
        raise ArchiveUnavailable(
            f"db: {without_password(written)!r} has two signs @; write that of a password as %40"
        )
    if url.get_backend_name() not in ("sqlite", "postgresql"):
        raise ArchiveUnavailable(
            f"db: {shown(url)} is of another database; allowed: SQLite and PostgreSQL"
        )
    if url.get_backend_name() == "sqlite" and url.database in (None, "", ":memory:"):
        raise ArchiveUnavailable(
            f"db: {shown(url)} names no file; trainer and dashboard share a file: sqlite:///FILE"
        )
    return url


def open_engine(
    given: str | None = None, *, create: bool = True, patience: float | None = None
) -> Engine:
    """Open an archive and check that its schema is the one this code knows.

    Args:
        given: URL or path; None for the configured default.
        create: make the file and its tables when there are none. The default folder is made on
            demand; the folder of an archive that somebody named must exist.
        patience: how long to wait for a lock that others hold, in seconds; None for
            ``BUSY_TIMEOUT_SECONDS``.

    Raises:
        ArchiveUnavailable: it cannot be opened, or is absent and ``create`` is False.
        SchemaMismatch: it holds another schema; the message names the command to run.
    """
    url = database_url(given)
    if url.get_backend_name() == "sqlite":
        _check_file(Path(str(url.database)), create, is_default=_is_default(given))
    engine = _connectable(url, patience)
    try:
        _check_schema(engine, create)
    except DBAPIError as error:
        engine.dispose()
        raise ArchiveUnavailable(f"db: cannot use {shown(url)}: {error.orig}") from error
    except SchemaMismatch:
        engine.dispose()
        raise
    return engine


def unchecked_engine(given: str | None = None) -> Engine:
    """Open an existing archive whatever its schema: for ``migrate`` and nothing else.

    Raises:
        ArchiveUnavailable: there is no such file.
    """
    url = database_url(given)
    if url.get_backend_name() == "sqlite":
        _check_file(Path(str(url.database)), create=False, is_default=False)
    return _connectable(url)


def _is_default(given: str | None) -> bool:
    return given is None and not os.environ.get("ETALON_DB")


def shown(url: URL) -> str:
    """Write a URL for people to read, without the passwords in it."""
    return without_password(url.render_as_string(hide_password=True))


def without_password(written: str) -> str:
    """Return what is, or was meant to be, a database URL with stars for what may be a password."""
    hidden = re.sub(r":(?!//).*@", ":***@", written, flags=re.DOTALL)
    return re.sub(r"(?i)(pass[a-z]*=)[^&]*", r"\1***", hidden)


def _check_file(path: Path, create: bool, is_default: bool) -> None:
    if path.is_dir():
        raise ArchiveUnavailable(f"db: {path} is a folder; name a file in it")
    if path.exists():
        if not os.access(path, os.R_OK | os.W_OK):
            raise ArchiveUnavailable(f"db: {path} is not readable and writable; change its mode")
        return
    if not create:
        raise ArchiveUnavailable(f"db: there is no archive at {path}; start a run to make one")
    if is_default:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ArchiveUnavailable(f"db: cannot make {path.parent}: {error.strerror}") from None
    if not path.parent.is_dir():
        raise ArchiveUnavailable(f"db: the folder {path.parent} does not exist; make it first")
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise ArchiveUnavailable(f"db: the folder {path.parent} is not writable; choose another")


def _connectable(url: URL, patience: float | None = None) -> Engine:
    patience = BUSY_TIMEOUT_SECONDS if patience is None else patience
    try:
        if url.get_backend_name() == "postgresql":
            unanswered = {"tcp_user_timeout": UNANSWERED_MILLISECONDS}
            unanswered["connect_timeout"] = max(2, round(patience))  # libpq allows no less
            engine = create_engine(url, pool_pre_ping=True, connect_args=unanswered)
            event.listen(engine, "connect", _configure_postgresql)
            event.listen(engine, "connect", partial(_limit_waiting, patience))
            return engine
        engine = create_engine(url, connect_args={"timeout": patience})
    except (NoSuchModuleError, ModuleNotFoundError) as error:
        raise ArchiveUnavailable(
            f"db: no driver for {shown(url)}: {error}; "
            "for PostgreSQL: pip install -r requirements-postgres.txt"
        ) from None
    event.listen(engine, "connect", _configure_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return engine


def _configure_postgresql(connection: Any, _: Any) -> None:
    """Store NUL, which PostgreSQL's text cannot hold and a sampled answer may, as its picture."""
    from psycopg.types.string import StrDumper  # an optional package

    class WithoutNul(StrDumper):
        def dump(self, obj: str) -> Any:
            return super().dump(obj.replace("\0", "\N{SYMBOL FOR NULL}"))

    connection.adapters.register_dumper(str, WithoutNul)


def _limit_waiting(patience: float, connection: Any, _: Any) -> None:
    """Let nobody wait longer for a lock, as SQLite's busy timeout does."""
    connection.execute(f"SET lock_timeout = {round(1000 * patience)}")
    connection.commit()  # which makes it that of the session


def _configure_sqlite(connection: sqlite3.Connection, _: Any) -> None:
    connection.isolation_level = None  # BEGIN is ours, see _begin_sqlite
    for pragma in ("synchronous=NORMAL", "foreign_keys=ON"):
        connection.execute(f"PRAGMA {pragma}")
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master").fetchall()}
    if not tables or tables >= {"alembic_version", "steps"}:
        _log_ahead(connection)  # the mode is written into the file: never into a stranger's


def _log_ahead(connection: sqlite3.Connection) -> None:
    """Switch to WAL, waiting for others that open the new file: SQLite itself does not, here."""
    until = time.monotonic() + BUSY_TIMEOUT_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)


def _begin_sqlite(connection: Any) -> None:
    writes = connection.get_execution_options().get("etalon_writes", False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")


def _check_schema(engine: Engine, create: bool) -> None:
    found = schema_revision(engine)
    if found is None and create:
        from .migrate import upgrade  # alembic is slow to import and rarely needed

        upgrade(engine)
    elif found != SCHEMA_REVISION:
        raise SchemaMismatch(
            f"db: {shown(engine.url)} has schema {found or 'none'}, this code needs "
            f"{SCHEMA_REVISION}; run: python -m storage migrate --db '{shown(engine.url)}'"
        )


def schema_revision(engine: Engine) -> str | None:
    """Return the schema revision of an archive; None when the database holds no table at all.

    Raises:
        SchemaMismatch: there are tables, but no record of which schema they are.
    """
    with engine.connect() as connection:
        tables = set(inspect(connection).get_table_names())
        if "alembic_version" in tables:
            version = connection.execute(text("SELECT version_num FROM alembic_version")).scalar()
            if version is not None:
                return str(version)
            tables -= {"alembic_version"}
    if not tables:
        return None
    known = "some of Etalon's tables" if tables & set(metadata.tables) else "no table of Etalon's"
    raise SchemaMismatch(
        f"db: {shown(engine.url)} holds {known} and no schema revision, so it is not an archive "
        "of this program; give another file with --db"
    )
