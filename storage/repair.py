"""Mend what ``check`` found: a copy of the archive first, then one thing after the other."""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from sqlalchemy import create_engine, insert, select

from .check import found_in
from .copying import PORTION, as_held
from .engine import home
from .errors import ArchiveUnavailable, StorageError
from .models import metadata
from .store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Repaired:
    """Where the copy lies (None: nothing was wrong), what was done, and what is still wrong."""

    copy: Path | None
    done: tuple[str, ...]
    left: tuple[str, ...]


def repair(store: Store) -> Repaired:
    """Copy the archive, then mend what can be mended.

    Raises:
        ArchiveUnavailable: the copy cannot be made; then nothing is changed.
    """
    found = found_in(store)
    if not found:
        return Repaired(copy=None, done=(), left=())
    copy = copied(store)
    done: list[str] = []
    for mend in dict.fromkeys(each.mend for each in found if each.mend is not None):
        try:
            done.append(mend(store))
        except StorageError as error:  # the check below names what is still wrong
            done.append(f"could not be mended: {error}")
    return Repaired(copy=copy, done=tuple(done), left=tuple(each.what for each in found_in(store)))


def copied(store: Store) -> Path:
    """Copy an archive into a file beside it, or in ``ETALON_HOME`` if it is a PostgreSQL database.

    A SQLite file is copied page by page, whatever state it is in; of a PostgreSQL database every
    table is, as one moment shows it.

    Raises:
        ArchiveUnavailable: there is no room, or the archive cannot be read.
    """
    stamp = datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f")
    source = store.file
    copy = (source or home() / "etalon.db").with_suffix(f".before-repair-{stamp}.db")
    try:
        if source is not None:
            with closing(sqlite3.connect(source)) as old, closing(sqlite3.connect(copy)) as new:
                old.backup(new)
        else:
            copy.parent.mkdir(parents=True, exist_ok=True)
            _copy_tables(store, copy)
    except (OSError, sqlite3.Error) as error:
        copy.unlink(missing_ok=True)
        raise ArchiveUnavailable(
            f"db: no copy at {copy}, so nothing is changed: {error}"
        ) from error
    return copy


def _copy_tables(store: Store, copy: Path) -> None:
    from .migrate import upgrade  # alembic is slow to import

    engine = create_engine(f"sqlite:///{copy}")  # which keeps no foreign keys: orphans go along
    upgrade(engine)
    with store.reading() as old, engine.begin() as new:
        for table in map(as_held, metadata.sorted_tables):
            rows = old.execute(select(table).execution_options(yield_per=PORTION)).mappings()
            for portion in rows.partitions():
                new.execute(insert(table), [dict(row) for row in portion])
    engine.dispose()
