"""Attached to trainings by TRL: what is recorded is true, and so is what is said meanwhile."""

import logging

import pytest
import torch
from attached import Witness, recorded
from transformers import TrainerCallback

from advisor.answer import ask, consider, gather
from advisor.attach import attach
from advisor.diagnosis import diagnose
from advisor.regime import Regime
from storage.records import RunStatus, missing_reason
from storage.store import Store
from trainer import callback
from trainer.attached import archivist
from trainer.callback import record
from trainer.meter import CLIP_METRICS

pytest.importorskip("trl", reason="no trl; pip install -r requirements-trl.txt")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


LARGE = {"per_device_train_batch_size": 32}


def test_a_training_is_recorded_as_it_was(trainer, db):
    trained = trainer()
    witness = Witness(trained)
    recorder = attach(trained, db=db, group="mine")
    trained.train()
    run, rows, lags = recorded(db, recorder.run_id)
    thetas = [*witness.before, witness.vector()]
    assert (run.kind, run.status, run.group) == ("attached", RunStatus.FINISHED, "mine")
    assert (run.name, run.config["max_staleness"], run.config["steps"]) == ("a training", 3, 24)
    assert run.parameters == len(thetas[0])
    assert [row.step for row in rows] == list(range(24))
    for t, (row, logged) in enumerate(zip(rows, witness.logs, strict=False)):
        born = t - t % 4
        assert (row.sampled_at_step, row.staleness_mean, row.staleness_max) == (born, t % 4, t % 4)
        moved = torch.linalg.vector_norm(thetas[t + 1] - thetas[t])
        assert row.update_norm == pytest.approx(float(moved) / 1e-2, rel=1e-4)
        drift = torch.linalg.vector_norm(thetas[t] - thetas[born])
        assert row.cycle_drift == pytest.approx(float(drift), rel=1e-5)
        far = torch.linalg.vector_norm(thetas[t + 1] - thetas[0])
        assert row.displacement == pytest.approx(float(far), rel=1e-5)
        assert row.learning_rate == logged["learning_rate"] == 1e-2
        assert row.grad_norm == pytest.approx(logged["grad_norm"], rel=1e-6)
        assert row.entropy == logged["entropy"]
        assert row.reward_mean == logged.get("reward")
        assert row.clip_fraction_low == pytest.approx(logged["clip_ratio/low_mean"], abs=1e-6)
        assert row.clip_fraction_high == pytest.approx(logged["clip_ratio/high_mean"], abs=1e-6)
        assert (row.log_ratio_rms > 0) == (t % 4 > 0)
        assert row.seconds_learn > 0
        assert (row.seconds_generate > 0) == (t % 4 == 0)
    assert max(row.clip_fraction for row in rows) > 0.05  # the clip took part in it
    assert {lag.lag for lag in lags} == {2, 4, 8, 16}
    for lag in lags:
        moved = torch.linalg.vector_norm(thetas[lag.step + 1] - thetas[lag.step + 1 - lag.lag])
        assert lag.norm == pytest.approx(float(moved), rel=1e-5)


def test_drift_rises_within_each_cycle_and_the_run_is_diagnosed(trainer, db):
    trained = trainer(max_steps=100, learning_rate=3e-3, **LARGE)
    recorder = record(trained, db=db)
    trained.train()
    store = Store.open(db)
    rows = store.steps(recorder.run_id)
    for first in range(0, 100, 4):
        drifts = [row.cycle_drift for row in rows[first : first + 4]]
        assert drifts[0] == 0
        assert drifts == sorted(drifts)
    found = diagnose(store, recorder.run_id)
    assert found.regime is not Regime.INSUFFICIENT_DATA
    evidence = gather(store, run_id=recorder.run_id)
    advice = consider(ask(settings={}, evidence=evidence, risk=0.05), evidence)
    store.close()
    assert advice.reason
    assert evidence[0].config.max_staleness == 3


