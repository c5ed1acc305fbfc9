"""Queued runs, and stopping runs in every state of their life."""

import json
import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial

import psutil
import pytest
from factories import a_config, a_run, a_step
from processes import ended, start, wait_until

from storage.commandline import BAD_INPUT, BadInput, run_command
from storage.engine import journal_file
from storage.errors import ArchiveUnavailable, JournalDamaged, RunNotFound, RunTakenOver
from storage.journal import Journal, RunChange
from storage.liveness import PulseReader, process_mark
from storage.models import SCHEMA_REVISION
from storage.records import RunStatus
from trainer.__main__ import main
from trainer.config import TrainerConfig
from trainer.launch import (
    claim,
    config_to_resume,
    create_run,
    default_name,
    launch,
    process_columns,
    queue_run,
    reopen,
    start_queued,
    stop,
)
from trainer.silence import end_elsewhere, end_silent, is_silent_elsewhere


@pytest.fixture
def someone():
    """A process of somebody else that lives as long as the test."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield psutil.Process(process.pid)
    process.kill()
    process.communicate()


def running(process, **changes):
    return a_run(
        status=RunStatus.RUNNING,
        host=socket.gethostname(),
        pid=process.pid,
        pid_started=process.create_time(),
        **changes,
    )


def test_a_queued_run_keeps_its_configuration_and_where_it_came_from(store):
    config = a_config(seed=7, threads=2, group="sweep", clip_epsilon_high=0.3)
    run = store.run(queue_run(store, config).id)
    assert (run.status, run.pid) == (RunStatus.QUEUED, None)
    assert TrainerConfig.model_validate(run.config) == config
    assert (run.workload, run.seed, run.threads, run.group) == ("arithmetic", 7, 2, "sweep")
    assert run.schema_version == SCHEMA_REVISION
    assert run.code_version


def test_a_run_is_named_after_what_usually_differs_unless_it_has_a_name(store):
    assert default_name(a_config(learning_rate=2e-4)) == "arithmetic η=0.0002 S=3"
    assert create_run(store, a_config(name="mine")).name == "mine"


def test_runs_sort_in_the_order_of_their_creation(store):
    ids = [create_run(store, a_config()).id for _ in range(5)]
    assert len(set(ids)) == 5
    assert {i[:8] for i in ids} <= {i[:8] for i in sorted(ids)}


def test_stopping_a_run_without_a_process_ends_it_at_once(store):
    run = queue_run(store, a_config())
    assert stop(store, run.id) is RunStatus.STOPPED
    ended = store.run(run.id)
    assert (ended.status, ended.outcome_reason) == (
        RunStatus.STOPPED,
        "stopped before it had a process",
    )
    assert ended.ended_at is not None


def test_stopping_a_living_run_asks_it_and_leaves_its_end_to_itself(store, someone):
    run = running(someone)
    store.create_run(run)
    assert stop(store, run.id) is RunStatus.RUNNING
    asked = store.run(run.id)
    assert (asked.status, asked.stop_requested, asked.ended_at) == (RunStatus.RUNNING, True, None)
    assert someone.is_running()


def test_stopping_a_run_whose_process_is_gone_ends_it(store, someone):
    gone = running(someone)
    someone.kill()
    someone.wait()
    store.create_run(gone)
    assert stop(store, gone.id) is RunStatus.STOPPED
    assert store.run(gone.id).outcome_reason == "its process was gone"


def test_a_process_that_took_over_the_number_of_a_dead_one_is_not_taken_for_it(store, someone):
    run = running(someone, id="reused")
    store.create_run(run)
    store.update_run(run.id, pid_started=run.pid_started - 3600)
    assert stop(store, run.id) is RunStatus.STOPPED


def test_a_clock_that_is_set_back_takes_no_run_from_its_process(store, someone):
    run = a_run(status=RunStatus.RUNNING, **process_columns(someone.pid))
    store.create_run(run)
    store.update_run(run.id, pid_started=run.pid_started + 3600)
    assert stop(store, run.id) is RunStatus.RUNNING
    someone.kill()
    someone.wait()
    assert stop(store, run.id) is RunStatus.STOPPED


def test_a_run_that_ended_with_its_journal_unsent_is_not_stopped_but_ends_so(
    store, someone, tmp_path, monkeypatch
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    run = a_run(status=RunStatus.RUNNING, **process_columns(someone.pid))
    store.create_run(run)
    journal = Journal(journal_file(run.id))
    journal.append(a_step(run.id, 0))
    journal.append(RunChange(run_id=run.id, changes={"status": RunStatus.FINISHED}))
    assert stop(store, run.id) is RunStatus.RUNNING
    assert store.steps(run.id) == []
    someone.kill()
    someone.wait()
    with pytest.raises(BadInput, match="has come to its end, finished"):
        config_to_resume(store, run.id)
    assert stop(store, run.id) is RunStatus.FINISHED
    assert len(store.steps(run.id)) == 1


def test_a_damaged_journal_is_named_by_whoever_stops_or_resumes_its_run(
    store, tmp_path, monkeypatch
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    run = a_run(status=RunStatus.RUNNING, host=socket.gethostname(), pid=2**22 + 1)
    store.create_run(run)
    journal_file(run.id).parent.mkdir()
    journal_file(run.id).write_bytes(b"\0\n")
    for ask in (stop, config_to_resume):
        with pytest.raises(JournalDamaged, match=r"line 1 is damaged.* remove that line"):
            ask(store, run.id)
    assert store.run(run.id).status is RunStatus.RUNNING


def test_nobody_else_takes_a_run_that_a_process_is_about_to_carry_out(store):
    run = create_run(store, a_config())
    assert (run.pid, run.process_mark) == (os.getpid(), process_mark(os.getpid()))
    assert start_queued(store, most=9) is None


@pytest.mark.parametrize("other", [{"kind": "sweep"}, {"archived": True}])
def test_a_run_of_a_sweep_and_a_run_put_away_are_not_started(store, other):
    store.create_run(a_run(**other))
    assert start_queued(store, most=9) is None


def test_one_run_too_many_is_not_started(store, someone):
    queue_run(store, a_config())
    store.create_run(a_run(status=RunStatus.RUNNING, **process_columns(someone.pid)))
    assert start_queued(store, most=1) is None


def test_a_run_that_was_taken_is_started_though_the_answer_was_lost(store, tmp_path, monkeypatch):
    """It would hold a place as long as this process lives."""
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    run, taking, answers = queue_run(store, a_config()), store.take_run, []

    def lost_once(*given, **columns):
        answers.append(taking(*given, **columns))
        if len(answers) == 1:
            raise ArchiveUnavailable("the connection was lost")
        return answers[-1]

    monkeypatch.setattr(store, "take_run", lost_once)
    assert start_queued(store, most=1).id == run.id
    assert [answer.id for answer in answers] == [run.id, run.id]
    started = psutil.Process(store.run(run.id).pid)
    started.kill()
    assert started.pid != os.getpid()


def test_a_run_that_cannot_be_started_is_failed_and_says_why(store, tmp_path, monkeypatch):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    (tmp_path / "logs").write_text("in the way")
    with pytest.raises(BadInput, match="it could not be started: "):
        launch(store, a_config())
    [run] = store.runs()
    assert run.status is RunStatus.FAILED
    assert run.outcome_reason.startswith("it could not be started: ")


def test_a_run_that_was_claimed_is_still_ours_when_the_answer_was_lost(store):
    run = create_run(store, a_config())
    assert claim(store, run.id)
    assert claim(store, run.id)
    store.update_run(run.id, status=RunStatus.FINISHED)
    assert not claim(store, run.id)


def test_stopping_a_run_on_another_host_can_only_ask_it(store, someone):
    run = running(someone)
    store.create_run(run)
    store.update_run(run.id, host="elsewhere", pid=2**22 + 1)
    assert stop(store, run.id) is RunStatus.RUNNING
    assert store.run(run.id).stop_requested


# -- a run of another host that is silent --------------------------------------------------------


class Watch:
    """A watcher's clock, which each sleep moves on, and what happens elsewhere meanwhile."""

    def __init__(self, happens=lambda: None):
        self.slept, self._happens = 0.0, happens
        self.pulse = PulseReader(monotonic=lambda: self.slept)

    def sleep(self, seconds):
        self.slept += seconds
        self._happens()


