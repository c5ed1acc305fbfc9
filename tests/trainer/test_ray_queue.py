"""Queue mode with rollout workers that are actors on the nodes of a real Ray cluster."""

import contextlib
import json
import time
from dataclasses import asdict, fields

import pytest
import torch
from own_things import LENGTH, own_config, own_learner, own_values
from processes import PATIENCE, command, wait_until

from storage.commandline import BadInput
from storage.store import Store
from trainer.asynchronous import Asynchronous
from trainer.hooks import Hooks
from trainer.judging import RewardFailed
from trainer.lockstep import Lockstep
from trainer.rollout_actors import ReceivedWeights
from trainer.rollout_worker import batch_generator

ray = pytest.importorskip("ray", reason="no ray; pip install -r requirements-ray.txt")
CLOCKS = {"time", "seconds_generate", "seconds_learn", "seconds_measure", "seconds_wait", "extra"}
ON_RAY = {"schedule": "queue", "engine": "ray"}
RAISES_ELSEWHERE = (
    "import os, psutil\n"
    "def judge(prompts, completions, **keys):\n"
    "    if 'ray::' in ' '.join(psutil.Process(os.getppid()).cmdline()):\n"
    "        raise ZeroDivisionError\n"
    "    return [len(c) for c in completions]\n"
)
"""Raises where the process that the reward serves is an actor."""


@pytest.fixture(scope="module")
def added(nodes):
    """Two nodes with room for one rollout worker each, which the tests here share."""
    both = [nodes.add(), nodes.add()]
    yield nodes
    for node in both:
        nodes.dismiss(node)


@pytest.fixture
def two_nodes(added, monkeypatch, tmp_path):
    """Those nodes, and a home; every learner here joins."""
    monkeypatch.setenv("RAY_ADDRESS", added.address)
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    torch.set_num_threads(1)
    return added


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


def learned(row):
    return {name: value for name, value in asdict(row).items() if name not in CLOCKS}


@pytest.mark.long
def test_without_staleness_it_steps_as_lockstep_does_even_where_an_actor_is_killed(two_nodes, made):
    setting = {"max_staleness": 0, "learning_rate": 1e-2, "steps": 6}
    lockstep = made(Lockstep, **setting)
    learner = made(Asynchronous, **ON_RAY, **setting)
    lockstep.evaluate(0, 16)
    learner.evaluate(0, 16)
    deaths = []
    for step in range(6):
        lockstep.generator = batch_generator(lockstep.config, torch.device("cpu"), step)
        expected = lockstep.learner_step(step)
        if step == 3:  # let batch 3 come in, and batch 4 go to an actor that will not sample it
            [actor] = two_nodes.processes("ray::RolloutActor")
            assert ray.wait(learner._crew._members[0].worker.asked, timeout=PATIENCE)[0]
            actor.suspend()
        row = learner.learner_step(step)
        if step == 3:
            actor.kill()
        assert learned(row) == learned(expected)
        deaths += learner._notices()
    assert torch.equal(learner.weights.vector, lockstep.weights.vector)
    [death] = deaths
    assert death.startswith("a rollout worker ended (The actor died")
    assert death.endswith("and is replaced; batches 4 are sampled again")


@pytest.mark.long
def test_staleness_reaches_its_bound_and_never_passes_it_on_two_nodes(two_nodes, made):
    setting = {"max_staleness": 2, "rollout_workers": 2, "steps": 9, "learning_rate": 1e-2}
    learner = made(Asynchronous, **ON_RAY, **setting)
    learner.evaluate(0, 16)
    crew = learner._workers()
    wait_until(lambda: crew._tend(0.1) or all(member.ready for member in crew._members))
    history, ages = [], []
    for step in range(9):
        history.append(learner.weights.snapshot())
        row = learner.learner_step(step)
        age = int(row.staleness_max)
        ages.append(age)
        drift = float(torch.linalg.vector_norm(history[step] - history[step - age]))
        assert row.cycle_drift == pytest.approx(drift, rel=1e-5, abs=1e-12)
        time.sleep(0.2)  # the workers get ahead
    assert len(two_nodes.processes("ray::RolloutActor")) == 2
    assert ages[0] == 0
    assert max(ages) == 2


@pytest.mark.long
def test_a_run_on_actors_learns_and_prints_one_object(two_nodes, tmp_path):
    values = own_values(tmp_path, steps=60, prompts=8, group_size=8, **ON_RAY)
    values |= {"learning_rate": 1e-2, "max_staleness": 2, "rollout_workers": 2}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    done = command("-m", "trainer", "run", "--json", *words, home=tmp_path)
    assert done.returncode == 0, done.stderr
    ran = json.loads(done.stdout)
    assert (ran["status"], ran["steps"]) == ("finished", 60)
    assert ran["reward_last"] > ran["reward_first"] + 0.2
    store = Store.open(str(tmp_path / "etalon.db"))
    rows = store.steps(ran["run_id"])
    assert [row.step for row in rows] == list(range(60))
    assert max(row.staleness_max for row in rows) in (1, 2)
    store.close()


def test_a_reward_that_raises_in_an_actor_fails_the_run_as_it_does_in_lockstep(two_nodes, made):
    learner = made(Asynchronous, RAISES_ELSEWHERE, **ON_RAY)
    silent = {field.name: print for field in fields(Hooks)} | {"stop_requested": lambda: False}
    with pytest.raises(RewardFailed, match="the reward raised ZeroDivisionError") as error:
        learner.train(Hooks(**silent))
    assert any("own_reward.py" in note for note in error.value.__notes__)


def test_actors_that_no_node_has_room_for_are_refused(two_nodes, made):
    learner = made(Asynchronous, threads=8, **ON_RAY)
    with pytest.raises(BadInput, match="no node of the Ray cluster offers 8 CPU at once"):
        learner._workers()


def test_weights_that_come_late_do_not_replace_newer_ones():
    held, vector = ReceivedWeights(), torch.empty(2)
    for version, value in ((3, 3.0), (5, 5.0), (4, 4.0)):
        held.offer(version, torch.full((2,), value).numpy())
    assert (held.version, held.load_into(vector), vector.tolist()) == (5, 5, [5.0, 5.0])


def test_only_the_queue_takes_the_engine_ray(tmp_path):
    with pytest.raises(BadInput, match="engine: 'ray' is not allowed with the schedule cyclic"):
        own_config(tmp_path, engine="ray")
