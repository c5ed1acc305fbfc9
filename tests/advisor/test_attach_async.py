"""Attached to AsyncGRPOTrainer: what is recorded of its rollouts is what became of them."""

import pytest
import torch
from transformers import AutoModelForCausalLM, TrainerCallback

from advisor.attach import attach
from storage.records import RunStatus, missing_reason
from storage.store import Store
from trainer.attached import queue_shoulder
from trainer.callback import record

pytest.importorskip("trl.experimental.async_grpo", reason="pip install -r requirements-trl.txt")
pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::UserWarning")


@pytest.fixture
def trainer(tmp_path, monkeypatch):
    from trl_async_trainings import async_trainer, on_the_cpu

    on_the_cpu(monkeypatch)
    return lambda **changes: async_trainer(tmp_path, **changes)


@pytest.fixture
def db(tmp_path):
    return str(tmp_path / "archive.db")


def recorded(db, run_id):
    store = Store.open(db)
    try:
        return store.run(run_id), store.steps(run_id)
    finally:
        store.close()


class Weights(TrainerCallback):
    """Keeps the weights before each learner step, and what TRL logged of it."""

    def __init__(self, trainer):
        self.trainer, self.before, self.logs = trainer, [], []
        trainer.add_callback(self)

    def on_step_begin(self, args, state, control, **kwargs):
        self.before.append([p.detach().clone() for p in self.trainer.model.parameters()])

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append(dict(logs))

    def vector(self, step):
        return torch.cat([p.reshape(-1) for p in self.before[step]])


def log_ratios(model, weights, samples):
    """Score rollouts one by one with a model of one's own, by the plain forward of transformers."""
    with torch.no_grad():
        for mine, kept in zip(model.parameters(), weights, strict=True):
            mine.copy_(kept)
        found = []
        for sample in samples:
            ids = torch.tensor(sample.input_ids)
            logs = model(ids[None]).logits[0, :-1].log_softmax(dim=-1)
            scored = logs.gather(1, ids[1:, None])[:, 0]
            mask = torch.tensor(sample.completion_mask[1:]).bool()
            found.append((scored - torch.tensor(sample.old_log_probs[1:]))[mask])
        return found


def expected(witness, trained, model, step, size):
    """What a learner step must have recorded, from what the sampler handed out and took over."""
    samples = trained.rollout_worker.given[step * size : (step + 1) * size]
    sent_at = trained.weight_transfer.sent_at
    ages = [step - sent_at[each.model_version - 1] for each in samples]
    ratios = log_ratios(model, witness.before[step], samples)
    tokens = torch.cat(ratios)
    sides = torch.cat(
        [r.new_full(r.shape, s.advantage) for r, s in zip(ratios, samples, strict=True)]
    )
    weights = torch.stack([r.sum().exp() for r in ratios])
    return {
        "staleness_mean": sum(ages) / len(ages),
        "staleness_max": max(ages),
        "approx_kl": float((tokens.exp() - 1 - tokens).mean()),
        "log_ratio_rms": float(tokens.square().mean().sqrt()),
        "clip_fraction_low": float(((tokens.exp() < 0.8) & (sides < 0)).float().mean()),
        "clip_fraction_high": float(((tokens.exp() > 1.2) & (sides > 0)).float().mean()),
        "sequence_ess_fraction": float(weights.sum() ** 2 / weights.square().sum() / len(samples)),
        "reward_mean": sum(each.metrics["reward"] for each in samples) / len(samples),
        "tokens": len(tokens),
    }


def agrees(db, recorder, trained, witness, size):
    """Compare every row with what the rollouts were and what became of the weights."""
    run, rows = recorded(db, recorder.run_id)
    folder = trained.model.config._name_or_path
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    assert (run.status, len(rows), recorder.guard.broken) == (RunStatus.FINISHED, 20, False)
    for row in rows:
        for name, value in expected(witness, trained, model, row.step, size).items():
            found = getattr(row, name)
            assert found == pytest.approx(value, rel=1e-3, abs=1e-6), (row.step, name)
        if row.staleness_mean == row.staleness_max:
            assert row.sampled_at_step == row.step - row.staleness_max
            moved = witness.vector(row.step) - witness.vector(row.sampled_at_step)
            assert row.cycle_drift == pytest.approx(float(moved.norm()), rel=1e-5)
        else:
            assert "more than one version" in missing_reason(run, row, "cycle_drift")
    return rows


