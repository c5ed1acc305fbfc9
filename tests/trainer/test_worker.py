"""A worker records how its run began, went and ended, whatever ends it."""

import os
import signal
import statistics
import threading

import pytest
import torch
from factories import a_config

from storage.records import RunStatus
from trainer.launch import create_run
from trainer.worker import Worker


@pytest.fixture(autouse=True)
def this_process(monkeypatch, own_home):
    """Run in this process, in a home of one's own; give the process its signals back afterwards."""
    monkeypatch.setenv("ETALON_HOME", str(own_home))
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def ignore(words, step, steps):
    pass


def test_a_run_that_ends_keeps_what_it_was_and_how_it_went(store):
    run = create_run(store, a_config(steps=4, group="g"))
    told = []
    ended = Worker(store, run, lambda *words: told.append(words)).run()
    assert (ended.status, ended.outcome) == (RunStatus.FINISHED, "healthy")
    assert ended.created_at <= ended.started_at <= ended.heartbeat_at <= ended.ended_at
    assert (ended.pid, ended.threads, ended.device) == (os.getpid(), 1, "cpu")
    # Embedding 16·64, tied; two layers of attention 4·64² + 3·64, MLP 3·64·256 and norms 2·64;
    # a last norm 64. Guessing three of 16 signs: 16^-3.
    assert ended.parameters == 1024 + 2 * (16384 + 192 + 49152 + 128) + 64
    assert ended.chance_reward == 1 / 4096
    rows = store.steps(run.id)
    assert [row.step for row in rows] == [0, 1, 2, 3]
    mean = statistics.fmean(row.reward_mean for row in rows)  # fewer than 20: all of them
    assert ended.reward_first == pytest.approx(mean)
    assert ended.reward_last == pytest.approx(mean)
    assert ended.reward_final == store.evaluations(run.id)[-1].reward
    assert ended.gold_reward_first is None
    assert "no other gold" in ended.unmeasured["gold_reward_mean"]
    assert told[-1] == ("learner steps", 4, 4)
    assert torch.get_num_threads() == 1
    assert [event.kind for event in store.events(run.id)] == ["start"]


def test_a_terminated_run_ends_after_its_present_step_as_stopped(store):
    run = create_run(store, a_config(steps=1000))

    def terminate(words, step, steps):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    ended = Worker(store, run, terminate).run()
    assert ended.status is RunStatus.STOPPED
    assert [row.step for row in store.steps(run.id)] == [0, 1, 2]
    assert ended.reward_final is not None


def test_a_run_that_is_asked_to_stop_hears_it_with_its_next_heartbeat(store):
    run = create_run(store, a_config(steps=100_000))  # far more than fit between heartbeats
    asked = threading.Event()

    def ask(words, step, steps):
        if step == 2:
            store.update_run(run.id, stop_requested=True)
            asked.set()

    ended = Worker(store, run, ask).run()
    assert asked.is_set()
    assert ended.status is RunStatus.STOPPED
    assert ended.heartbeat_count >= 1
    assert ended.heartbeat_at >= ended.started_at
    steps = [row.step for row in store.steps(run.id)]
    assert steps == list(range(len(steps)))


def test_a_run_stopped_during_its_warm_start_says_so_and_leaves_no_half_of_it(
    store, tmp_path, monkeypatch
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "new"))
    run = create_run(store, a_config(steps=10, hidden_size=16, layers=1))
    worker = Worker(store, run, lambda *_: worker.request_stop())
    ended = worker.run()
    assert (ended.status, ended.outcome) == (RunStatus.STOPPED, None)
    assert ended.outcome_reason == "stopped during the warm start"
    assert ended.ended_at is not None
    assert store.steps(run.id) == []
    assert list((tmp_path / "new" / "warm_starts").iterdir()) == []


def test_an_interrupt_is_recorded_with_the_rewards_so_far_and_goes_on_to_the_caller(store):
    run = create_run(store, a_config(steps=10))

    def interrupt(words, step, steps):
        if step == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Worker(store, run, interrupt).run()
    ended = store.run(run.id)
    assert (ended.status, ended.outcome_reason) == (RunStatus.STOPPED, "interrupted")
    assert ended.reward_last is not None
    assert ended.reward_final is None  # the last policy was not evaluated
    assert [row.step for row in store.steps(run.id)] == [0, 1]


def test_a_failure_is_recorded_with_its_traceback_and_goes_on_to_the_caller(store):
    run = create_run(store, a_config(steps=10))

    def fail(words, step, steps):
        if step == 1:
            raise ZeroDivisionError("on purpose")

    with pytest.raises(ZeroDivisionError):
        Worker(store, run, fail).run()
    ended = store.run(run.id)
    assert (ended.status, ended.outcome) == (RunStatus.FAILED, None)
    assert ended.outcome_reason == "ZeroDivisionError: on purpose"
    assert ended.error.startswith("Traceback (most recent call last):")
    assert ended.error.rstrip().endswith("ZeroDivisionError: on purpose")
    assert ended.ended_at is not None
    last = store.events(run.id)[-1]
    assert (last.kind, last.level, last.message) == ("failure", "error", ended.outcome_reason)
    assert [row.step for row in store.steps(run.id)] == [0]


def test_a_worker_leaves_no_heartbeat_behind(store):
    before = set(threading.enumerate())
    run = create_run(store, a_config(steps=1))
    Worker(store, run, ignore).run()
    left = set(threading.enumerate()) - before
    assert "heartbeat" not in {thread.name for thread in left}
