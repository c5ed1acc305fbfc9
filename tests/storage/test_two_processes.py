"""One trainer writes while any number of pages read, in processes of their own."""

import math
import signal
import threading
import time

from factories import a_run, a_step
from processes import ended, start, wait_until

from storage.check import inconsistencies
from storage.records import RunStatus
from storage.rollups import BLOCK
from storage.store import Store
from storage.transactions import only_writer

WRITER = """
import os, sys, time
from storage.records import StepMetrics
from storage.store import Store

store = Store.open(sys.argv[1], create=False)
for step in range(int(sys.argv[3])):
    while len(sys.argv) > 4 and os.path.getsize(sys.argv[4]) < step // 100:
        time.sleep(0.001)  # for a reader that has seen too little of it
    store.append_step(StepMetrics(run_id=sys.argv[2], step=step, time=time.time(), loss=step / 4))
    time.sleep(0.001)
"""


def test_a_page_reads_while_another_process_writes_five_hundred_steps(store, tmp_path):
    run = a_run()
    store.create_run(run)
    seen_so_far = tmp_path / "seen"  # as many bytes as different counts
    seen_so_far.touch()
    writer = start("-c", WRITER, store.url, run.id, "500", str(seen_so_far), home=tmp_path)
    counts = []
    while writer.poll() is None:
        counts.append(store.step_counts().get(run.id, 0))
        seen_so_far.write_bytes(bytes(len(set(counts))))
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


def test_a_second_writer_of_a_run_waits_for_the_first(store):
    run = a_run()
    store.create_run(run)
    other = Store.open(store.url, create=False)
    second = threading.Thread(target=lambda: other.append_step(a_step(run.id, 0)))
    with store.writing() as connection:
        only_writer(connection, run.id)
        second.start()
        time.sleep(0.3)
        assert store.step_counts() == {}
    second.join()
    assert store.step_counts() == {run.id: 1}
    other.close()


def test_two_processes_that_write_the_same_steps_leave_each_once_with_true_rollups(store, tmp_path):
    run = a_run(kind="imported", status=RunStatus.RUNNING)
    store.create_run(run)
    count = 2 * BLOCK + 5
    writers = [start("-c", WRITER, store.url, run.id, str(count), home=tmp_path) for _ in range(2)]
    for writer in writers:
        done = ended(writer)
        assert done.returncode == 0, done.stderr
    assert store.series(run.id, ["step"])["step"] == list(range(count))
    assert inconsistencies(store) == []
    assert store.first_step_beyond_blocks(run.id) == 2 * BLOCK


def test_of_two_that_change_the_same_run_neither_is_forgotten(store):
    run = a_run(reward_last=0.5, reward_best=0.5)
    store.create_run(run)
    other = Store.open(store.url)
    second = threading.Thread(target=lambda: other.update_run(run.id, reward_best=math.nan))
    with store.writing() as connection:
        first = """UPDATE runs SET reward_last = NULL, non_finite = '["reward_last"]'"""
        connection.exec_driver_sql(first)
        second.start()
        time.sleep(0.3)  # long enough to read what is about to change
    second.join()
    back = store.run(run.id)
    assert str([back.reward_last, back.reward_best]) == "[nan, nan]"
    other.close()
