"""What PostgreSQL does otherwise than SQLite is no matter of whoever uses the store."""

import json
import shlex

import pytest
from alembic import command as alembic
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from factories import a_run, a_step
from own_things import own_values
from processes import command, ended, start

from advisor.__main__ import main as advisor
from storage.__main__ import main
from storage.commandline import run_command
from storage.engine import unchecked_engine
from storage.errors import ArchiveUnavailable, SchemaMismatch
from storage.migrate import alembic_config, upgrade
from storage.models import SCHEMA_REVISION, metadata
from storage.records import Event, RunStatus, Sample
from storage.store import Store

OPEN = "import sys; from storage.store import Store; print(len(Store.open(sys.argv[1]).runs()))"


@pytest.fixture
def nothing(postgres_server):
    """The URL of a database without tables."""
    with postgres_server.nothing() as url:
        yield url


@pytest.fixture
def archive(postgres_server):
    """An empty archive on PostgreSQL."""
    with postgres_server.archive() as url:
        opened = Store.open(url)
        yield opened
        opened.close()


def test_the_migrations_make_exactly_the_tables_of_the_models(nothing):
    engine = unchecked_engine(nothing)
    assert upgrade(engine) == (None, SCHEMA_REVISION)
    with engine.connect() as connection:
        context = MigrationContext.configure(
            connection, opts={"compare_type": True, "compare_server_default": True}
        )
        assert compare_metadata(context, metadata) == []
    engine.dispose()


def test_an_older_schema_is_migrated_by_the_very_command_the_message_names(archive, capsys):
    engine = unchecked_engine(archive.url)
    config = alembic_config()
    with engine.connect() as connection:
        config.attributes["connection"] = connection
        alembic.downgrade(config, "0001")
        connection.commit()
    engine.dispose()
    with pytest.raises(SchemaMismatch, match="has schema 0001, this code needs") as found:
        Store.open(archive.url)
    words = shlex.split(str(found.value).split("run: ")[1])
    assert main([*words[3:], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"before": "0001", "after": SCHEMA_REVISION}
    archive.create_run(a_run())


def test_of_processes_that_open_a_new_database_at_once_one_makes_the_tables(nothing, tmp_path):
    started = [start("-c", OPEN, nothing, home=tmp_path) for _ in range(3)]
    opened = [ended(process) for process in started]
    assert [(done.stdout, done.stderr) for done in opened] == [("0\n", "")] * 3


def test_a_database_of_another_program_is_refused_unchanged(nothing):
    engine = unchecked_engine(nothing)
    with engine.begin() as connection:
        connection.exec_driver_sql("CREATE TABLE notes (text text)")
    with pytest.raises(SchemaMismatch, match="no table of Etalon's"):
        Store.open(nothing)
    with engine.begin() as connection:
        names = connection.exec_driver_sql(
            "SELECT tablename FROM pg_tables WHERE tablename !~ '^(pg|sql)_'"
        )
        assert names.scalars().all() == ["notes"]
    engine.dispose()


def test_counts_of_large_models_and_nul_in_a_text_are_stored(archive):
    run = a_run(parameters=70_000_000_000)
    archive.create_run(run)
    archive.append_step(a_step(run.id, 0, tokens=2**40))
    archive.append_samples(
        [Sample(run_id=run.id, step=0, number=0, prompt="a\0b", completion="\0")]
    )
    archive.append_event(
        Event(run_id=run.id, time=1.0, kind="k", message="\0", data={"text": "\0"})
    )
    assert archive.run(run.id).parameters == 70_000_000_000
    assert archive.steps(run.id)[0].tokens == 2**40
    [sample] = archive.samples(run.id)
    assert (sample.prompt, sample.completion) == ("a␀b", "␀")
    [event] = archive.events()
    assert (event.message, event.data) == ("␀", {"text": "\0"})


def test_tags_are_in_the_same_order_as_on_sqlite(archive):
    run = a_run()
    archive.create_run(run)
    archive.tag_run(run.id, ["b", "a", "B", "-a"])
    assert archive.tags() == {run.id: ("-a", "B", "a", "b")}


def test_a_server_that_is_not_there_is_one_line_without_the_password(tmp_path):
    pytest.importorskip("psycopg")
    url = f"postgresql+psycopg://me:secret@/x?host={tmp_path}"
    with pytest.raises(ArchiveUnavailable, match="cannot use") as found:
        Store.open(url)
    assert str(found.value).startswith("db: ")
    assert "secret" not in str(found.value)


def test_a_run_is_trained_shown_diagnosed_and_exported(archive, tmp_path, capsys):
    where = ["--db", archive.url, "--json"]
    values = own_values(tmp_path, learning_rate=1e-3, max_staleness=1)
    setting = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    trained = command("-m", "trainer", "run", *setting, *where, home=tmp_path / "home")
    assert trained.returncode == 0, trained.stderr
    ran = json.loads(trained.stdout)
    assert (ran["status"], ran["steps"]) == (RunStatus.FINISHED, 3)

    def called(package, *words):
        capsys.readouterr()
        assert run_command(package, [*words, *where]) in (0, 4)
        return json.loads(capsys.readouterr().out)

    assert called(main, "show", ran["run_id"])["steps"]
    assert called(advisor, "diagnose", ran["run_id"])["regime"] is not None
    called(main, "export", ran["run_id"], "--to", str(tmp_path / "run.parquet"))
    assert called(main, "check")["inconsistencies"] == []
    assert not (tmp_path / "home" / "etalon.db").exists()
