"""Losses in runs: a number or the reason why there is none, and several updates per batch."""

import math
from copy import deepcopy
from dataclasses import asdict, fields, replace

import pytest
import torch

from storage.records import RunInfo, missing_reason
from trainer.hooks import Hooks
from trainer.losses import LOSSES
from trainer.meter import unmeasured
from trainer.rollout import score


# -- in a run ---------------------------------------------------------------------------------
def reason_of(run, row, name):
    info = RunInfo(id="a run", name="a run", created_at=0.0, unmeasured=unmeasured(run.config))
    return missing_reason(info, row, name)


def steps_of(run, count):
    run.evaluate(0, 64)
    return [run.learner_step(step) for step in range(count)]


@pytest.mark.parametrize("loss", list(LOSSES))
def test_a_run_of_every_loss_gives_a_number_or_the_reason_why_there_is_none(learner, loss):
    for extra in ({}, {"updates_per_batch": 2}, {"max_staleness": 0}):
        run = learner(loss=loss, learning_rate=1e-3, **({"max_staleness": 3} | extra))
        for row in steps_of(run, 4):
            for name, value in asdict(row).items():
                if value is None:
                    assert reason_of(run, row, name) != "not measured", (name, extra)
                elif isinstance(value, float):
                    assert math.isfinite(value), (name, extra)


def test_what_no_clip_can_remove_is_unknown_and_never_0(learner):
    for loss, name, words in (
        ("tis", "clip_fraction_low", "clips nothing below 1"),
        ("cispo", "clip_fraction_low", "clips nothing below 1"),
        ("decoupled", "clip_fraction_low", "with one update per batch it is 1"),
        ("decoupled", "clip_fraction_high", "with one update per batch it is 1"),
        ("decoupled", "clipped_gradient_mass", "with one update per batch it is 1"),
        ("decoupled", "clipping_radii", "drift from the behavior policy does not move"),
    ):
        run = learner(loss=loss, max_staleness=3)
        row = steps_of(run, 2)[-1]
        assert getattr(row, name) is None
        assert words in reason_of(run, row, name)
    assert row.weight_radii is not None
    row = steps_of(learner(loss="tis", max_staleness=3), 2)[-1]
    assert row.clip_fraction_high is not None
    assert row.clipping_radii is not None


@pytest.mark.parametrize("loss", ["gspo", "tis", "decoupled"])
def test_the_clip_bias_is_the_clipped_minus_the_unclipped_gradient_of_the_loss(learner, loss):
    high = {"clip_epsilon_high": 0.02} if loss == "tis" else {}
    run = learner(loss=loss, max_staleness=3, updates_per_batch=2, learning_rate=2e-3, **high)
    steps_of(run, 7)
    batch = run._sampled.batch
    proximal = run._proximal_B_T
    scored, _ = run.backward(batch, proximal)
    log_prob = score(run.policy, batch)[0]
    gradients = []
    for epsilon in (run.objective.epsilon_high, math.inf):
        low = min(run.objective.epsilon_low, epsilon) if epsilon < 1 else math.inf
        objective = replace(run.objective, epsilon_low=low, epsilon_high=epsilon)
        found = objective.surrogate(
            log_prob - batch.behavior_log_probs_B_T,
            scored.advantage_B,
            batch.mask_B_T,
            log_prob - proximal,
        )
        run.weights.gradient.zero_()
        torch.autograd.backward(found, retain_graph=True)
        gradients.append(-run.weights.gradient.clone())
    taken = run.meter._taken(scored)
    removed = run.meter.stream._removed(batch, taken, run.objective.divisors(batch.mask_B_T))
    assert removed.norm() > 0
    torch.testing.assert_close(-removed, gradients[0] - gradients[1], rtol=1e-3, atol=1e-5)


# -- several updates per batch ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("schedule", "updates", "max_staleness", "ages"),
    [
        ("cyclic", 2, 3, [0, 1, 2, 3, 0, 1, 2, 3]),
        ("cyclic", 2, 4, [0, 1, 2, 3, 0, 1, 2, 3]),  # a third batch would be 5 old at its end
        ("cyclic", 3, 2, [0, 1, 2, 0, 1, 2]),
        ("constant", 2, 3, [0, 1, 2, 3, 2, 3, 2, 3]),  # a batch begins S − (E − 1) = 2 old
        ("constant", 3, 2, [0, 1, 2, 0, 1, 2]),
    ],
)
def test_staleness_counts_every_update_and_never_passes_its_bound(
    learner, schedule, updates, max_staleness, ages
):
    run = learner(schedule=schedule, updates_per_batch=updates, max_staleness=max_staleness)
    assert [row.staleness_max for row in steps_of(run, len(ages))] == ages
    assert max(ages) <= max_staleness


def test_a_batch_is_sampled_once_and_its_first_policy_is_the_proximal_one(learner):
    run = learner(loss="decoupled", updates_per_batch=3, max_staleness=5, learning_rate=3e-3)
    sampled, sample = [], run._sample
    run._sample = lambda *given: sampled.append(given) or sample(*given)
    rows = steps_of(run, 9)
    assert len(sampled) == 3
    for first in (0, 3, 6):
        assert len({row.reward_mean for row in rows[first : first + 3]}) == 1
        assert rows[first].clip_fraction == rows[first].outside_clip_fraction == 0
    assert rows[3].log_ratio_rms > 1e-3, (
        "stale, and yet nothing is outside: r is not what is clipped"
    )
    assert max(row.outside_clip_fraction for row in rows) > 0


def test_a_batch_is_judged_once_and_a_run_rests_between_batches(learner):
    rests = []
    run = learner(updates_per_batch=2, max_staleness=1, steps=7, stop_on_collapse=False)
    run.train(hooks(on_rest=lambda step, _: rests.append(step)))
    assert rests == [0, 2, 4, 6]
    assert run.outcome.batches == 4


def test_a_run_with_several_updates_per_batch_goes_on_as_if_it_had_not_rested(learner):
    setting = {"loss": "decoupled", "updates_per_batch": 2, "max_staleness": 3, "steps": 8}
    whole, states = [], {}
    run = learner(**setting)
    keep = lambda step, _: states.update({step: deepcopy(run.state_dict())})  # noqa: E731
    run.train(hooks(on_step=whole.append, on_rest=keep))
    again, rest = learner(**setting), []
    again.load_state_dict(states[4])
    again.train(hooks(on_step=rest.append))
    compared = ("reward_mean", "loss", "grad_norm", "displacement", "clip_fraction_high")
    for one, other in zip(whole[4:], rest, strict=True):
        assert [getattr(one, n) for n in compared] == [getattr(other, n) for n in compared]


def hooks(**given):
    silent = {each.name: lambda *_: None for each in fields(Hooks)}
    return Hooks(**(silent | {"stop_requested": lambda: False} | given))
