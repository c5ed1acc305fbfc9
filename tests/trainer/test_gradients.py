"""Gradients under each correction, and the study that compares them at a run's last policy."""

import math
from dataclasses import fields

import pytest
import torch

from trainer.bias import bias_of, gram_of
from trainer.clip_bias import ClipBiasStream, _Window, lowest_of_like_age
from trainer.gradients import CORRECTIONS, Checkpoint, Plan, surrogate
from trainer.objective import Objective
from trainer.rollout import sample_rollouts, score

PLAN = Plan(shards=16, prompts=8, group_size=4, seed=3)


def checkpoint_of(run):
    return Checkpoint(
        policy=run.policy,
        weights=run.weights,
        behavior_policy=run.behavior_policy,
        behavior_weights=run.behavior_weights,
        tokenizer=run.tokenizer,
        task=run.task,
        objective=run.objective,
    )


def gradient_of(correction, log_ratio, advantage, epsilon=0.2):
    """dloss/dℓ by autograd, one token per rollout, as uphill gradients times the batch size."""
    free = torch.tensor(log_ratio).unsqueeze(1).requires_grad_()
    mask = torch.ones_like(free)
    objective = Objective(
        loss="grpo", epsilon_low=epsilon, epsilon_high=epsilon, group_size=4, token_budget=1
    )
    loss = surrogate(correction, objective, free, torch.tensor(advantage), mask)
    (found,) = torch.autograd.grad(loss, free)
    return (-found.squeeze(1) * len(advantage)).tolist()


def test_each_correction_weighs_a_token_by_its_definition():
    # ℓ = 0.3 → r = 1.350 > 1.2; ℓ = −0.3 → r = 0.741 < 0.8. Columns: A > 0 above, A < 0 above,
    # A > 0 below, A < 0 below. The clip removes the first and the last.
    log_ratio, advantage = [0.3, 0.3, -0.3, -0.3], [2.0, -2.0, 2.0, -2.0]
    up, down = math.exp(0.3), math.exp(-0.3)
    expected = {
        "clipped": [0.0, -2 * up, 2 * down, 0.0],
        "unclipped": [2 * up, -2 * up, 2 * down, -2 * down],
        "uncorrected": [2.0, -2.0, 2.0, -2.0],
    }
    for correction, weights in expected.items():
        assert gradient_of(correction, log_ratio, advantage) == pytest.approx(weights)


def test_on_fresh_rollouts_all_corrections_agree(learner):
    run = learner(max_staleness=0, steps=5)
    found = checkpoint_of(run).measure(run.weights.snapshot(), PLAN).vectors
    for correction in CORRECTIONS[1:]:
        torch.testing.assert_close(found[correction], found["clipped"], rtol=1e-4, atol=1e-6)
    assert found["clipped"].shape == (16, run.weights.vector.numel())


def test_common_random_numbers_repeat_and_another_stream_does_not(learner):
    run = learner(max_staleness=0, steps=5)
    checkpoint, present = checkpoint_of(run), run.weights.snapshot()
    one, again, other = (
        checkpoint.measure(present, PLAN, corrections=("clipped",), stream=s).vectors["clipped"]
        for s in (0, 0, 1)
    )
    assert torch.equal(one, again)
    assert not torch.allclose(one, other)
    control = bias_of(gram_of({"fresh": one, "stale": other}), "stale")
    assert control.squared.low < 0 < control.squared.high, "the lag-0 control has no bias"


def test_measuring_leaves_the_policy_where_it_was(learner):
    run = learner(max_staleness=0, steps=5)
    present = run.weights.snapshot()
    checkpoint_of(run).measure(present + 0.01, PLAN)
    assert torch.equal(run.weights.vector, present)


def test_a_run_with_a_study_keeps_its_probes_and_the_same_run_without_it_the_same_steps(learner):
    setting = {"max_staleness": 0, "steps": 6, "learning_rate": 4e-4, "group_size": 4, "prompts": 8}
    probes, rows = [], {True: [], False: []}
    for studied in (True, False):
        study = {"bias_study": "0,2,6", "bias_shards": 16, "bias_prompts": 4} if studied else {}
        run = learner(**setting, **study)
        run.train(run_hooks(on_step=rows[studied].append, on_bias=probes.append))
    assert [(p.staleness, p.correction) for p in probes] == [
        (lag, kind) for lag in (0, 2, 6) for kind in (*CORRECTIONS, "clip")
    ]
    assert all(p.step == 6 and p.shards == 16 and p.rollouts == 16 * 4 * 4 for p in probes)
    drifts = [p.drift for p in probes if p.correction == "clip"]
    assert drifts[0] == 0
    assert 0 < drifts[1] < drifts[2]
    clean = [[(r.reward_mean, r.displacement, r.loss) for r in rows[s]] for s in (True, False)]
    assert clean[0] == clean[1]


