"""An archive that is locked, moved, full, away or restarted costs no write, and no order."""

import fcntl
import logging
import os
import sqlite3
import subprocess
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress

import psutil
import pytest
from factories import a_run, a_step, an_evaluation
from processes import PATIENCE, wait_until

from storage.check import inconsistencies
from storage.engine import journal_file
from storage.errors import ArchiveUnavailable, RunTakenOver
from storage.journal import Journal, RunChange, send_journal
from storage.records import BiasProbe, Event, LagDrift, RunStatus, Sample
from storage.store import Store
from trainer import writer as module
from trainer.launch import process_columns
from trainer.writer import Writer

RUN = "20260101-120000-abcdef"


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(module, "PATIENCE_SECONDS", 0.05)


@pytest.fixture
def writer(store):
    store.create_run(a_run(id=RUN))
    with closing(Opened(store.url)) as opened:
        yield opened


class Opened(Writer):
    """A writer whose ending is not waited for."""

    def __init__(self, url):
        super().__init__(url, RUN, lambda: False, {})

    def close(self, seconds=0.0):
        super().close(seconds)


def locked(store):
    """Hold the archive as another program may."""
    other = sqlite3.connect(store.url.removeprefix("sqlite:///"), isolation_level=None)
    other.execute("BEGIN EXCLUSIVE")
    return closing(other)


def stored(store):
    return [row.step for row in store.steps(RUN)]


def one_of_each():
    return [
        a_step(RUN, 0, loss=float("nan"), grad_norm=float("inf"), extra={"a": [1, None]}),
        an_evaluation(RUN, 0, 0.5),
        LagDrift(run_id=RUN, step=0, lag=1, norm=None, rate_sum=1.0),
        BiasProbe(
            run_id=RUN, step=0, staleness=1, correction="clip", time=1.0, shards=4, rollouts=8
        ),
        Sample(run_id=RUN, step=0, number=0, prompt="1+1=\n", completion="2 ü"),
        Event(run_id=RUN, time=1.0, kind="k", message="m", data={"x": float("-inf")}),
        RunChange(run_id=RUN, changes={"status": RunStatus.FINISHED, "reward_best": 0.5}),
    ]


def facts(store):
    reads = (store.steps, store.evaluations, store.drifts, store.bias_probes, store.samples)
    return repr([*(read(RUN) for read in reads), store.events(RUN), store.run(RUN)])


def test_every_kind_of_write_comes_back_from_a_journal_as_it_was_and_twice_is_once(store, tmp_path):
    store.create_run(a_run(id=RUN))
    with closing(Opened(store.url)) as direct:
        for record in one_of_each():
            direct.write(record)
    straight = facts(store)
    store.delete_run(RUN)
    store.create_run(a_run(id=RUN))
    journal = Journal(journal_file(RUN))
    for record in one_of_each() * 2:
        journal.append(record)
    assert send_journal(store, RUN) == 14
    assert facts(store).replace("id=2", "id=1") == straight
    assert not journal_file(RUN).exists()
    assert send_journal(store, RUN) == 0


def test_a_lock_stops_no_learner_and_everything_follows_in_order_once_it_is_free(
    store, writer, caplog
):
    writer.write(a_step(RUN, 0))
    with caplog.at_level(logging.WARNING), locked(store):
        for step in range(1, 300):
            writer.write(a_step(RUN, step))
        assert writer.beat() is False
        assert stored(store) == [0]
        assert writer.is_durable
    writer.write(a_step(RUN, 300))
    assert stored(store) == [0], "a later write waits behind those that are kept"
    writer.beat()
    writer.write(a_step(RUN, 301))
    assert stored(store) == list(range(302))
    assert not journal_file(RUN).exists()
    [event] = store.events(RUN)
    assert (event.kind, event.level) == ("archive", "warning")
    assert "300 writes kept, and sent" in event.message
    assert len([r for r in caplog.records if r.name == "trainer.writer"]) == 2  # began, ended


def test_a_killed_process_leaves_the_kept_writes_and_half_a_line_is_none(store):
    store.create_run(a_run(id=RUN))
    killed = Journal(journal_file(RUN))
    for step in range(3):
        killed.append(a_step(RUN, step))
    with journal_file(RUN).open("ab") as file:
        file.write(b'{"StepMetrics": {"run_id"')
    again = Writer(store.url, RUN, lambda: False, {})
    again.write(a_step(RUN, 3))
    again.close(0.0)
    assert stored(store) == [0, 1, 2, 3]


@pytest.mark.parametrize("left", [0, 1, 1.5])
def test_a_journal_that_somebody_removes_or_cuts_short_goes_on_without_a_hole(store, writer, left):
    path = journal_file(RUN)
    with locked(store):
        for step in range(3):
            writer.write(a_step(RUN, step))
        whole = path.read_bytes()
        path.unlink()
        if left:
            path.write_bytes(whole[: int(left * len(whole) / 3)])
        writer.to_disk()
        writer.write(a_step(RUN, 3))
        assert b"\0" not in path.read_bytes()
    writer.beat()
    assert stored(store) == [*range(int(left)), 3]
    assert writer.beat() is False
    assert not path.exists()


