"""Queue mode with real processes: what is learned, how old it is, and what a death changes."""

import contextlib
import itertools
import multiprocessing
import os
import pickle
import signal
import threading
import time
from dataclasses import asdict, fields
from multiprocessing.forkserver import _forkserver as fork_server

import psutil
import pytest
import torch
from factories import a_config
from own_things import LENGTH, own_learner
from processes import PATIENCE, wait_until

from storage.commandline import BadInput
from storage.records import RunInfo, missing_reason
from trainer.asynchronous import Asynchronous
from trainer.crew import RolloutWorkersDied
from trainer.hooks import Hooks
from trainer.judging import RewardFailed
from trainer.lockstep import Lockstep
from trainer.meter import unmeasured
from trainer.published_weights import PublishedWeights
from trainer.rollout import sample_rollouts, score
from trainer.rollout_worker import Failure, Sampler, batch_generator, packed

CPU = torch.device("cpu")
CLOCKS = {"time", "seconds_generate", "seconds_learn", "seconds_measure", "seconds_wait"}
IN_A_WORKER = (
    "import os, psutil, time\n"
    "def judge(prompts, completions, **keys):\n"
    "    if 'multiprocessing.forkserver' in ' '.join(psutil.Process(os.getppid()).cmdline()):\n"
    "        {}\n"
    "    return [len(c) for c in completions]\n"
)


def silent(*_):
    pass


@pytest.fixture(autouse=True)
def no_worker_is_left(monkeypatch, tmp_path):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    torch.set_num_threads(1)
    yield
    assert multiprocessing.active_children() == []


@pytest.fixture
def made(tmp_path):
    """Make a learner of a kind, on a small model of one's own."""
    with contextlib.ExitStack() as ends:

        def make(kind, reward=LENGTH, **changes):
            learner = own_learner(kind, tmp_path, reward, **changes)
            if kind is Asynchronous:
                ends.callback(learner.close)
            return learner

        yield make


def let_the_workers_get_ahead(learner):
    """Wait until all that they may sample has come back."""
    crew = learner._crew

    def is_back():
        crew._tend(0.01)
        return not crew._waiting and not any(member.batches for member in crew._members)

    wait_until(is_back)


def rollout_workers():
    return [psutil.Process(child.pid) for child in multiprocessing.active_children()]


def learned(row):
    return {k: v for k, v in asdict(row).items() if k not in CLOCKS | {"extra"}}


# -- what is learned ----------------------------------------------------------------------------


def test_without_staleness_it_steps_as_lockstep_does_even_where_a_worker_is_killed(
    made, monkeypatch
):
    setting = {"max_staleness": 0, "learning_rate": 1e-2, "steps": 6}
    lockstep = made(Lockstep, **setting)
    asynchronous = made(Asynchronous, schedule="queue", **setting)
    lockstep.evaluate(0, 16)
    asynchronous.evaluate(0, 16)
    deaths = []
    for step in range(6):
        lockstep.generator = batch_generator(lockstep.config, CPU, step)
        expected = lockstep.learner_step(step)
        if step == 1:  # what workers are forked off: they live on, but nobody sees how they end
            [worker] = rollout_workers()
            worker.parent().kill()
        if step == 3:  # let batch 3 come in, and batch 4 go to a worker that will not sample it
            assert asynchronous._crew._members[0].worker.connection.poll(PATIENCE)
            worker.send_signal(signal.SIGSTOP)
        row = asynchronous.learner_step(step)
        if step == 3:
            worker.kill()
        assert learned(row) == learned(expected)
        assert row.seconds_wait >= 0
        deaths += asynchronous._notices()
    assert torch.equal(asynchronous.weights.vector, lockstep.weights.vector)
    assert deaths == [
        "a rollout worker ended in a way that nobody saw and is replaced; "
        "batches 4 are sampled again"
    ]
    monkeypatch.setattr("trainer.crew.MOST_DEATHS", 0)  # as if the replacement were one too many
    [worker] = rollout_workers()
    worker.kill()
    with pytest.raises(RolloutWorkersDied, match="the last by signal 9"):
        asynchronous._crew.take(6)


