"""Red flags: each fires on its failure, not on the success that looks like it."""

import math

import pytest

from advisor.red_flags import FIRST, SERIES, WINDOW, red_flags

STEPS = 200
CONFIG = {"prompts": 16, "loss": "cispo"}


def a_run(**columns):
    """Give an unremarkable run of stale batches, with some columns replaced."""
    wobble = [0.01 * (-1) ** i for i in range(STEPS)]
    usual = {
        "step": list(range(STEPS)),
        "staleness_max": [i % 4 for i in range(STEPS)],
        "sequence_ess_fraction": [0.9] * STEPS,
        "approx_kl": [0.0 if i % 4 == 0 else 0.02 for i in range(STEPS)],
        "entropy": [0.3 + w for w in wobble],
        "zero_variance_groups": [4] * STEPS,
        "reward_mean": [0.8 + w for w in wobble],
        "gold_reward_mean": [None] * STEPS,
    }
    assert usual.keys() == set(SERIES)
    return {**usual, **columns}


def names(series, config=CONFIG):
    return [flag.name for flag in red_flags(series, config)]


def line(first, last):
    return [first + (last - first) * i / (STEPS - 1) for i in range(STEPS)]


def test_an_unremarkable_run_raises_none():
    assert names(a_run()) == []


@pytest.mark.parametrize(
    ("columns", "name"),
    [
        ({"sequence_ess_fraction": [0.25] * STEPS}, "few effective sequences"),
        ({"approx_kl": [0.05] * STEPS}, "engine mismatch"),
        ({"entropy": line(0.5, 0.05)}, "entropy gone"),
        ({"zero_variance_groups": line(2, 14)}, "nothing to compare"),
        (
            {"reward_mean": line(0.1, 0.9), "gold_reward_mean": line(0.7, 0.3)},
            "reward rises, gold falls",
        ),
    ],
)
def test_each_failure_raises_its_own_flag_with_numbers_and_advice(columns, name):
    [flag] = red_flags(a_run(**columns), CONFIG)
    assert flag.name == name
    assert any(sign.isdigit() for sign in flag.evidence)
    assert flag.advice


@pytest.mark.parametrize(
    "columns",
    [
        {"zero_variance_groups": line(2, 14), "reward_mean": line(0.3, 0.95)},
        {"reward_mean": line(0.1, 0.9), "gold_reward_mean": line(0.3, 0.7)},
        {"entropy": line(0.05, 0.5)},
        {"sequence_ess_fraction": [0.1 if i % 4 == 0 else 0.9 for i in range(STEPS)]},
        {"approx_kl": [0.001 if i % 4 == 0 else 0.5 for i in range(STEPS)]},
    ],
    ids=[
        "groups become equal because they are right",
        "gold rises with the reward",
        "entropy grows",
        "only fresh batches have a small sample size",
        "only stale batches have a large KL",
    ],
)
def test_what_looks_like_a_failure_but_is_none_raises_nothing(columns):
    assert names(a_run(**columns)) == []


def test_a_loss_that_clips_single_tokens_weighs_no_sequences():
    few = a_run(sequence_ess_fraction=[0.02] * STEPS)
    assert names(few, CONFIG | {"loss": "grpo"}) == []
    assert names(few, {"prompts": 16}) == ["few effective sequences"]  # whose loss nobody knows


def test_one_odd_batch_raises_nothing():
    odd = [0.9] * (STEPS - 1) + [0.01]
    assert names(a_run(sequence_ess_fraction=odd)) == []


@pytest.mark.parametrize("missing", [None, math.nan])
def test_what_was_not_measured_raises_nothing(missing):
    series = a_run(**{name: [missing] * STEPS for name in SERIES if name != "step"})
    assert names(series) == []
    assert names({"step": [0, 1]}) == []
    assert names({}) == []


def test_sparse_metrics_are_judged_by_what_there_is():
    sparse = [v if i % 2 else None for i, v in enumerate(line(0.5, 0.05))]
    assert names(a_run(entropy=sparse)) == ["entropy gone"]


def test_a_short_run_is_not_judged_against_its_beginning():
    short = {name: values[: FIRST + WINDOW - 1] for name, values in a_run().items()}
    short["entropy"] = line(0.5, 0.0)[: FIRST + WINDOW - 1]
    assert names(short) == []


@pytest.mark.parametrize(
    ("config", "age", "raised"),
    [
        ({"clip_epsilon": 0.2, "clip_epsilon_high": 50.0}, 3, True),
        ({"clip_epsilon": None, "clip_epsilon_high": 50.0}, 1, True),
        ({"clip_epsilon": 0.2, "clip_epsilon_high": 50.0}, 0, False),
        ({"clip_epsilon": 0.2, "clip_epsilon_high": None}, 3, False),
        ({}, 3, False),
    ],
)
def test_only_stale_rollouts_under_a_known_endless_range_are_unclipped(config, age, raised):
    found = red_flags(a_run(staleness_max=[age] * STEPS), {**CONFIG, **config})
    assert ("stale and unclipped" in [flag.name for flag in found]) is raised
    assert all("up to" in flag.evidence for flag in found if flag.name == "stale and unclipped")
