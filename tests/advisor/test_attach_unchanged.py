"""Attached to trainings by TRL: nothing of them is changed, whatever becomes of the archive."""

import sqlite3
from contextlib import ExitStack, closing

import pytest
import torch
from attached import Witness, recorded
from processes import wait_until
from transformers import TrainerCallback

from advisor.attach import attach
from storage.records import RunStatus
from storage.store import Store
from trainer import callback
from trainer.attached import archivist
from trainer.callback import record

pytest.importorskip("trl", reason="no trl; pip install -r requirements-trl.txt")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning")


def steps_in(file):
    """How many learner steps an archive holds, 0 while there is none."""
    if not file.exists():
        return 0
    with closing(sqlite3.connect(file)) as reader:
        try:
            return reader.execute("SELECT count(*) FROM steps").fetchone()[0]
        except sqlite3.OperationalError:  # it is being made
            return 0


@pytest.fixture
def alone(trainer):
    """The weights and the log of a training that nobody watches."""
    trained = trainer()
    witness = Witness(trained)
    trained.train()
    return witness.vector(), [log["loss"] for log in witness.logs if "loss" in log]


def same(alone, trained, witness, recorder):
    assert not recorder.guard.broken
    return unchanged(alone, witness)


def unchanged(alone, witness):
    losses = [log["loss"] for log in witness.logs if "loss" in log]
    return torch.equal(witness.vector(), alone[0]) and losses == alone[1]


def test_a_watched_training_is_the_same_to_the_bit(trainer, db, alone):
    trained = trainer()
    witness = Witness(trained)
    recorder = attach(trained, db=db)
    trained.train()
    assert same(alone, trained, witness, recorder)
    assert len(recorded(db, recorder.run_id)[1]) == 24


def test_an_archive_that_goes_away_changes_nothing(trainer, tmp_path, alone, caplog, monkeypatch):
    monkeypatch.setattr(archivist, "LAST_WORDS_SECONDS", 1.0)
    trained = trainer()
    witness = Witness(trained)
    recorder = attach(trained, db=str(tmp_path / "archive.db"))

    class Vandal(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 8:
                wait_until(lambda: steps_in(tmp_path / "archive.db") > 4)
                for file in tmp_path.glob("archive.db*"):
                    file.unlink()

    trained.add_callback(Vandal())
    trained.train()
    assert same(alone, trained, witness, recorder)
    assert sum("the archive is away" in each.getMessage() for each in caplog.records) == 1


def test_an_archive_that_never_was_changes_nothing(trainer, tmp_path, alone, caplog, monkeypatch):
    monkeypatch.setattr(archivist, "LAST_WORDS_SECONDS", 0.5)
    trained = trainer()
    witness = Witness(trained)
    attach(trained, db="postgresql+psycopg://nobody:s3cret@127.0.0.1:1/nothing")
    trained.train()
    assert unchanged(alone, witness)
    assert "in postgresql+psycopg://nobody:***@127.0.0.1:1/nothing" in caplog.text
    assert "s3cret" not in caplog.text


def test_a_postgresql_server_that_is_stopped_meanwhile_has_every_step_once(
    trainer, postgres_server, caplog
):
    with postgres_server.archive() as url, ExitStack() as outage:
        trained = trainer()
        recorder = attach(trained, db=url)

        class Outage(TrainerCallback):
            def on_step_begin(self, args, state, control, **kwargs):
                if state.global_step == 8:
                    wait_until(lambda: len(recorded(url, recorder.run_id)[1]) > 4)
                    outage.enter_context(postgres_server.stopped())
                if state.global_step == 16:
                    wait_until(lambda: "the archive is away" in caplog.text)
                    outage.close()

        trained.add_callback(Outage())
        trained.train()
        run, rows, drifts = recorded(url, recorder.run_id)
        assert (run.status, [row.step for row in rows]) == (RunStatus.FINISHED, list(range(24)))
        assert len(drifts) == len({(each.step, each.lag) for each in drifts}) > 16
        assert all(row.cycle_drift is not None for row in rows)
    assert caplog.text.count("the archive is back, everything kept is written") == 1


@pytest.mark.parametrize("place", ["begin", "step", "batch", "log"])
def test_an_error_of_our_own_is_said_once_and_changes_nothing(
    trainer, db, alone, caplog, monkeypatch, place
):
    def fail(*_):
        raise RuntimeError("ours")

    where = {
        "begin": (callback, "config_of"),
        "step": (callback.WeightMeter, "after_update"),
        "batch": (callback.PolicyMeter, "measure"),
        "log": (callback, "plan_of"),
    }[place]
    monkeypatch.setattr(*where, fail)
    trained = trainer()
    witness = Witness(trained)
    attach(trained, db=db)
    trained.train()
    assert unchanged(alone, witness)
    assert sum("recording failed" in each.getMessage() for each in caplog.records) == 1


def test_a_stop_in_the_archive_ends_the_training(trainer, db, caplog):
    trained = trainer(max_steps=100_000, num_iterations=2)
    recorder = record(trained, db=db)

    class Person(TrainerCallback):
        def on_step_begin(self, args, state, control, **kwargs):
            if state.global_step == 30:
                store = Store.open(db)
                store.update_run(recorder.run_id, stop_requested=True)
                store.close()

    trained.add_callback(Person())
    trained.train()
    run, rows, _ = recorded(db, recorder.run_id)
    assert 30 < trained.state.global_step < 100_000
    assert (run.status, run.outcome_reason) == (RunStatus.STOPPED, "stopped from the archive")
    assert rows[-1].step == trained.state.global_step - 1


def test_a_step_that_the_archive_refuses_bars_the_way_for_no_other(trainer, db, caplog):
    trained = trainer(max_steps=8)
    recorder = record(trained, db=db)

    class Odd(TrainerCallback):
        def on_step_end(self, args, state, control, **kwargs):
            if state.global_step == 3:
                recorder.archivist.do(lambda store: store.update_run("nobody", notes="x"))

    trained.add_callback(Odd())
    trained.train()
    run, rows, _ = recorded(db, recorder.run_id)
    assert (run.status, len(rows)) == (RunStatus.FINISHED, 8)
    assert sum("refused and dropped" in each.getMessage() for each in caplog.records) == 1
