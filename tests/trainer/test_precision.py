"""bf16: what computes in it, what stays fp32, and how far sampler and learner are apart by it."""

import pytest
import torch
from own_things import LENGTH, own_config, own_learner

from trainer.checkpoint import Checkpoints
from trainer.hooks import Hooks
from trainer.lockstep import Lockstep
from trainer.meter import unclipped
from trainer.policy import load_policy
from trainer.precision import ComputesInBf16
from trainer.rollout import sample_rollouts, score
from trainer.workloads.arithmetic import build_model, build_tokenizer
from trainer.workloads.choice import task_and_start

CPU = torch.device("cpu")


def ignore(*words):
    pass


@pytest.fixture
def made(tmp_path):
    torch.set_num_threads(1)

    def make(**changes):
        settings = {"precision": "bf16", "max_staleness": 1, "warmup_steps": 0}
        return own_learner(Lockstep, tmp_path, **(settings | changes))

    return make


def test_products_are_bf16_and_weights_gradients_and_logits_fp32(made, device):
    learner = made(device=device)
    seen = {}
    for name, module in learner.policy.named_modules():
        if isinstance(module, torch.nn.Linear):
            module.register_forward_hook(
                lambda _module, _inputs, out, name=name: seen.update({name: out.dtype})
            )
    batch = learner._sample(0).batch
    learner.backward(batch, None)
    assert seen.pop("model.lm_head") == torch.float32
    assert set(seen.values()) == {torch.bfloat16}
    assert {p.dtype for p in learner.policy.parameters()} == {torch.float32}
    assert learner.weights.gradient.dtype == torch.float32
    assert learner.weights.gradient.norm() > 0
    assert batch.behavior_log_probs_B_T.dtype == torch.float32


def test_a_policy_in_bf16_is_near_the_one_in_fp32_but_another(made, device):
    one, other = made(device=device), made(device=device, precision="fp32")
    batch = other._sample(0).batch
    mine, exact = (score(learner.policy, batch)[0].detach() for learner in (one, other))
    apart = float((mine - exact).abs().max())
    assert 1e-5 < apart < 0.05


def test_it_learns_saves_and_goes_on_like_any_other(made, tmp_path):
    whole, first, second = made(steps=8), made(steps=8), made(steps=8)
    hooks = dict.fromkeys(Hooks.__dataclass_fields__, ignore)
    rows = []
    whole.train(Hooks(**{**hooks, "on_step": rows.append, "stop_requested": lambda: False}))
    first.evaluate(0, 512)
    assert all(row.displacement > 0 for row in rows)
    kept = Checkpoints(tmp_path / "kept")
    stop_at = 4
    taken = []

    def rest(step, stopping):
        if stopping:
            kept.save(step, first.state_dict())

    first.train(
        Hooks(
            **{
                **hooks,
                "on_step": taken.append,
                "stop_requested": lambda: len(taken) == stop_at,
                "on_rest": rest,
            }
        )
    )
    second.load_state_dict(kept.load(CPU).state)
    assert second.learner_step(4).loss == rows[4].loss


def floor(folder, precision, head):
    """Return the rms log-ratio of learner and sampler at equal weights, on long answers."""
    config = own_config(folder, LENGTH, precision=precision, max_new_tokens=24)
    policy, tokenizer = load_policy(folder / "model", CPU, config)
    if not head and isinstance(policy, ComputesInBf16):
        policy.model.lm_head.__class__ = torch.nn.Linear
    task, _ = task_and_start(config, folder, ignore)
    with torch.no_grad():
        prompts, chance = task.sample_prompts(16, torch.Generator()), torch.Generator()
        batch = sample_rollouts(policy, tokenizer, task, prompts, 8, chance.manual_seed(0))
        apart = (score(policy, batch)[0] - batch.behavior_log_probs_B_T)[batch.mask_B_T.bool()]
    return float(apart.square().mean().sqrt())


def test_the_output_layer_in_fp32_lowers_the_floor_of_the_log_ratio(tmp_path):
    """Sampler and learner read other lengths at once, so their products are rounded differently."""
    torch.set_num_threads(1)
    model = build_model(64, 4)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(2.0)  # logits as far apart as those of a trained model
    model.save_pretrained(tmp_path / "model")
    build_tokenizer().save_pretrained(tmp_path / "model")
    exact = floor(tmp_path, "fp32", True)
    kept, rounded = (floor(tmp_path, "bf16", head) for head in (True, False))
    assert exact < 1e-5
    assert 1e-4 < kept < 0.8 * rounded
    assert rounded < 0.02


def test_the_row_of_the_first_step_shows_the_floor_and_no_drift(made):
    learner = made()
    learner.evaluate(0, 16)
    row = learner.learner_step(0)
    assert row.cycle_drift == 0
    assert 0 < row.log_ratio_rms < 0.02


def test_with_fresh_rollouts_rounding_may_clip_and_nobody_says_it_cannot(made):
    assert unclipped(made(max_staleness=0).config) is None
    assert "structurally impossible" in unclipped(made(max_staleness=0, precision="fp32").config)


@pytest.mark.parametrize(("share", "pooled"), [(0.32, 3), (0.35, 2)])
def test_a_batch_below_three_times_the_floor_tells_no_radius(made, share, pooled):
    """The third stale batch, against a floor just below and just above a third of its ratios."""
    first, again = made(steps=6), made(steps=6)
    rows = []
    for learner in (first, again):
        learner.evaluate(0, 16)
        rows += [learner.learner_step(step) for step in range(5)]
    assert [row.cycle_drift > 0 for row in rows] == [False, True, False, True, False] * 2
    assert 0 < again.meter._floor.value == max(row.log_ratio_rms for row in rows[0:5:2])
    rms = first.learner_step(5).log_ratio_rms
    again.meter._floor.raise_to(share * rms)
    assert again.learner_step(5).log_ratio_rms == rms
    assert len(first.meter._importance._batches) == 3
    assert len(again.meter._importance._batches) == pooled
