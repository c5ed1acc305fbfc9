"""A run is lost when its heartbeat has stood for 30 s *and* its process is gone, never before."""

import os
import resource
import signal
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path

import psutil
import pytest
from factories import NOON, a_run
from processes import wait_until

from storage.liveness import PulseReader, is_elsewhere, process_gone, process_mark
from storage.records import RunStatus

HERE = socket.gethostname()
NO_SUCH_PID = 2**22 + 1  # Linux gives ids up to 2²²


class Clock:
    """A clock that a test turns."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


class Reader:
    """A pulse reader with its two clocks, which need not agree."""

    def __init__(self) -> None:
        self.monotonic, self.wall = Clock(1000.0), Clock(NOON)
        self.pulse = PulseReader(self.monotonic, self.wall)

    def after(self, seconds: float, run, wall: float | None = None):
        """Look at a run when both clocks (or the wall clock by another amount) have gone on."""
        self.monotonic.now += seconds
        self.wall.now += seconds if wall is None else wall
        return self.pulse.status(run)


@pytest.fixture
def reader():
    return Reader()


@pytest.fixture
def living():
    """A process that waits, and the fields of a run that it carries out."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    process.kill()
    process.wait()
    process.stdin.close()


def a_live_run(**changes):
    values = {"status": RunStatus.RUNNING, "host": HERE, "heartbeat_at": NOON, "heartbeat_count": 5}
    return a_run(**(values | changes))


def run_by(pid, **changes):
    started = psutil.Process(pid).create_time()
    return a_live_run(**({"pid": pid, "pid_started": started} | changes))


GONE = a_live_run(pid=NO_SUCH_PID, pid_started=NOON)


# -- the counter ------------------------------------------------------------------------------


def test_a_run_whose_process_is_gone_is_lost_after_30_seconds_of_a_standing_counter(reader):
    assert reader.after(0, GONE) == RunStatus.RUNNING
    assert reader.after(29.9, GONE) == RunStatus.RUNNING
    assert reader.after(0.1, GONE) == RunStatus.LOST


def test_a_counter_that_moves_starts_the_wait_anew(reader):
    assert reader.after(0, GONE) == RunStatus.RUNNING
    moved = replace(GONE, heartbeat_count=6)
    assert reader.after(40, moved) == RunStatus.RUNNING
    assert reader.after(29.9, moved) == RunStatus.RUNNING
    assert reader.after(0.1, moved) == RunStatus.LOST


def test_a_lost_run_that_beats_again_is_no_longer_lost(reader):
    reader.after(0, GONE)
    assert reader.after(31, GONE) == RunStatus.LOST
    assert reader.after(1, replace(GONE, heartbeat_count=6)) == RunStatus.RUNNING


def test_each_run_is_timed_on_its_own(reader):
    other = replace(GONE, id="another")
    reader.after(0, GONE)
    reader.after(20, other)
    assert reader.after(10, GONE) == RunStatus.LOST
    assert reader.after(0, other) == RunStatus.LOST  # its last heartbeat was 30 s ago as well
    fresh = replace(GONE, id="a third", heartbeat_at=NOON + 30)
    assert reader.after(0, fresh) == RunStatus.RUNNING


# -- before a run of another host is ended -----------------------------------------------------


@pytest.mark.parametrize(
    ("ago", "wait"),
    [(400, 30), (280, 30), (100, 200), (0, 300), (-86_400, 300)],
    ids=["long ago", "nearly", "a while ago", "just now", "by a clock that is ahead"],
)
def test_a_run_of_another_host_is_watched_until_it_was_silent_for_long(reader, ago, wait):
    run = a_live_run(host="elsewhere", pid=7, heartbeat_at=NOON - ago)
    assert is_elsewhere(run)
    reader.after(0, run)
    assert reader.pulse.seconds_to_watch(run) == wait
    reader.after(wait - 1, run)
    assert reader.pulse.seconds_to_watch(run) == 1
    reader.after(1, run)
    assert reader.pulse.seconds_to_watch(run) == 0
    beat = replace(run, heartbeat_count=6)
    assert reader.pulse.seconds_to_watch(beat) >= 30


# -- first sight ------------------------------------------------------------------------------


@pytest.mark.parametrize(("age", "status"), [(29.9, RunStatus.RUNNING), (30.0, RunStatus.LOST)])
def test_at_first_sight_the_stored_time_stands_in_for_what_was_not_seen(reader, age, status):
    assert reader.after(0, replace(GONE, heartbeat_at=NOON - age)) == status


def test_a_run_that_never_beat_is_timed_from_its_creation(reader):
    never = replace(GONE, heartbeat_at=None, heartbeat_count=0)
    assert reader.after(0, replace(never, created_at=NOON - 29)) == RunStatus.RUNNING
    assert reader.after(0, replace(never, id="b", created_at=NOON - 31)) == RunStatus.LOST


def test_a_wall_clock_that_is_set_back_or_on_later_deceives_nobody(reader):
    assert reader.after(0, GONE) == RunStatus.RUNNING
    assert reader.after(10, GONE, wall=-86_400) == RunStatus.RUNNING
    assert reader.after(10, GONE, wall=10 * 86_400) == RunStatus.RUNNING
    assert reader.after(10, GONE, wall=0) == RunStatus.LOST


