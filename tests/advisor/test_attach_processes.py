"""Attached to a training of several processes: one of them records, and none waits for another."""

import os
import shutil
import signal
import subprocess
import sys

import pytest
import torch
from processes import PATIENCE, PROJECT, environment, own_port
from torch import distributed
from torch.distributed.fsdp import fully_shard

from storage.records import RunStatus, missing_reason
from storage.store import Store
from trainer.attached.meters import OF_THE_WEIGHTS
from trainer.callback import record

AT_STEP = 6
"""At which something befalls a process; as ``trl_processes`` has it."""

pytest.importorskip("trl", reason="no trl; pip install -r requirements-trl.txt")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture
def one_process(tmp_path):
    """A group of one process, in which shards are what they are among many."""
    distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/g", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def test_shards_of_a_training_are_not_taken_for_the_weights(tmp_path, one_process):
    from trl_trainings import trl_trainer

    trained = trl_trainer(tmp_path, max_steps=6)
    fully_shard(trained.model)
    db = str(tmp_path / "archive.db")
    recorder = record(trained, db=db)
    trained.train()
    store = Store.open(db)
    run, rows = store.run(recorder.run_id), store.steps(recorder.run_id)
    store.close()
    assert (run.status, len(rows), recorder.guard.broken) == (RunStatus.FINISHED, 6, False)
    for row, logged in zip(rows, trained.state.log_history, strict=False):
        for name in OF_THE_WEIGHTS:
            assert getattr(row, name) is None
            assert (
                missing_reason(run, row, name) == "the weights are cut into shards over processes"
            )
        assert row.grad_norm == logged["grad_norm"]
        assert row.staleness_max == row.step % 4
        assert (row.approx_kl > 0) == (row.step % 4 > 0)


# -- two real processes: their imports alone take half a minute ----------------------------------


def in_two_processes(folder, shape):
    """Let two processes train together; return their exit codes and what they wrote to stderr."""
    path = os.pathsep.join(map(str, (PROJECT, PROJECT / "tests")))
    words = [sys.executable, str(PROJECT / "tests" / "trl_processes.py"), str(folder), shape]
    known = {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "WORLD_SIZE": "2"}
    with own_port() as port:
        known |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        processes = [
            subprocess.Popen(
                words,
                env={**environment(folder), **known, "RANK": rank, "LOCAL_RANK": rank},
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in "01"
        ]
        said = [each.communicate(timeout=PATIENCE)[1] for each in processes]
    return [each.returncode for each in processes], said


def seen_by(folder, shape):
    return [torch.load(folder / f"{shape} {rank}.pt") for rank in "01"]


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """A training of two processes that nobody watches, and one that is attached."""
    from trl_trainings import saved_model

    folder = tmp_path_factory.mktemp("two processes")
    saved_model(folder)
    assert in_two_processes(folder, "alone")[0] == [0, 0]
    assert in_two_processes(folder, "watched")[0] == [0, 0]
    return folder


@pytest.mark.long
@pytest.mark.timeout(600)
def test_of_two_processes_the_first_records_what_is_true_of_both(together):
    first, second = seen_by(together, "watched")
    thetas = first["thetas"]
    assert torch.equal(thetas, second["thetas"])
    assert torch.equal(thetas, seen_by(together, "alone")[0]["thetas"])
    assert second["run"] is None
    store = Store.open(str(together / "archive.db"))
    [run], rows = store.runs(), store.steps(first["run"])
    store.close()
    assert (run.id, run.status, len(rows)) == (first["run"], RunStatus.FINISHED, 12)
    assert run.config["prompts"] == 4  # 8 rollouts of each process, in groups of 4
    for t, (row, logged) in enumerate(zip(rows, first["logs"], strict=False)):
        moved = float((thetas[t + 1] - thetas[t]).norm())
        assert row.update_norm == pytest.approx(moved / row.learning_rate, rel=1e-4)
        drift = float((thetas[t] - thetas[t - t % 4]).norm())
        assert row.cycle_drift == pytest.approx(drift, rel=1e-5)
        assert row.grad_norm == pytest.approx(logged["grad_norm"], rel=1e-6)
        assert row.staleness_max == t % 4
        assert row.reward_mean == logged.get("reward")
        assert row.clip_fraction_low == logged["clip_ratio/low_mean"]
        assert row.clip_fraction_high == logged["clip_ratio/high_mean"]
        assert row.tokens <= 8 * 6  # of its own rollouts
    assert max(row.clip_fraction for row in rows) > 0.05


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_process_that_dies_leaves_a_readable_run_and_nobody_waiting(together, tmp_path):
    shutil.copytree(together / "model", tmp_path / "model")
    codes, _ = in_two_processes(tmp_path, "dies")
    assert codes[1] == -signal.SIGKILL
    assert codes[0] not in (0, None)  # by TRL's own error: it misses the other
    store = Store.open(str(tmp_path / "archive.db"))
    [run] = store.runs()
    rows = store.steps(run.id)
    store.close()
    assert (run.status, [row.step for row in rows]) == (RunStatus.STOPPED, list(range(AT_STEP)))


@pytest.mark.long
@pytest.mark.timeout(600)
def test_an_archive_that_is_deleted_under_two_processes_changes_nothing(together, tmp_path):
    shutil.copytree(together / "model", tmp_path / "model")
    codes, said = in_two_processes(tmp_path, "gone")
    assert codes == [0, 0]
    assert said[0].count("the archive is away") == 1
    assert "archive" not in said[1]
    thetas = seen_by(together, "alone")[0]["thetas"]
    assert all(torch.equal(each["thetas"], thetas) for each in seen_by(tmp_path, "gone"))