def worsening(completions, **_):
    """Reward more and more of nothing: what a broken reward function or policy looks like."""
    worsening.batches += 1
    worth = 1.0 if worsening.batches <= 40 else 0.0
    return [worth * (0.5 + 0.1 * (len(each) % 3)) for each in completions]


@pytest.mark.parametrize("reward", ["digits", "worsening"])
def test_how_a_training_ended_is_told_by_its_rewards(trainer, db, reward):
    worsening.batches = 0
    chosen = {} if reward == "digits" else {"reward": worsening}
    trained = trainer(
        max_steps=100, steps_per_generation=1, num_iterations=1, learning_rate=1e-4, **chosen
    )
    recorder = record(trained, db=db)
    trained.train()
    run, rows, _ = recorded(db, recorder.run_id)
    rewards = [row.reward_mean for row in rows]
    assert run.reward_first == pytest.approx(sum(rewards[:20]) / 20)
    assert run.reward_last == pytest.approx(sum(rewards[-20:]) / 20)
    assert run.reward_best >= run.reward_first - 0.2
    if reward == "digits":
        assert run.status is RunStatus.FINISHED
        assert run.outcome in ("healthy", "finished")
        assert run.collapse_step is None
    else:
        assert (run.status, run.outcome) == (RunStatus.COLLAPSED, "collapsed")
        assert 40 <= run.collapse_step <= 70


def test_whatever_lacks_has_a_reason(trainer, db):
    trained = trainer(logging_steps=5)
    recorder = record(trained, db=db)
    trained.train()
    run, rows, _ = recorded(db, recorder.run_id)
    for row in rows:
        for name in callback.METRIC_NAMES:
            if getattr(row, name) is None:
                assert missing_reason(run, row, name) != "not measured", (row.step, name)
    assert run.source["window"] == 5
    assert [row.step for row in rows if row.entropy is not None] == [4, 9, 14, 19]


def test_where_clipping_is_impossible_nothing_is_called_0(trainer, db, caplog):
    trained = trainer(steps_per_generation=1, num_iterations=1)
    recorder = record(trained, db=db)
    trained.train()
    run, rows, _ = recorded(db, recorder.run_id)
    assert run.config["max_staleness"] == 0
    assert "clipping is structurally inactive" in caplog.text
    assert f"advisor diagnose {run.id}" in caplog.text
    for row in rows:
        assert (row.staleness_mean, row.cycle_drift) == (0, 0)
        for name in CLIP_METRICS:
            assert getattr(row, name) is None
            assert missing_reason(run, row, name).startswith("structurally impossible")


def test_micro_batches_are_one_batch(trainer, db):
    """Four generated at once, two for each update: the second update is one step old."""
    changes = {"gradient_accumulation_steps": 2, "steps_per_generation": 4, "num_iterations": 1}
    trained = trainer(max_steps=8, **changes)
    recorder = record(trained, db=db)
    trained.train()
    run, rows, _ = recorded(db, recorder.run_id)
    assert (run.config["max_staleness"], run.config["prompts"]) == (1, 4)
    assert [row.staleness_max for row in rows] == [0, 1] * 4
    logged = trained.state.log_history
    for row, log in zip(rows, logged, strict=False):
        assert row.grad_norm == pytest.approx(log["grad_norm"], rel=1e-6)
        assert row.tokens > 16  # of both micro-batches, eight rows each


def test_an_answer_is_clipped_as_one_where_its_ratio_is_one(trainer, db):
    trained = trainer(epsilon=0.02, epsilon_high=0.02, importance_sampling_level="sequence")
    recorder = record(trained, db=db)
    trained.train()
    run, rows, _ = recorded(db, recorder.run_id)
    assert run.config["loss"] == "gspo"
    assert any(row.clip_fraction_high for row in rows)


def test_the_cap_of_cispo_is_where_trl_has_it(trainer, db):
    trained = trainer(loss_type="cispo", epsilon_high=1.05)
    recorder = record(trained, db=db)
    trained.train()
    _, rows, _ = recorded(db, recorder.run_id)
    advantaged = [row for row in rows if row.extra["cispo_clip_ratio"] > 0]
    assert len(advantaged) > 4
    for row in rows:
        assert row.clip_fraction_low is None
        # TRL counts among rollouts with A > 0 alone what is cut of either sign here.
        assert (row.clip_fraction_high > 0) >= (row.extra["cispo_clip_ratio"] > 0)


