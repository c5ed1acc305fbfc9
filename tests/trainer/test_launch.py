"""Queued runs, and stopping runs in every state of their life."""

import os
import socket
import subprocess
import sys

import psutil
import pytest
from factories import a_config, a_run, a_step

from storage.commandline import BadInput
from storage.engine import journal_file
from storage.errors import ArchiveUnavailable, JournalDamaged, RunNotFound
from storage.journal import Journal, RunChange
from storage.liveness import process_mark
from storage.models import SCHEMA_REVISION
from storage.records import RunStatus
from trainer.config import TrainerConfig
from trainer.launch import (
    claim,
    config_to_resume,
    create_run,
    default_name,
    launch,
    process_columns,
    queue_run,
    start_queued,
    stop,
)


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


@pytest.mark.parametrize("status", [s for s in RunStatus if not s.alive and s != RunStatus.LOST])
def test_stopping_a_run_that_has_ended_changes_nothing(store, status):
    run = a_run(status=status, ended_at=1.0)
    store.create_run(run)
    assert stop(store, run.id) is status
    assert store.run(run.id) == run


def test_stopping_a_run_that_does_not_exist_is_an_error(store):
    with pytest.raises(RunNotFound, match="'nosuch' is not in the archive"):
        stop(store, "nosuch")
