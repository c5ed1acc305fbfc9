"""What is not an archive of this schema is refused in one clear line, and left as it was."""

import json
import os
import shlex
import sqlite3

import pytest
from alembic import command as alembic
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from factories import a_run

from storage.__main__ import main
from storage.engine import home, unchecked_engine
from storage.errors import ArchiveUnavailable, SchemaMismatch, StorageError
from storage.migrate import alembic_config, upgrade
from storage.models import SCHEMA_REVISION, metadata
from storage.store import Store


def contents(folder):
    """Every path in a folder, files with their bytes."""
    return {path: path.is_file() and path.read_bytes() for path in sorted(folder.rglob("*"))}


def execute(path, *statements):
    connection = sqlite3.connect(path)
    for statement in statements:
        connection.execute(statement)
    connection.commit()
    connection.close()


def refused(error, given, folder, *, create):
    """Open what must be refused with one line and no trace; return the line."""
    before = contents(folder)
    with pytest.raises(error) as found:
        Store.open(str(given), create=create)
    assert isinstance(found.value, StorageError)
    assert contents(folder) == before
    [line] = str(found.value).splitlines()
    assert line.startswith("db: ")
    return line


CREATE = pytest.mark.parametrize("create", [True, False])


def test_the_schema_of_the_code_is_the_newest_migration():
    heads = ScriptDirectory.from_config(alembic_config()).get_heads()
    assert heads == [SCHEMA_REVISION]


def test_the_migrations_make_exactly_the_tables_of_the_models(tmp_path):
    (tmp_path / "a.db").touch()
    engine = unchecked_engine(str(tmp_path / "a.db"))
    assert upgrade(engine) == (None, SCHEMA_REVISION)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_migrating_twice_changes_nothing(tmp_path):
    Store.open(str(tmp_path / "a.db")).close()
    engine = unchecked_engine(str(tmp_path / "a.db"))
    assert upgrade(engine) == (SCHEMA_REVISION, SCHEMA_REVISION)
    engine.dispose()


@CREATE
def test_a_newer_schema_is_refused_and_cannot_be_migrated(tmp_path, create):
    path = tmp_path / "a.db"
    Store.open(str(path)).close()
    execute(path, "UPDATE alembic_version SET version_num = '9999'")
    line = refused(SchemaMismatch, path, tmp_path, create=create)
    assert "9999" in line
    assert SCHEMA_REVISION in line
    with pytest.raises(SchemaMismatch, match="newer Etalon wrote it; update Etalon"):
        main(the_command_of(line))


def the_command_of(line):
    """Return the arguments of the ``python -m storage …`` that a message tells to run."""
    words = shlex.split(line.split("run: ")[1])
    assert words[:3] == ["python", "-m", "storage"]
    return words[3:]


def emptied(path):
    path.touch()


def downgraded(path):
    store = Store.open(str(path))
    engine = unchecked_engine(str(path))
    config = alembic_config()
    with engine.connect().execution_options(etalon_writes=True) as connection:
        config.attributes["connection"] = connection
        alembic.downgrade(config, "base")
        connection.commit()
    engine.dispose()
    store.close()


@pytest.mark.parametrize("older", [emptied, downgraded])
def test_an_older_schema_is_migrated_by_the_very_command_the_message_names(tmp_path, capsys, older):
    path = tmp_path / "a file.db"
    older(path)
    with pytest.raises(SchemaMismatch, match="has schema none, this code needs") as found:
        Store.open(str(path), create=False)
    assert main([*the_command_of(str(found.value)), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {
        "before": None,
        "before_reason": "empty",
        "after": SCHEMA_REVISION,
    }
    store = Store.open(str(path), create=False)
    store.create_run(a_run())
    store.close()


@CREATE
@pytest.mark.parametrize(
    ("table", "words"), [("notes", "no table of Etalon's"), ("steps", "some of Etalon's tables")]
)
def test_the_database_of_another_program_is_refused_unchanged(tmp_path, create, table, words):
    path = tmp_path / "other.db"
    execute(path, f"CREATE TABLE {table} (text)", f"INSERT INTO {table} VALUES ('precious')")
    line = refused(SchemaMismatch, path, tmp_path, create=create)
    assert words in line
    assert "--db" in line


@CREATE
def test_a_text_file_is_refused_unchanged(tmp_path, create):
    path = tmp_path / "notes.txt"
    path.write_text("precious\n" * 1000)
    assert "file is not a database" in refused(ArchiveUnavailable, path, tmp_path, create=create)


@CREATE
def test_a_folder_is_refused(tmp_path, create):
    assert "is a folder" in refused(ArchiveUnavailable, tmp_path, tmp_path, create=create)


def test_the_folder_of_a_named_archive_must_exist(tmp_path):
    path = tmp_path / "missing" / "a.db"
    assert "does not exist" in refused(ArchiveUnavailable, path, tmp_path, create=True)


def test_an_archive_that_is_not_there_is_made_only_when_asked(tmp_path):
    path = tmp_path / "a.db"
    assert "there is no archive" in refused(ArchiveUnavailable, path, tmp_path, create=False)
    Store.open(str(path), create=True).close()
    assert path.is_file()


def test_a_path_that_cannot_be_written_is_refused(tmp_path):
    file = tmp_path / "file"
    file.write_text("precious")
    refused(ArchiveUnavailable, file / "a.db", tmp_path, create=True)
    refused(ArchiveUnavailable, "/proc/a.db", tmp_path, create=True)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_or_file_is_refused(tmp_path):
    path = tmp_path / "locked" / "a.db"
    path.parent.mkdir()
    path.parent.chmod(0o500)
    assert "not writable" in refused(ArchiveUnavailable, path, tmp_path, create=True)
    path.parent.chmod(0o700)
    Store.open(str(path)).close()
    path.chmod(0o400)
    assert "readable and writable" in refused(ArchiveUnavailable, path, tmp_path, create=True)


@pytest.mark.parametrize(
    "given", ["nosuch://x", "sqlite://", "sqlite:///:memory:", "http://[", "", " "]
)
def test_a_url_of_no_database_is_refused(tmp_path, given):
    refused(ArchiveUnavailable, given, tmp_path, create=True)


def test_a_password_is_not_shown(tmp_path):
    given = "postgresql+nosuch://me:secret@localhost/x"
    assert "secret" not in refused(ArchiveUnavailable, given, tmp_path, create=True)


def test_the_default_archive_is_made_with_its_folder_on_demand(tmp_path, monkeypatch):
    monkeypatch.delenv("ETALON_DB", raising=False)
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "made" / "on demand"))
    Store.open().close()
    assert (home() / "etalon.db").is_file()
    monkeypatch.setenv("ETALON_DB", str(tmp_path / "named.db"))
    Store.open().close()
    assert (tmp_path / "named.db").is_file()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.delenv("ETALON_DB", raising=False)
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "file" / "home"))
    with pytest.raises(ArchiveUnavailable, match="cannot make"):
        Store.open()