@pytest.mark.long
def test_what_forks_a_worker_may_die_before_and_after_and_leaves_none_behind(made, monkeypatch):
    """Another one begins for the next worker; one that hangs then is ended all the same."""
    learner = made(Asynchronous, schedule="queue", max_staleness=0, steps=6)
    learner.evaluate(0, 16)
    fork_server.ensure_running()
    before = fork_server._forkserver_pid  # of other tests
    os.kill(before, signal.SIGKILL)

    def kill_the_next():
        wait_until(lambda: fork_server._forkserver_pid not in (None, before))
        os.kill(fork_server._forkserver_pid, signal.SIGKILL)  # it imports, and has forked nobody

    killer = threading.Thread(target=kill_the_next)
    killer.start()
    learner.learner_step(0)
    killer.join()
    said = "a rollout worker ended before it began and is replaced; it had none"
    assert set(learner._notices()) == {said}  # once more where the killed one takes long to go
    monkeypatch.setattr("trainer.rollout_processes.SECONDS_TO_END", 0.5)
    [worker] = rollout_workers()
    worker.parent().kill()
    worker.send_signal(signal.SIGSTOP)
    learner.close()
    wait_until(lambda: not worker.is_running())


def test_a_batch_that_is_sampled_again_has_the_same_prompts(made, tmp_path):
    learner = made(Lockstep, schedule="queue")
    published = PublishedWeights(learner.weights.vector.numel())
    published.publish(0, learner.weights.vector)
    sampler = Sampler(learner.config, learner.task, tmp_path / "model", published)
    first, other = sampler.batch(3), sampler.batch(4)
    published.publish(1, learner.weights.vector + 0.1)
    again = sampler.batch(3)
    assert again.prompts == first.prompts != other.prompts
    assert again.completions != first.completions
    assert first.versions_B_T.unique().tolist() == [0]
    assert again.versions_B_T.unique().tolist() == [1]
    published.close()


def test_weights_that_change_between_two_tokens_sample_the_rest_and_say_so(made):
    learner = made(Lockstep)
    before = learner.weights.snapshot()
    moved = 0.05 * torch.randn(before.shape, generator=torch.Generator().manual_seed(0))
    after = before + moved.to(learner.device)
    calls = 0

    def newest():
        nonlocal calls
        calls += 1
        learner.behavior_weights.load(before if calls == 1 else after)
        return 5 if calls == 1 else 6

    batch = sample_rollouts(
        learner.behavior_policy,
        learner.tokenizer,
        learner.task,
        ["12+34=", "56+78="],
        8,
        torch.Generator(learner.device).manual_seed(0),
        newest=newest,
    )
    assert batch.versions_B_T.tolist() == [[5, 6, 6]] * 16
    learner.behavior_weights.load(before)
    of_before, _ = score(learner.behavior_policy, batch)
    assert torch.allclose(batch.behavior_log_probs_B_T[:, 0], of_before[:, 0], atol=1e-5)
    # The second token follows the prompt as the first weights read it and itself as the others do.
    ids = torch.cat([batch.prompt_ids_B_L, batch.completion_ids_B_T], dim=1)
    length = batch.prompt_ids_B_L.shape[1]
    with torch.no_grad():
        cache = learner.behavior_policy(ids[:, :length], use_cache=True).past_key_values
        learner.behavior_weights.load(after)
        logits = learner.behavior_policy(ids[:, length : length + 1], past_key_values=cache).logits
    expected = logits[:, -1].log_softmax(dim=1).gather(1, ids[:, length + 1 : length + 2])
    second = batch.behavior_log_probs_B_T[:, 1:2]
    mask = batch.mask_B_T[:, 1:2]
    assert torch.allclose(second, expected * mask, atol=1e-5)
    assert not torch.allclose(second, of_before[:, 1:2], atol=1e-3)


# -- how old it is ------------------------------------------------------------------------------