@pytest.mark.parametrize(("sync", "accumulated", "ahead", "oldest"), [(1, 1, 16, 3), (3, 2, 28, 5)])
def test_rollouts_of_a_queue_are_as_old_and_as_far_as_they_are(
    trainer, db, sync, accumulated, ahead, oldest
):
    trained = trainer(weight_sync_steps=sync, gradient_accumulation_steps=accumulated, ahead=ahead)
    witness = Weights(trained)
    recorder = record(trained, db=db)
    trained.train()
    rows = agrees(db, recorder, trained, witness, 8 * accumulated)
    assert trained.weight_transfer.sent_at == list(range(0, 21, sync))
    assert max(row.staleness_max for row in rows) == oldest
    assert max(row.clip_fraction for row in rows) > 0  # the clip took part in it
    assert all(row.seconds_wait > 0 for row in rows)


def test_trl_counts_an_age_one_batch_too_early(trainer, db):
    """A batch leaves the queue, where its age is counted, before the one ahead of it is learned."""
    trained = trainer(ahead=48, max_staleness=2, weight_sync_steps=2)
    witness = Weights(trained)
    recorder = record(trained, db=db)
    trained.train()
    run, rows = recorded(db, recorder.run_id)
    assert max(each.get("sample/staleness_max", 0) for each in witness.logs) == 2
    assert max(row.staleness_max for row in rows) == 6 == run.config["max_staleness"]


def test_a_watched_queue_gives_the_same_training_to_the_bit(trainer, tmp_path, db):
    ends = []
    for watched in (False, True):
        trained = trainer()
        witness = Weights(trained)
        if watched:
            recorder = attach(trained, db=db)
        trained.train()
        witness.on_step_begin(None, None, None)
        losses = [each.get("loss") for each in witness.logs]
        ends.append((losses, witness.vector(-1)))
    assert not recorder.guard.broken
    assert ends[0][0] == ends[1][0]
    assert torch.equal(ends[0][1], ends[1][1])


@pytest.mark.parametrize("otherwise", ["loader", "rows", "loss", "trainer"])
def test_another_layout_of_trl_is_said_once_and_trained_with(
    trainer, db, caplog, monkeypatch, otherwise
):
    where, other = {
        "loader": (queue_shoulder, {"QUEUE": "of_another_name"}),
        "rows": (queue_shoulder, {"VERSION": "of_another_name", "ROLLOUTS": "of_another_name"}),
        "loss": (queue_shoulder, {"READ": ("of_another_name", *queue_shoulder.READ[1:])}),
        "trainer": (queue_shoulder.QueueShoulder, {"needed": ("of_another_name",)}),
    }[otherwise]
    for name, value in other.items():
        monkeypatch.setattr(where, name, value)
    trained = trainer(max_steps=6)
    recorder = record(trained, db=db)
    trained.train()
    run, rows = recorded(db, recorder.run_id)
    said = [each.getMessage() for each in caplog.records if "laid out" in each.getMessage()]
    assert len(said) == 1
    assert "TRL 1." in said[0]
    assert (run.status, len(rows), recorder.guard.broken) == (RunStatus.FINISHED, 6, False)
    for row in rows:
        assert row.update_norm > 0
        assert row.cycle_drift is None
        assert row.approx_kl is not None  # TRL logs it
        assert (row.log_ratio_rms is not None) == (otherwise == "loader")


@pytest.mark.long
def test_rollouts_of_trls_own_process_and_a_server(trainer, tmp_path, db):
    pytest.importorskip("aiohttp", reason="pip install -r requirements-trl.txt")
    from trl_async_trainings import Heard, Sampler, saved_model, serving, worker_of_trl

    sampler = Sampler(saved_model(tmp_path))
    with serving(sampler) as address:
        worker = worker_of_trl(sampler, address)
        trained = trainer(sampler=sampler, worker=worker, weight_sync_steps=2, max_staleness=32)
        trained.rollout_queue = heard = Heard(trained.rollout_queue)
        worker.given = heard.given
        witness = Weights(trained)
        recorder = record(trained, db=db)
        trained.train()
    rows = agrees(db, recorder, trained, witness, 8)
    assert max(row.staleness_max for row in rows) >= 2
    assert max(row.approx_kl for row in rows) > 0