def test_what_is_written_while_the_journal_is_removed_is_sent_too(store):
    store.create_run(a_run(id=RUN))
    journal = Journal(journal_file(RUN))
    journal.append(a_step(RUN, 0))
    assert [row.step for row in journal.next(9)] == [0]
    journal.path.unlink()
    journal.append(a_step(RUN, 1))
    journal.forget()
    assert [row.step for row in journal.next(9)] == [1]
    journal.path.unlink()
    assert journal.next(9) == []
    assert journal.is_sent


def test_a_file_that_is_moved_away_gets_nothing_until_it_is_back(store, writer, tmp_path):
    path = tmp_path / "archive.db"
    writer.write(a_step(RUN, 0))
    path.rename(tmp_path / "away.db")
    writer.write(a_step(RUN, 1))
    writer.beat()
    assert not path.exists()
    (tmp_path / "away.db").rename(path)
    writer.beat()
    assert stored(store) == [0, 1]
    assert inconsistencies(store) == []


def test_a_copy_that_is_put_in_its_place_is_opened_anew(store, writer, tmp_path):
    path = tmp_path / "archive.db"
    writer.write(a_step(RUN, 0))
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "b")) as to:
        source.backup(to)
    path.rename(tmp_path / "away.db")
    for end in ("-wal", "-shm"):
        path.with_name(path.name + end).rename(tmp_path / f"away.db{end}")
    (tmp_path / "b").rename(path)
    writer.write(a_step(RUN, 1))
    with closing(Store.open(store.url, create=False)) as copy:
        assert stored(copy) == [0, 1]


@pytest.mark.parametrize("is_empty", [True, False])
def test_what_is_no_archive_yet_in_its_place_is_waited_for(store, writer, tmp_path, is_empty):
    path, other = tmp_path / "archive.db", tmp_path / "other.db"
    writer.write(a_step(RUN, 0))
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(tmp_path / "b")) as to:
        source.backup(to)
    with closing(sqlite3.connect(other)) as database:
        database.execute("PRAGMA user_version = 1")  # makes a page, and no table
    begun = b"" if is_empty else other.read_bytes()
    for end in ("", "-wal", "-shm"):
        path.with_name(path.name + end).unlink()
    path.write_bytes(begun)
    writer.write(a_step(RUN, 1))
    assert writer.beat() is False
    assert path.stat().st_size == len(begun), "nothing is written into a copy that begins"
    with path.open("wb") as file:
        file.write((tmp_path / "b").read_bytes())
    writer.beat()
    writer.write(a_step(RUN, 2))
    with closing(Store.open(store.url, create=False)) as copy:
        assert stored(copy) == [0, 1, 2]


def test_where_nothing_takes_it_the_learner_waits_and_drops_nothing(store, writer, monkeypatch):
    """A file lies where the folder of journals would, as on a disk that takes none."""
    monkeypatch.setattr(module, "MOST_IN_MEMORY", 5)
    journal_file(RUN).parent.parent.mkdir()
    journal_file(RUN).parent.write_text("in the way")
    learner = threading.Thread(
        target=lambda: [writer.write(a_step(RUN, step)) for step in range(20)]
    )
    with locked(store):
        learner.start()
        wait_until(lambda: len(writer._in_memory) == 5)
        assert not writer.is_durable
    while learner.is_alive():
        writer.beat()
        learner.join(0.01)
    writer.beat()
    assert stored(store) == list(range(20))


def test_an_end_that_the_archive_does_not_hear_of_is_kept_and_said(store):
    store.create_run(a_run(id=RUN))
    writer = Writer(store.url, RUN, lambda: False, {})
    with locked(store):
        writer.write(a_step(RUN, 0))
        writer.write(RunChange(run_id=RUN, changes={"status": RunStatus.FINISHED}))
        with pytest.raises(ArchiveUnavailable, match="check --repair, sends it"):
            writer.close(0.0)
    assert send_journal(store, RUN) == 2
    assert (store.run(RUN).status, stored(store)) == (RunStatus.FINISHED, [0])


def test_a_run_that_another_process_took_over_is_left_alone(store, caplog):
    """Silent for long, given to another host meanwhile, and back: nothing of it is written."""
    store.create_run(a_run(id=RUN, status=RunStatus.RUNNING, host="here", pid=1))
    writer = Writer(store.url, RUN, lambda: False, {"host": "here", "pid": 1})
    writer.write(a_step(RUN, 0, reward_mean=0.1))
    assert writer.beat() is False
    with locked(store):
        writer.write(a_step(RUN, 1, reward_mean=0.1))
    store.update_run(RUN, host="elsewhere", pid=2)
    store.append_step(a_step(RUN, 1, reward_mean=0.9))
    assert writer.beat() is True
    for record in (a_step(RUN, 2), RunChange(run_id=RUN, changes={"status": RunStatus.FAILED})):
        with pytest.raises(RunTakenOver, match="carried out by process 2 on elsewhere now"):
            writer.write(record)
    writer.close(0.0)
    assert [row.reward_mean for row in store.steps(RUN)] == [0.1, 0.9]
    assert store.run(RUN).status is RunStatus.RUNNING
    assert send_journal(store, RUN) == 0
    assert journal_file(RUN).with_suffix(".jsonl.aside").exists()