def test_a_heartbeat_from_the_future_is_as_good_as_one_of_now(reader):
    ahead = replace(GONE, heartbeat_at=NOON + 3600)
    assert reader.after(0, ahead) == RunStatus.RUNNING
    assert reader.after(29.9, ahead) == RunStatus.RUNNING
    assert reader.after(0.1, ahead) == RunStatus.LOST


# -- the process ------------------------------------------------------------------------------


def test_a_living_process_is_never_lost_however_long_its_counter_stands(reader, living):
    run = run_by(living.pid, heartbeat_at=NOON - 86_400)
    assert process_gone(run) is False
    assert reader.after(0, run) == RunStatus.RUNNING
    assert reader.after(86_400, run) == RunStatus.RUNNING


def test_an_id_that_another_process_was_given_since_is_not_the_run(reader, living):
    started = psutil.Process(living.pid).create_time()
    for before, gone in ((1.0, False), (3.0, True), (86_400.0, True)):
        assert process_gone(run_by(living.pid, pid_started=started - before)) is gone
    reused = run_by(living.pid, pid_started=started - 60, heartbeat_at=NOON - 60)
    assert reader.after(0, reused) == RunStatus.LOST


def test_a_marked_process_is_known_by_its_mark_whatever_the_clock_says(reader, living):
    mark = process_mark(living.pid)
    run = run_by(living.pid, process_mark=mark, pid_started=NOON)
    assert process_gone(run) is False
    boot, started = mark.split()
    for other in (f"{boot} {int(started) - 1}", f"another-boot {started}"):
        assert process_gone(replace(run, process_mark=other)) is True
    os.kill(living.pid, signal.SIGKILL)
    wait_until(lambda: process_gone(run) is True)  # a zombie: nobody waited for it
    assert psutil.Process(living.pid).status() == psutil.STATUS_ZOMBIE


def test_an_id_without_a_start_time_is_trusted(living):
    assert process_gone(run_by(living.pid, pid_started=None)) is False
    assert process_gone(a_live_run(pid=NO_SUCH_PID)) is True


@pytest.fixture
def no_descriptor_left():
    """Have this process open no file: every descriptor up to its limit is taken."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as opened:
        resource.setrlimit(resource.RLIMIT_NOFILE, (128, limits[1]))
        opened.callback(resource.setrlimit, resource.RLIMIT_NOFILE, limits)
        with suppress(OSError):
            while True:
                opened.enter_context(Path(os.devnull).open())
        yield


@pytest.mark.parametrize("marked", [True, False])
def test_a_process_that_cannot_be_looked_at_is_not_gone(living, request, marked):
    run = run_by(living.pid, process_mark=process_mark(living.pid) if marked else None)
    request.getfixturevalue("no_descriptor_left")
    assert process_gone(run) is None
    with pytest.raises(OSError, match="Too many open files"):
        process_mark(living.pid)


def test_a_process_that_ends_is_gone(reader, living):
    run = run_by(living.pid)
    assert reader.after(0, run) == RunStatus.RUNNING
    living.kill()
    living.wait()
    assert process_gone(run) is True
    assert reader.after(1, run) == RunStatus.RUNNING
    assert reader.after(30, run) == RunStatus.LOST


def test_a_zombie_is_gone(living):
    run = run_by(living.pid)
    os.kill(living.pid, signal.SIGKILL)
    wait_until(lambda: psutil.Process(living.pid).status() == psutil.STATUS_ZOMBIE)
    assert process_gone(run) is True


# -- other hosts, and runs without a process ----------------------------------------------------


def test_on_another_host_only_the_counter_is_known_and_it_is_timed_from_first_sight(reader, living):
    far = run_by(living.pid, host="another-host", heartbeat_at=NOON - 86_400)
    assert process_gone(far) is None
    assert reader.after(0, far) == RunStatus.RUNNING
    assert reader.after(29.9, far) == RunStatus.RUNNING
    assert reader.after(0.1, far) == RunStatus.LOST
    assert reader.after(1, replace(far, heartbeat_count=6)) == RunStatus.RUNNING


def test_a_queued_run_without_a_process_waits_for_ever(reader):
    queued = a_run(created_at=NOON - 86_400)
    assert process_gone(queued) is None
    assert reader.after(0, queued) == RunStatus.QUEUED
    assert reader.after(86_400, queued) == RunStatus.QUEUED


def test_a_queued_run_whose_process_died_before_it_began_is_lost(reader):
    assert reader.after(31, replace(GONE, status=RunStatus.QUEUED)) == RunStatus.LOST


@pytest.mark.parametrize("status", [s for s in RunStatus if not s.alive])
def test_a_run_that_has_ended_keeps_its_status(reader, status):
    ended = replace(GONE, status=status, heartbeat_at=NOON - 86_400)
    assert reader.after(0, ended) == status
    assert reader.after(86_400, ended) == status


def test_reading_writes_nothing(reader, store):
    store.create_run(GONE)
    reader.after(31, store.run(GONE.id))
    assert reader.after(31, store.run(GONE.id)) == RunStatus.LOST
    assert store.run(GONE.id) == GONE
