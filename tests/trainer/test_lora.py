"""Adapters: what is trained, on what drift is measured, what is kept, and what is refused."""

import math
import sys

import pytest
import torch
from factories import a_config
from own_things import own_config, own_learner, own_values

from storage.commandline import BadInput
from storage.records import RunStatus
from trainer.checkpoint import Checkpoints
from trainer.launch import create_run
from trainer.lockstep import Lockstep
from trainer.lora import ProductSample, drift_sample
from trainer.policy import FlatWeights, load_policy
from trainer.rollout import score
from trainer.worker import Worker

peft = pytest.importorskip("peft")
CPU = torch.device("cpu")
RATE = {"learning_rate": 3e-2, "warmup_steps": 0, "max_staleness": 1, "steps": 12}


def ignore(*words):
    pass


@pytest.fixture
def made(tmp_path):
    torch.set_num_threads(1)

    def make(**changes):
        return own_learner(Lockstep, tmp_path, **({"lora_rank": 2} | RATE | changes))

    return make


def trained(learner, steps):
    learner.evaluate(0, 16)
    return [learner.learner_step(step) for step in range(steps)]


def products(policy, vector):
    """Multiply the adapters out, layer by layer, with peft's own code."""
    FlatWeights(policy).load(vector)
    layers = [m for m in policy.modules() if hasattr(m, "lora_A")]
    return torch.cat([layer.get_delta_weight("default").reshape(-1) for layer in layers]).detach()


def test_only_adapters_are_trained_and_the_model_stays_as_it_is(made, device):
    learner = made(device=device)
    names = {n for n, p in learner.policy.named_parameters() if p.requires_grad}
    assert len(names) == 2 * 7  # two adapters on each linear layer of one block
    assert all("lora_" in name for name in names)
    frozen = {n: p.clone() for n, p in learner.policy.named_parameters() if n not in names}
    assert learner.weights.vector.numel() < sum(p.numel() for p in frozen.values())
    before = learner.weights.snapshot()
    trained(learner, 4)
    assert not torch.equal(learner.weights.vector, before)
    for name, value in learner.policy.named_parameters():
        assert name in names or torch.equal(value, frozen[name])


def test_adapters_begin_as_the_model_itself_and_learn(made, device):
    learner = made(device=device, steps=30)
    plain, _ = load_policy(learner._start, torch.device(device))
    batch = learner._sample(0).batch
    torch.testing.assert_close(score(learner.policy, batch)[0], score(plain, batch)[0])
    rows = trained(learner, 30)
    assert sum(r.reward_mean for r in rows[-5:]) > sum(r.reward_mean for r in rows[:5]) + 1


def test_the_behavior_policy_has_adapters_of_its_own_on_the_same_weights(made):
    learner = made()
    trained(learner, 2)  # at S = 1 the second batch came from θ_0
    pairs = list(
        zip(learner.policy.parameters(), learner.behavior_policy.parameters(), strict=True)
    )
    assert all((one is other) == (not one.requires_grad) for one, other in pairs)
    assert not torch.equal(learner.weights.vector, learner.behavior_weights.vector)
    assert len(learner.schedule.behavior(1, learner.weights.vector)[1]) == len(
        learner.weights.vector
    )


def test_drift_is_that_of_the_products(made):
    learner = made(lora_alpha=3.0, kl_to_start_every=1)
    learner.evaluate(0, 16)
    vectors = [learner.weights.snapshot()]
    rows = []
    for step in range(4):
        rows.append(learner.learner_step(step))
        vectors.append(learner.weights.snapshot())
    twin, _ = load_policy(learner._start, CPU, learner.config)
    moved = [products(twin, vector) for vector in vectors]
    assert moved[0].norm() == 0
    for step, row in enumerate(rows):
        step_norm = float((moved[step + 1] - moved[step]).norm())
        assert row.displacement == pytest.approx(float(moved[step + 1].norm()), rel=1e-4)
        assert row.update_norm * row.learning_rate == pytest.approx(step_norm, rel=1e-3)
    assert rows[3].cycle_drift == pytest.approx(float((moved[3] - moved[2]).norm()), rel=1e-3)
    assert rows[0].cycle_drift == 0
    assert rows[3].displacement != pytest.approx(float((vectors[4] - vectors[0]).norm()), rel=0.05)


def test_factors_that_give_the_same_product_are_no_drift(made):
    """B·Q and Q⁻¹·A are other adapters of the same policy."""
    learner = made()
    trained(learner, 3)
    sample = drift_sample(learner.policy, len(learner.weights.vector), CPU)
    before, turned = learner.weights.snapshot(), learner.weights.snapshot()
    for pair in sample._pairs:
        turned[pair.a] *= 2.0
        turned[pair.b] /= 2.0
    assert (turned - before).norm() > 0.1
    assert (sample(turned) - sample(before)).norm() < 1e-6 * sample(before).norm()


def test_a_sample_of_large_products_has_their_norm(tmp_path):
    from trainer.workloads.arithmetic import build_model, build_tokenizer

    build_model(128, 3).save_pretrained(tmp_path)
    build_tokenizer().save_pretrained(tmp_path)
    policy, _ = load_policy(tmp_path, CPU, a_config(lora_rank=4))
    weights = FlatWeights(policy)
    generator = torch.Generator().manual_seed(0)
    one, other = (torch.randn(weights.vector.shape, generator=generator) * 0.1 for _ in range(2))
    whole, blocks = ProductSample(policy), ProductSample(policy, whole_up_to=0)
    assert len(blocks(one)) == 8192 * 64 < len(whole(one))
    exact = (whole(one) - whole(other)).norm()
    assert (blocks(one) - blocks(other)).norm() == pytest.approx(float(exact), rel=0.02)