def test_a_sign_of_life_comes_before_what_is_kept(store, writer, monkeypatch):
    with locked(store):
        writer.write(a_step(RUN, 0))
    counted = []
    monkeypatch.setattr(
        Writer, "_send_kept", lambda _: counted.append(store.run(RUN).heartbeat_count)
    )
    writer.beat()
    assert counted == [1]
    monkeypatch.undo()


def test_who_waited_for_another_to_send_a_journal_writes_nothing_over_what_came_after(store):
    store.create_run(a_run(id=RUN))
    path = journal_file(RUN)
    Journal(path).append(a_step(RUN, 0, loss=1.0))

    def times_open():
        return [file.path for file in psutil.Process().open_files()].count(str(path))

    with path.open("rb") as first, ThreadPoolExecutor() as pool:
        fcntl.flock(first, fcntl.LOCK_EX)
        second = pool.submit(send_journal, store, RUN)
        try:
            wait_until(lambda: times_open() == 2)
            assert stored(store) == []
            path.unlink()
            store.append_step(a_step(RUN, 0, loss=2.0))
            Journal(path).append(a_step(RUN, 1))  # of the run that goes on
        finally:
            fcntl.flock(first, fcntl.LOCK_UN)
        assert second.result(timeout=PATIENCE) == 0
    assert [(row.step, row.loss) for row in store.steps(RUN)] == [(0, 2.0)]
    assert path.exists()


def test_the_journal_of_a_run_that_was_taken_up_meanwhile_is_left_to_it(store):
    store.create_run(a_run(id=RUN, status=RunStatus.RUNNING, **process_columns(os.getpid())))
    Journal(journal_file(RUN)).append(a_step(RUN, 0))
    assert send_journal(store, RUN) == 0
    assert journal_file(RUN).exists()


@pytest.fixture
def small_disk(tmp_path):
    """Mount a disk of eight megabytes."""
    folder = tmp_path / "small"
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=8m", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(words, check=False, capture_output=True).returncode:
        pytest.skip("this process may not mount a file system")
    yield folder
    subprocess.run(["umount", "--lazy", str(folder)], check=True)


@pytest.mark.parametrize("journal_too", [False, True])
def test_a_full_disk_costs_nothing_once_it_is_freed(small_disk, monkeypatch, journal_too):
    if journal_too:
        monkeypatch.setenv("ETALON_HOME", str(small_disk / "home"))
    with closing(Store.open(str(small_disk / "archive.db"))) as store:
        store.create_run(a_run(id=RUN))
        ballast = small_disk / "ballast"
        with closing(Opened(store.url)) as writer:
            writer.write(a_step(RUN, 0))
            fill_up(ballast)
            for step in range(1, 200):
                writer.write(a_step(RUN, step))
            writer.beat()
            assert len(stored(store)) < 200
            assert writer.is_durable is not journal_too
            ballast.unlink()
            writer.beat()
            assert stored(store) == list(range(200))
            assert writer.is_durable
        assert inconsistencies(store) == []


def fill_up(file):
    with file.open("wb", buffering=0) as ballast, suppress(OSError):
        while True:
            ballast.write(b"\0" * 1024)


def test_a_postgresql_server_that_restarts_costs_nothing(postgres_server):
    with postgres_server.archive() as url, closing(Store.open(url)) as store:
        store.create_run(a_run(id=RUN))
        with closing(Opened(url)) as writer:
            writer.write(a_step(RUN, 0))
            with postgres_server.stopped():
                for step in range(1, 50):
                    writer.write(a_step(RUN, step))
                assert writer.beat() is False
            writer.beat()
            writer.write(a_step(RUN, 50))
        assert stored(store) == list(range(51))
        assert "49 writes kept, and sent" in store.events(RUN)[0].message


def test_a_lock_on_a_postgresql_table_stops_no_learner(postgres_server):
    import psycopg

    with postgres_server.archive() as url, closing(Store.open(url)) as store:
        store.create_run(a_run(id=RUN))
        with closing(Opened(url)) as writer:
            with psycopg.connect(url.replace("+psycopg", "")) as other:
                other.execute("LOCK TABLE steps IN ACCESS EXCLUSIVE MODE")
                for step in range(5):
                    writer.write(a_step(RUN, step))
                assert journal_file(RUN).exists()
            writer.beat()
        assert stored(store) == list(range(5))


def test_a_write_that_the_archive_refuses_is_told_and_bars_no_way(postgres_server):
    with postgres_server.archive() as url, closing(Store.open(url)) as store:
        store.create_run(a_run(id=RUN))
        with closing(Opened(url)) as writer:
            with postgres_server.stopped():
                writer.write(a_step(RUN, 0, zero_variance_groups=2**40))
                writer.write(a_step(RUN, 1))
            writer.beat()
            with pytest.raises(ArchiveUnavailable, match="does not take that"):
                writer.write(a_step(RUN, 2))
            writer.write(a_step(RUN, 2))
        assert stored(store) == [1, 2]