def test_a_loss_with_another_clip_has_no_clip_fraction(trainer, db):
    trained = trainer(loss_type="sapo")
    recorder = record(trained, db=db)
    trained.train()
    run, rows, _ = recorded(db, recorder.run_id)
    for row in rows:
        assert row.clip_fraction_high is None
        assert "sapo" in missing_reason(run, row, "clip_fraction_high")
        assert row.log_ratio_rms is not None


@pytest.mark.parametrize(
    ("accumulated", "generated", "oldest"), [(3, 2, 1), (3, 5, 2), (2, 4, 1), (4, 4, 0)]
)
def test_the_bound_of_staleness_is_what_is_realised(trainer, db, accumulated, generated, oldest):
    shape = {"gradient_accumulation_steps": accumulated, "steps_per_generation": generated}
    trained = trainer(max_steps=12, num_iterations=1, **shape)
    recorder = record(trained, db=db)
    trained.train()
    run, rows, _ = recorded(db, recorder.run_id)
    assert run.config["max_staleness"] == oldest
    assert max(row.staleness_max for row in rows) == oldest
    mixed = [row for row in rows if row.staleness_mean != row.staleness_max]
    for row in mixed:
        assert (row.cycle_drift, row.sampled_at_step) == (None, None)
        assert "more than one version" in missing_reason(run, row, "cycle_drift")
    assert bool(mixed) == (accumulated == 3)


def test_every_training_of_a_trainer_is_a_run_of_its_own_and_an_error_ends_one(trainer, db):
    trained = trainer(max_steps=10)
    recorder = record(trained, db=db)

    class Clumsy(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 6 and len(seen) == 1:
                raise KeyError("the user's own")

    seen = [1]
    trained.add_callback(Clumsy())
    with pytest.raises(KeyError):
        trained.train()
    first = recorder.run_id
    seen.append(2)
    trained.train()
    broken, rows, _ = recorded(db, first)
    assert (broken.status, rows[-1].step) == (RunStatus.STOPPED, 5)
    whole, rows, _ = recorded(db, recorder.run_id)
    assert (whole.status, [row.step for row in rows]) == (RunStatus.FINISHED, list(range(10)))
    assert all(row.staleness_max is None or row.staleness_max >= 0 for row in rows)
    assert recorder._shoulder.seen.batches == []


# -- what is said while it goes on --------------------------------------------------------------


def test_advice_and_alarms_stand_in_the_log(trainer, db, caplog, monkeypatch):
    caplog.set_level(logging.INFO, logger="etalon")
    monkeypatch.setattr(archivist, "LOOK_SECONDS", 0.2)
    trained = trainer(max_steps=100, learning_rate=3e-3, **LARGE)
    recorder = attach(trained, db=db)
    trained.train()
    said = [each.getMessage() for each in caplog.records if each.name == "etalon"]
    assert any(each.startswith("advice: ") for each in said)
    store = Store.open(db)
    events = [event.message for event in store.events(recorder.run_id)]
    store.close()
    for message in events:
        assert any(message in each for each in said)


def test_a_drift_from_weights_that_nobody_saw_is_unknown_and_not_0(trainer, db, monkeypatch):
    """As with AsyncGRPOTrainer, whose rollouts come from elsewhere."""
    trained = trainer()
    monkeypatch.setattr(callback.Shoulder, "_note_generation", lambda *_: None)
    recorder = record(trained, db=db)
    trained.train()
    run, rows, _ = recorded(db, recorder.run_id)
    for row in rows:
        for name in ("cycle_drift", "sampled_at_step", "staleness_mean"):
            assert getattr(row, name) is None
        assert missing_reason(run, row, "cycle_drift").startswith("which weights sampled")
        assert missing_reason(run, row, "staleness_mean") != "not measured"
        assert row.displacement > 0