def test_the_reference_policy_is_the_model_without_adapters(made):
    learner = made(kl_coefficient=0.5)
    plain, _ = load_policy(learner._start, CPU)
    rows = trained(learner, 3)
    batch = learner._sample(3).batch
    with torch.no_grad():
        torch.testing.assert_close(score(learner.reference, batch)[0], score(plain, batch)[0])
        assert not torch.allclose(score(learner.policy, batch)[0], score(plain, batch)[0])
    assert rows[0].extra["kl_penalty"] == pytest.approx(0, abs=1e-6)
    assert rows[2].extra["kl_penalty"] > 1e-5
    assert all(p.requires_grad for n, p in learner.policy.named_parameters() if "lora_" in n)


def test_weight_decay_is_removed_from_the_update_of_the_products(made):
    """A gradient of zero moves nothing but by decay, which is no update."""
    learner = made(weight_decay=0.5, learning_rate=1e-3)
    learner.weights.vector.add_(0.1)
    learner = learner_with_equal_rewards(learner)
    [row] = trained(learner, 1)
    assert row.displacement > 0
    shrunk = 2 * 0.5 * float(drift_sample(learner.policy, 0, CPU)(learner.weights.vector).norm())
    assert row.update_norm < 0.01 * shrunk


def learner_with_equal_rewards(learner):
    from dataclasses import replace

    learner.task = replace(learner.task, rewards=lambda prompts, _: [1.0] * len(prompts))
    return learner


def test_a_run_that_is_resumed_goes_on_as_if_undisturbed(made, tmp_path):
    whole, first, second = made(), made(), made()
    expected = trained(whole, 6)
    trained(first, 3)
    first._step = 3
    first.outcome = first.outcome or _begun_outcome(first)
    Checkpoints(tmp_path / "kept").save(3, first.state_dict())
    size = sum(f.stat().st_size for f in (tmp_path / "kept").rglob("*.safetensors"))
    second.load_state_dict(Checkpoints(tmp_path / "kept").load(CPU).state)
    for step in range(3, 6):
        row = second.learner_step(step)
        assert (row.loss, row.displacement) == (expected[step].loss, expected[step].displacement)
    assert size > 0


def _begun_outcome(learner):
    from trainer.outcome import OutcomeTracker

    return OutcomeTracker(learner._begun().reward, None)


@pytest.mark.slow  # a rollout worker takes seconds to import torch
def test_a_queue_publishes_adapters(store, tmp_path, monkeypatch):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    config = own_config(tmp_path, lora_rank=2, schedule="queue", **RATE)
    run = Worker(store, create_run(store, config), ignore).run()
    assert run.status is RunStatus.FINISHED
    rows = store.steps(run.id)
    assert len(rows) == 12
    assert rows[0].log_ratio_rms < 1e-4
    assert rows[-1].displacement > 0


@pytest.mark.filterwarnings("ignore::FutureWarning")  # of names that peft still calls
def test_the_last_policy_is_kept_as_an_adapter_that_peft_loads(store, tmp_path, monkeypatch):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    config = own_config(tmp_path, lora_rank=2, save_policy=True, **RATE)
    run = Worker(store, create_run(store, config), ignore).run()
    folder = tmp_path / "policies" / run.id
    assert {"adapter_config.json", "adapter_model.safetensors"} <= {
        f.name for f in folder.iterdir()
    }
    loaded = peft.AutoPeftModelForCausalLM.from_pretrained(folder)
    deltas = [m.get_delta_weight("default") for m in loaded.modules() if hasattr(m, "lora_A")]
    norm = math.sqrt(sum(float(delta.square().sum()) for delta in deltas))
    assert norm == pytest.approx(store.steps(run.id)[-1].displacement, rel=1e-4)
    [event] = [e for e in store.events(run.id) if e.kind == "policy"]
    assert str(folder) in event.message


@pytest.mark.parametrize(
    ("targets", "words"),
    [
        ("no_such_layer", "lora_targets: 'no_such_layer' fits the model"),
        ("embed_tokens", "lora_targets: 'embed_tokens' names a layer that is not linear"),
    ],
)
def test_targets_that_fit_nowhere_are_refused(made, targets, words):
    with pytest.raises(BadInput) as found:
        made(lora_targets=targets)
    [line] = str(found.value).splitlines()
    assert line.startswith(words)


def test_targets_are_chosen_by_name(made):
    learner = made(lora_targets="q_proj,v_proj")
    assert len(drift_sample(learner.policy, 0, CPU)._pairs) == 2


def test_without_peft_one_line_says_what_to_do(made, monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(BadInput) as found:
        made()
    assert str(found.value) == (
        "lora_rank: 2 needs peft, which is not installed; pip install -r requirements-lora.txt, "
        "or leave it out"
    )


def test_an_alpha_without_a_rank_is_refused(tmp_path):
    with pytest.raises(BadInput, match="lora_alpha: 8 is not allowed without lora_rank"):
        a_config(**own_values(tmp_path, lora_alpha=8.0))
