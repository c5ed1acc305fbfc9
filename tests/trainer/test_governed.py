"""A function that scales the learning rate governs a run: its rows, its events, its resuming."""

import pytest
from factories import a_config

from storage.commandline import BadInput
from storage.records import RunStatus
from trainer.governing import GOVERNED
from trainer.launch import create_run, reopen, resume
from trainer.worker import Worker

SETTING = {
    "steps": 10,
    "prompts": 4,
    "group_size": 4,
    "warmup_steps": 2,
    "evaluation_rollouts": 16,
    "save_policy": False,
}


@pytest.fixture(autouse=True)
def in_a_home_of_its_own(monkeypatch, own_home):
    monkeypatch.setenv("ETALON_HOME", str(own_home))


def ignore(words, step, steps):
    pass


def halving(row):
    """Halve the rate from the fifth step on."""
    return (1.0, "early") if row is None or row.step < 3 else (0.5, "late")


def trained(store, govern, progress=ignore):
    config = a_config(**SETTING)
    run = create_run(store, config, kind="train" if govern is None else GOVERNED)
    return Worker(store, run, progress, govern).run()


def rates(store, run):
    return [row.learning_rate for row in store.steps(run.id)]


def test_the_rate_of_every_row_is_the_scaled_one_and_a_change_is_an_event(store):
    config, run = a_config(**SETTING), trained(store, halving)
    planned = [config.learning_rate_at(step) for step in range(10)]
    assert rates(store, run) == planned[:4] + [rate / 2 for rate in planned[4:]]
    events = [event for event in store.events(run.id) if event.kind == "governor"]
    assert [(event.step, event.data["factor"]) for event in events] == [(4, 0.5)]
    assert "scaled by 0.5: late" in events[0].message


def test_a_factor_of_1_changes_nothing(store):
    alone, under = trained(store, None), trained(store, lambda _: (1.0, "nothing to do"))
    columns = ("learning_rate", "displacement", "loss", "reward_mean")
    assert store.series(alone.id, columns) == store.series(under.id, columns)
    assert not [event for event in store.events(under.id) if event.kind == "governor"]


@pytest.mark.parametrize("factor", [0.0, -1.0, 1.5, float("nan")])
def test_a_factor_beyond_the_schedule_fails_the_run(store, factor):
    with pytest.raises(ValueError, match=r"in \(0, 1\]"):
        trained(store, lambda _: (factor, "wrong"))
    assert store.runs()[0].status is RunStatus.FAILED


def test_a_guarded_run_goes_on_as_if_it_had_not_stopped_under_its_governor_only(store):
    def remembering():
        seen = []

        def govern(row):
            seen.extend([] if row is None else [row.step])
            return 1 / (1 + len(seen)), "the more steps, the less"

        return govern

    whole = trained(store, remembering())
    worker = None

    def stop(words, step, steps):
        if step == 5 and worker is not None:
            worker.request_stop()

    run = create_run(store, a_config(**SETTING), kind=GOVERNED)
    worker = Worker(store, run, stop, remembering())
    assert worker.run().status is RunStatus.STOPPED
    for refused in (lambda: resume(store, run.id), lambda: Worker(store, run, ignore)):
        with pytest.raises(BadInput, match=f"advisor guard --resume {run.id}"):
            refused()
    taken = reopen(store, run.id, RunStatus.RUNNING, governed=True)
    ended = Worker(store, taken, ignore, remembering()).run()
    assert rates(store, ended) == rates(store, whole)