def silent_elsewhere(store, seconds):
    run = a_run(status=RunStatus.RUNNING, host="elsewhere", pid=7, process_mark="its boot 1")
    run = replace(run, heartbeat_at=time.time() - seconds, heartbeat_count=5)
    store.create_run(run)
    return run


def test_a_run_that_was_silent_on_another_host_for_long_is_ended_after_it_was_watched(
    store, tmp_path, monkeypatch
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    run, watch = silent_elsewhere(store, 400), Watch()
    Journal(journal_file(run.id)).append(a_step(run.id, 0))
    assert is_silent_elsewhere(run)
    left = []
    assert end_silent(store, run, watch.pulse, watch.sleep, left.append) is RunStatus.STOPPED
    assert watch.slept == 30.0
    assert (left[0], left[-1], len(left)) == (30.0, 0.0, 31)
    ended = store.run(run.id)
    assert (ended.status, ended.ended_at) == (RunStatus.STOPPED, run.heartbeat_at)
    assert ended.outcome_reason.startswith("its process on elsewhere gave no sign of life since 2")
    assert len(store.steps(run.id)) == 1
    assert not journal_file(run.id).exists()


def test_a_sign_of_life_while_it_is_watched_saves_a_run_though_the_clocks_differ(store):
    run = silent_elsewhere(store, 400)

    def beats():  # by a clock that is 400 s behind ours
        if watch.slept == 29.0:
            store.heartbeat(run.id, time.time() - 400)

    watch = Watch(beats)
    assert end_silent(store, run, watch.pulse, watch.sleep) is RunStatus.RUNNING
    assert store.run(run.id).status is RunStatus.RUNNING


@pytest.mark.parametrize("changes", [{"heartbeat_at": None}, {"pid": None}, {"status": "stopped"}])
def test_a_run_that_is_new_waits_or_has_ended_is_not_silent(store, changes):
    run = replace(silent_elsewhere(store, 400), created_at=time.time(), **changes)
    assert not is_silent_elsewhere(replace(run, status=RunStatus(run.status)))


def test_who_stops_a_run_of_another_host_is_told_that_it_waits_for_that(store, capsys):
    run = silent_elsewhere(store, 200)
    assert main(["stop", run.id, "--db", store.url]) == 0
    out = capsys.readouterr().out
    assert "will stop after its present step, once elsewhere hears it; if that gave no sign" in out
    assert store.run(run.id).stop_requested


@pytest.fixture
def watch(monkeypatch):
    """The clock by which commands watch a heartbeat."""
    watch = Watch()
    monkeypatch.setattr("trainer.silence.PulseReader", lambda: watch.pulse)
    monkeypatch.setattr("trainer.silence.end_silent", partial(end_silent, sleep=watch.sleep))
    return watch


def test_the_command_ends_a_run_that_was_silent_on_another_host(store, capsys, watch):
    run = silent_elsewhere(store, 400)
    assert main(["stop", run.id, "--db", store.url, "--json"]) == 0
    out, err = capsys.readouterr()
    assert json.loads(out) == {"run_id": run.id, "status": "stopped"}
    assert "was silent for long on elsewhere; watching 30 s more" in err


@pytest.mark.parametrize(("ago", "wait"), [(400, 30), (-86_400, 300)])
def test_a_run_whose_clock_tells_nothing_is_ended_by_the_watch_alone(store, watch, ago, wait):
    run = silent_elsewhere(store, ago)
    assert main(["stop", run.id, "--db", store.url]) == 0
    assert (store.run(run.id).status, watch.slept) == (RunStatus.STOPPED, wait)


@pytest.mark.parametrize(
    ("ago", "wait", "why"),
    [
        (400, 30, "was silent for long on elsewhere; watching 30 s more"),
        (-86_400, 300, "is running on elsewhere; watching whether it is silent for 300 s"),
    ],
)
def test_a_run_of_another_host_goes_on_here_once_it_was_watched(
    store, watch, capsys, ago, wait, why
):
    run = silent_elsewhere(store, ago)
    assert config_to_resume(store, run.id) == TrainerConfig.model_validate(run.config)
    end_elsewhere(store, run.id)
    assert watch.slept == wait
    assert why in capsys.readouterr().err
    assert reopen(store, run.id, RunStatus.RUNNING).host == socket.gethostname()
    with pytest.raises(RunTakenOver, match=f"by process {os.getpid()} on {socket.gethostname()}"):
        store.heartbeat(run.id, time.time(), host="elsewhere", pid=7, process_mark="its boot 1")
    end_elsewhere(store, run.id)
    assert watch.slept == wait, "a run of this host is not watched"


FAR_AWAY = """
import socket, sys, time
run_id, url, ahead = sys.argv[1:]
socket.gethostname, now = lambda: "far away", time.time
time.time = lambda: now() + float(ahead)
from storage.records import Event
from trainer.launch import own_process, process_columns
from trainer.writer import Writer
import os
writer = Writer(url, run_id, lambda: False, own_process())
writer._store.update_run(run_id, **process_columns(os.getpid()))
while not writer.beat():
    time.sleep(0.02)
writer.write(Event(run_id=run_id, time=1.0, kind="end", message="not to be written"))
"""


def test_a_process_that_was_only_silent_learns_that_its_run_was_ended_and_writes_no_more(
    store, tmp_path
):
    run = silent_elsewhere(store, 0)
    process = start("-c", FAR_AWAY, run.id, store.url, "0", home=tmp_path)
    wait_until(lambda: store.run(run.id).heartbeat_count > run.heartbeat_count)
    with store.writing():  # which it is not, then: stopped in the middle it would hold the lock
        os.kill(process.pid, signal.SIGSTOP)
    store.update_run(run.id, heartbeat_at=time.time() - 400)
    watch = Watch()
    assert end_silent(store, store.run(run.id), watch.pulse, watch.sleep) is RunStatus.STOPPED
    os.kill(process.pid, signal.SIGCONT)
    error = ended(process).stderr
    assert f"RunTakenOver: run: {run.id} was stopped meanwhile: its process on far away" in error
    assert store.run(run.id).status is RunStatus.STOPPED
    assert store.events(run.id) == []


@pytest.mark.parametrize("ahead", [-400, 86_400])
def test_a_run_that_lives_on_another_host_is_not_resumed_whatever_its_clock_says(
    store, tmp_path, monkeypatch, capsys, ahead
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    run = silent_elsewhere(store, -ahead)
    process = start("-c", FAR_AWAY, run.id, store.url, str(ahead), home=tmp_path)
    wait_until(lambda: store.run(run.id).heartbeat_count > run.heartbeat_count)
    assert run_command(main, ["resume", run.id, "--detach", "--db", store.url]) == BAD_INPUT
    out, err = capsys.readouterr()
    _, fault = err.splitlines()
    assert fault.startswith(f"run: {run.id} is running on far away, where it gave a sign of life")
    assert out == ""
    assert store.run(run.id).host == "far away"
    store.update_run(run.id, stop_requested=True)
    assert ended(process, timeout=30).returncode == 0


@pytest.mark.parametrize("status", [s for s in RunStatus if not s.alive and s != RunStatus.LOST])
def test_stopping_a_run_that_has_ended_changes_nothing(store, status):
    run = a_run(status=status, ended_at=1.0)
    store.create_run(run)
    assert stop(store, run.id) is status
    assert store.run(run.id) == run


def test_stopping_a_run_that_does_not_exist_is_an_error(store):
    with pytest.raises(RunNotFound, match="'nosuch' is not in the archive"):
        stop(store, "nosuch")
