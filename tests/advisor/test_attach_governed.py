"""A governor inside a training of TRL: it scales what the scheduler plans, and gives it back."""

import logging

import pytest
from trl_trainings import trl_trainer, weights

from advisor.attach import attach
from storage.commandline import BadInput
from storage.store import Store
from trainer.callback import record

pytest.importorskip("trl", reason="no trl; pip install -r requirements-trl.txt")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")

STEPS = 8
LINEAR = {"max_steps": STEPS, "lr_scheduler_type": "linear", "warmup_steps": 2}


def rows_of(db, recorder):
    store = Store.open(db)
    rows, events = store.steps(recorder.run_id), store.events(recorder.run_id)
    store.close()
    return rows, [event for event in events if event.kind == "governor"]


def quartering(row):
    return (1.0, "early") if row is None or row.step < 3 else (0.25, "late")


def test_every_update_takes_the_scaled_rate_of_the_schedule_and_nothing_else_sees_it(tmp_path):
    db, planned, logged = str(tmp_path / "archive.db"), [], []

    def govern(config, parameters, schedule):
        planned[:] = [schedule(step) for step in range(STEPS)]
        assert config["learning_rate"] == 1e-2
        assert parameters > 0
        return quartering

    trainer = trl_trainer(tmp_path, **LINEAR)
    recorder = record(trainer, db=db, govern=govern)
    trainer.train()
    rows, [event] = rows_of(db, recorder)
    factors = [1.0] * 4 + [0.25] * 4
    assert [row.learning_rate for row in rows] == pytest.approx(
        [rate * factor for rate, factor in zip(planned, factors, strict=True)]
    )
    assert max(planned) == 1e-2
    assert (event.step, event.data["factor"]) == (4, 0.25)
    logged = [log["learning_rate"] for log in trainer.state.log_history if "learning_rate" in log]
    assert logged == pytest.approx(planned)  # the scheduler's own, of which nothing was changed


@pytest.mark.parametrize("broken", [False, True])
def test_where_the_governor_does_nothing_or_breaks_the_weights_are_those_without_it(
    tmp_path, broken, caplog
):
    alone = trl_trainer(tmp_path, **LINEAR)
    alone.train()

    def rule(row):
        if broken and row is not None:
            raise RuntimeError("a fault of the rule")
        return 1.0, "nothing to do"

    under = trl_trainer(tmp_path, **LINEAR)
    record(under, db=str(tmp_path / "archive.db"), govern=lambda *_: rule)
    under.train()
    assert weights(under).equal(weights(alone))
    assert ("the training goes on" in caplog.text) is broken


def test_attached_with_govern_it_says_what_it_holds_the_training_to(tmp_path, caplog):
    caplog.set_level(logging.WARNING, logger="etalon")
    trainer = trl_trainer(tmp_path, max_steps=30, learning_rate=3e-2)
    recorder = attach(trainer, db=str(tmp_path / "archive.db"), govern=True)
    trainer.train()
    rows, events = rows_of(str(tmp_path / "archive.db"), recorder)
    assert "held to drift within a cycle below R_batch" in caplog.text
    assert all(0 < row.learning_rate <= 3e-2 for row in rows)
    assert events, "a rate at which the drift passes the clip is taken down"
    assert rows[-1].learning_rate < 3e-2
    for event in events:
        assert event.message in caplog.text


def test_a_risk_that_is_none_is_refused(tmp_path):
    with pytest.raises(BadInput, match=r"risk: 1\.5 is not allowed"):
        attach(object(), risk=1.5)