def run_hooks(**changes):
    from trainer.hooks import Hooks

    ignored = {field.name: lambda *_: None for field in fields(Hooks)}
    return Hooks(**{**ignored, "stop_requested": lambda: False, **changes})


def test_the_clip_bias_of_a_batch_is_the_clipped_minus_the_unclipped_gradient(learner):
    """The stream's shortcut through clipped sequences against two whole backward passes."""
    run = learner(max_staleness=3, steps=20, learning_rate=1e-3)
    run.evaluate(0, 64)
    behavior = run.weights.snapshot()
    for step in range(12):
        run.learner_step(step)
    run.behavior_weights.load(behavior)
    prompts = run.task.sample_prompts(run.config.prompts, run.generator)
    group_size = run.config.group_size
    batch = sample_rollouts(
        run.behavior_policy, run.tokenizer, run.task, prompts, group_size, run.generator
    )
    scored, _ = run.backward(batch, None)
    log_ratio_B_T = score(run.policy, batch)[0] - batch.behavior_log_probs_B_T
    whole = {}
    for correction in ("unclipped", "clipped"):
        loss = surrogate(
            correction, run.objective, log_ratio_B_T, scored.advantage_B, batch.mask_B_T
        )
        run.weights.gradient.zero_()
        torch.autograd.backward(loss, retain_graph=True)
        whole[correction] = -run.weights.gradient.clone()
    assert not torch.allclose(whole["clipped"], whole["unclipped"])
    stream = ClipBiasStream(run.policy, run.weights, every=1, max_staleness=3)
    before = run.weights.gradient.clone()
    taken = run.meter._taken(scored)
    assert stream.measure(3, batch, taken, run.objective.divisors(batch.mask_B_T)) is None
    assert torch.equal(run.weights.gradient, before)
    [(bias, unclipped)] = stream._windows[2]._vectors
    torch.testing.assert_close(bias, whole["clipped"] - whole["unclipped"], rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(unclipped, whole["unclipped"], rtol=1e-3, atol=1e-6)


def test_a_window_that_rolls_gives_what_its_last_batches_give_at_once():
    torch.manual_seed(0)
    window, vectors = _Window(), [(torch.randn(50), torch.randn(50) + 1) for _ in range(20)]
    for bias, unclipped in vectors:
        window.add(bias, unclipped)
    bias, unclipped = (torch.stack(rows) for rows in zip(*vectors[-16:], strict=True))
    whole = bias_of(gram_of({"clipped": unclipped + bias, "fresh": unclipped}), "clipped")
    rolled = window.estimate()
    for name in ("squared", "norm_squared", "harmful", "cosine"):
        one, other = getattr(rolled, name), getattr(whole, name)
        assert (one.value, one.stderr) == pytest.approx((other.value, other.stderr), rel=1e-4)


def test_ages_share_a_window_by_powers_of_two():
    assert [lowest_of_like_age(age) for age in (1, 2, 3, 4, 7, 8, 15, 16)] == [
        1, 2, 2, 4, 4, 8, 8, 16,
    ]  # fmt: skip


@pytest.mark.parametrize(("every", "max_staleness"), [(5, 3), (5, 5), (5, 10), (4, 6), (1, 2)])
def test_every_age_comes_up_however_the_interval_divides_the_cycle(learner, every, max_staleness):
    run = learner(max_staleness=max_staleness, steps=5)
    stream = ClipBiasStream(run.policy, run.weights, every=every, max_staleness=max_staleness)
    measured = set()
    for step in range(400):
        age = step % (max_staleness + 1)
        if stream.due(age):
            measured.add(age)
    assert measured == set(range(1, max_staleness + 1))


def test_nothing_is_due_on_fresh_rollouts(learner):
    run = learner(max_staleness=0, steps=5)
    stream = ClipBiasStream(run.policy, run.weights, every=1, max_staleness=0)
    assert not any(stream.due(0) for _ in range(20))


def test_a_live_run_streams_its_clip_bias_and_costs_say_how_much(learner):
    run = learner(max_staleness=1, steps=40, learning_rate=1e-3, bias_every=1, prompts=8)
    probes = []
    run.train(run_hooks(on_bias=probes.append))
    assert {(p.correction, p.staleness) for p in probes} == {("clip", 1)}
    assert [p.step for p in probes] == list(range(31, 40, 2)), "from the 16th stale batch on"
    last = probes[-1]
    assert last.shards == 16
    assert last.norm_squared is not None
    assert last.seconds > 0
    assert math.isfinite(last.bias_squared)
    assert last.bias_squared_stderr > 0