def test_staleness_reaches_its_bound_and_never_passes_it_and_no_batch_is_lost(made):
    learner = made(
        Asynchronous,
        schedule="queue",
        max_staleness=2,
        rollout_workers=2,
        steps=9,
        learning_rate=1e-2,
    )
    info = RunInfo(id="a", name="a", created_at=0.0, unmeasured=unmeasured(learner.config))
    learner.evaluate(0, 16)
    history, ages = [], []
    for step in range(11):  # two more than planned, as a run whose collapse is not yet certain
        history.append(learner.weights.snapshot())
        row = learner.learner_step(step)
        age = int(row.staleness_max)
        ages.append(age)
        assert (row.step, row.sampled_at_step, row.staleness_mean) == (step, step - age, age)
        drift = float(torch.linalg.vector_norm(history[step] - history[step - age]))
        assert row.cycle_drift == pytest.approx(drift, rel=1e-5, abs=1e-12)
        assert row.extra["token_staleness_mean"] <= age
        for name, value in asdict(row).items():
            assert value is not None or missing_reason(info, row, name) != "not measured", name
        if step == 8:  # what was asked for is used up, and nothing is sampled for nothing
            crew = learner._crew
            assert (crew._back, crew._waiting) == ({}, [])
            assert [member.batches for member in crew._members] == [[], []]
        let_the_workers_get_ahead(learner)
    assert ages[0] == 0
    assert max(ages) == 2


def test_a_worker_that_is_faster_waits_and_no_batch_is_older_than_the_bound_at_its_last_update(
    made,
):
    learner = made(Asynchronous, schedule="queue", updates_per_batch=2, max_staleness=3, steps=8)
    learner.evaluate(0, 16)
    rows = []
    for step in range(8):
        rows.append(learner.learner_step(step))
        let_the_workers_get_ahead(learner)
        time.sleep(0.15)  # and wait
    for first, second in itertools.pairwise(rows):
        if first.step % 2 == 0:
            assert second.sampled_at_step == first.sampled_at_step
            assert (second.seconds_generate, second.seconds_wait) == (0.0, 0.0)
    assert max(row.staleness_max for row in rows) == 3
    assert {row.sampled_at_step for row in rows} <= set(range(6))
    assert rows[6].seconds_wait < 0.5
    assert rows[6].extra["seconds_worker_idle"] > 0.1


# -- what goes wrong ----------------------------------------------------------------------------


def hooks(**given):
    heard = {field.name: silent for field in fields(Hooks)}
    return Hooks(**(heard | {"stop_requested": lambda: False} | given))


def test_a_learner_that_is_faster_waits_and_a_reward_that_raises_in_a_worker_fails_the_run(made):
    body = (
        "judge.n = getattr(judge, 'n', 0) + 1\n"
        "        time.sleep(2.0)\n"
        "        if judge.n > 3:\n"
        "            raise ZeroDivisionError"
    )
    setting = {"schedule": "queue", "max_staleness": 1, "steps": 5}
    learner = made(Asynchronous, IN_A_WORKER.format(body), **setting)
    rows = []
    with pytest.raises(RewardFailed, match="the reward raised ZeroDivisionError") as error:
        learner.train(hooks(on_step=rows.append))
    assert any("own_reward.py" in note for note in error.value.__notes__)
    assert [row.step for row in rows] == [0, 1, 2]
    assert rows[-1].seconds_wait > 0.1
    assert rows[-1].seconds_generate >= 2.0
    assert rows[-1].extra["seconds_worker_idle"] < 1.5


def test_a_worker_that_cannot_begin_says_why(made, tmp_path):
    learner = made(Asynchronous, schedule="queue")
    (tmp_path / "model").rename(tmp_path / "elsewhere")
    with pytest.raises(BadInput, match=str(tmp_path / "model")):
        learner.train(hooks())


def test_an_error_that_cannot_be_sent_is_told_in_words():
    class Local(Exception):
        pass

    found = pickle.loads(packed(Failure(number=1, error=Local("why"))))
    assert repr(found.error) == "RuntimeError('Local: why')"


def test_only_the_queue_takes_rollout_workers():
    with pytest.raises(BadInput, match="rollout_workers: 2 is not allowed with the schedule"):
        a_config(rollout_workers=2)
    assert "seconds_wait" in unmeasured(a_config())
    assert "seconds_wait" not in unmeasured(a_config(schedule="queue", rollout_workers=2))
