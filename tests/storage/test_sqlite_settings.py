"""One trainer writes while any number of pages read, in processes of their own."""

import signal
import sqlite3
import threading
import time

import pytest
from factories import a_run, a_step
from processes import ended, start, wait_until

from storage.check import inconsistencies
from storage.errors import ArchiveUnavailable
from storage.store import Store

WRITER = """
import sys, time
from storage.records import StepMetrics
from storage.store import Store

store = Store.open(sys.argv[1], create=False)
for step in range(int(sys.argv[3])):
    store.append_step(StepMetrics(run_id=sys.argv[2], step=step, time=time.time(), loss=step / 4))
    time.sleep(0.001)
"""


def pragma(store, name):
    with store.reading() as connection:
        return connection.exec_driver_sql(f"PRAGMA {name}").scalar()


def test_the_settings_that_reading_beside_a_writer_needs_are_really_set(store):
    assert pragma(store, "journal_mode") == "wal"
    assert pragma(store, "synchronous") == 1  # NORMAL
    assert pragma(store, "foreign_keys") == 1
    assert pragma(store, "busy_timeout") == 30_000


def test_a_page_reads_while_another_process_writes_five_hundred_steps(store, tmp_path):
    run = a_run()
    store.create_run(run)
    writer = start("-c", WRITER, store.url, run.id, "500", home=tmp_path)
    counts = []
    while writer.poll() is None:
        counts.append(store.step_counts().get(run.id, 0))
        seen = store.series(run.id, ["step", "loss"])
        assert seen["step"] == list(range(len(seen["step"])))
        assert seen["loss"] == [step / 4 for step in seen["step"]]
        assert len(seen["step"]) >= counts[-1]
    done = ended(writer)
    assert done.returncode == 0, done.stderr
    assert counts == sorted(counts)
    assert len(set(counts)) > 3, "the reader saw the run move"
    assert store.step_counts() == {run.id: 500}


def test_a_writer_killed_at_any_moment_leaves_every_committed_step(store, tmp_path):
    run = a_run()
    store.create_run(run)
    writer = start("-c", WRITER, store.url, run.id, "100000", home=tmp_path)
    wait_until(lambda: store.step_counts().get(run.id, 0) > 50)
    writer.send_signal(signal.SIGKILL)
    ended(writer)
    steps = [row.step for row in store.steps(run.id)]
    assert steps == list(range(len(steps)))
    assert inconsistencies(store) == []


def test_an_open_reader_neither_stops_a_writer_nor_sees_half_of_its_work(store):
    run = a_run()
    store.create_run(run)
    other = Store.open(store.url, create=False)
    count = "SELECT COUNT(*) FROM steps"
    with store.reading() as connection:
        assert connection.exec_driver_sql(count).scalar() == 0
        other.append_step(a_step(run.id, 0))
        assert other.step_counts() == {run.id: 1}
        assert connection.exec_driver_sql(count).scalar() == 0
    assert store.step_counts() == {run.id: 1}
    other.close()


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


def test_a_second_writer_waits_for_the_first(store):
    run = a_run()
    store.create_run(run)
    other = Store.open(store.url, create=False)
    second = threading.Thread(target=lambda: other.append_step(a_step(run.id, 0)))
    with store.writing():
        second.start()
        time.sleep(0.3)
        assert store.step_counts() == {}
    second.join()
    assert store.step_counts() == {run.id: 1}
    other.close()


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
