"""The settings of SQLite that let one trainer write while any number of pages read."""

import sqlite3
import threading

import pytest
from factories import a_run, a_step

from storage.errors import ArchiveUnavailable, RunNotFound
from storage.store import Store


@pytest.fixture
def store(tmp_path):
    opened = Store.open(str(tmp_path / "archive.db"))
    yield opened
    opened.close()


def pragma(store, name):
    with store.reading() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_the_settings_that_reading_beside_a_writer_needs_are_really_set(store):
    assert pragma(store, "journal_mode") == "wal"
    assert pragma(store, "synchronous") == 1  # NORMAL
    assert pragma(store, "foreign_keys") == 1
    assert pragma(store, "busy_timeout") == 30_000


def test_a_write_takes_the_lock_when_it_begins_and_readers_go_on(store, tmp_path):
    run = a_run()
    store.create_run(run)
    impatient = sqlite3.connect(tmp_path / "archive.db", timeout=0, isolation_level=None)
    with store.writing():
        assert impatient.execute("SELECT COUNT(*) FROM runs").fetchone() == (1,)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            impatient.execute("BEGIN IMMEDIATE")
    with store.reading():
        impatient.execute("BEGIN IMMEDIATE")
        impatient.execute("ROLLBACK")
    impatient.close()


def test_a_write_that_fails_leaves_nothing(store):
    run = a_run()
    store.create_run(run)

    def delete_then_fail():
        with store.writing() as connection:
            connection.exec_driver_sql("DELETE FROM runs")
            connection.exec_driver_sql("DELETE FROM nowhere")

    with pytest.raises(ArchiveUnavailable, match="no such table: nowhere"):
        delete_then_fail()
    assert [kept.id for kept in store.runs()] == [run.id]


def test_opening_a_new_archive_waits_for_another_process_that_is_making_it(tmp_path):
    path = tmp_path / "new.db"
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    release = threading.Timer(0.3, lambda: other.execute("ROLLBACK"))
    release.start()
    opened = Store.open(str(path))
    assert opened.runs() == []
    release.join()
    opened.close()
    other.close()


def test_what_goes_wrong_with_a_step_behind_all_others_is_told_as_of_any_write(store, tmp_path):
    run = a_run()
    store.create_run(run)
    store.append_step(a_step(run.id, 0))
    with store.reading() as connection:
        connection.exec_driver_sql("PRAGMA busy_timeout = 10")
    other = sqlite3.connect(tmp_path / "archive.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ArchiveUnavailable, match="does not answer: database is locked"):
        store.append_step(a_step(run.id, 1))
    other.execute("ROLLBACK")
    store.append_step(a_step(run.id, 1))
    assert [row.step for row in store.steps(run.id)] == [0, 1]
    other.execute("PRAGMA foreign_keys = ON")
    other.execute("DELETE FROM runs")
    with pytest.raises(RunNotFound, match=run.id):
        store.append_step(a_step(run.id, 2))
    other.close()
