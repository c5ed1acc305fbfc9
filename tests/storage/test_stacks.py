"""Staleness of eleven stacks in learner steps, there and back, and their settings as text."""

import ast
import itertools
import random
import re
import tomllib

import pytest

from storage.commandline import BadInput
from storage.importers.keys import metric_of
from storage.importers.metric_names import METRICS
from storage.importers.snippets import settings
from storage.importers.stacks import STACKS
from storage.importers.staleness import largest_knob, staleness_of
from storage.importers.told import config_held, config_told
from storage.records import METRIC_NAMES

EVERY = pytest.mark.parametrize("stack", STACKS.values(), ids=list(STACKS))
SETTING = {"learning_rate": 2e-6, "max_staleness": 7, "steps": 500}


# -- staleness --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "knob", "beside", "steps"),
    [
        ("trl", 1, {}, 0),
        ("trl", 2, {"num_iterations": 2}, 3),  # 2·2/1 − 1, as observed
        ("trl", 8, {"gradient_accumulation_steps": 4}, 1),  # 8/4 − 1
        ("trl", 6, {"gradient_accumulation_steps": 4}, 1),  # two updates, the second 1 old
        ("trl_async", 4, {}, 5),  # one micro-batch waits behind the queue
        ("trl_async", 4, {"weight_sync_steps": 2}, 10),  # (4 + 1)·2 − 1, and 1
        ("verl", 8, {"trainer.v1.separate_async.parameter_sync_step": 1}, 8),
        ("verl", 0, {"updates_per_batch": 4}, 15),  # 4 batches per sync, 4 updates each
        ("verl_fully_async", 0.1, {}, 8),  # ceil(1.1)·4
        ("verl_fully_async", 0, {}, 4),
        ("openrlhf", 1, {}, 2),  # one batch waits, one is sampled
        ("areal", 2, {"actor.ppo_n_minibatches": 4}, 11),  # 2·4 + 4 − 1
        ("areal", 0, {}, 0),
        ("prime_rl", 8, {}, 8),
        ("nemo_rl", 1, {"updates_per_batch": 2}, 3),
        ("skyrl", 4, {}, 4),
        ("slime", 1, {}, 2),
        ("slime", 2, {"--num-steps-per-rollout": 3}, 9),  # 2·3, and one rollout of 3 ahead
        ("tinker", 3, {"num_substeps": 2}, 7),
    ],
)
def test_a_knob_in_learner_steps(name, knob, beside, steps):
    assert staleness_of(STACKS[name], knob, beside) == steps


def test_the_staleness_at_the_defaults():
    found = {name: stack.default_staleness for name, stack in STACKS.items()}
    assert found == {
        "trl": 0,
        "trl_async": 5,
        "verl": 35,  # (8 + 1)·4 − 1
        "verl_fully_async": 8,
        "openrlhf": 2,
        "areal": 0,
        "prime_rl": 8,
        "nemo_rl": 1,
        "skyrl": 4,
        "slime": None,
        "tinker": None,
    }


@EVERY
def test_there_and_back_the_staleness_is_never_exceeded_and_the_knob_is_the_largest(stack):
    rng = random.Random(stack.name)
    counts = [1, 2, 3, 4, 7, 16]
    for staleness in [*range(40), 255, 4096]:
        some = rng.sample(sorted(stack.companions), rng.randint(0, len(stack.companions)))
        fixed = {name: rng.choice(counts) for name in some}
        found = largest_knob(stack, staleness, fixed)
        if found is None:
            continue
        beside = {name: found[name] for name in stack.companions}
        assert beside.items() >= fixed.items()
        assert 0 <= staleness_of(stack, found[stack.knob], beside) <= staleness
        assert staleness_of(stack, found[stack.knob] + 1, beside) > staleness


@EVERY
def test_staleness_grows_with_the_knob_and_with_what_stands_beside_it(stack):
    shrinking = ("gradient_accumulation_steps",)
    for knob, (name, each) in itertools.product((1, 2, 9), stack.companions.items()):
        here = staleness_of(stack, knob)
        assert staleness_of(stack, knob + 1) >= here
        if name not in shrinking:
            assert staleness_of(stack, knob, {name: each.default + 3}) >= here


def test_which_stacks_cannot_be_that_fresh():
    assert {n for n, stack in STACKS.items() if largest_knob(stack, 0) is None} == {
        "trl_async",
        "verl_fully_async",
        "openrlhf",
        "slime",
    }
    assert all(largest_knob(stack, 2) for stack in STACKS.values())


@EVERY
def test_what_no_stack_takes_is_refused(stack):
    for staleness in (-1, 4097):
        with pytest.raises(BadInput, match="0 <= max_staleness <= 4096"):
            largest_knob(stack, staleness)
    for knob in (-1, float("inf"), float("nan")):
        with pytest.raises(BadInput, match="is not allowed"):
            staleness_of(stack, knob)
    with pytest.raises(BadInput, match="a number from 1 to 65536"):
        staleness_of(stack, 1, {"nonsense": 1})
    for name in stack.companions:
        with pytest.raises(BadInput, match="a number from 1 to 65536"):
            staleness_of(stack, 1, {name: 0})


# -- the table --------------------------------------------------------------------------------


@EVERY
def test_what_is_unknown_of_a_stack_has_a_reason(stack):
    asked = ("clip_epsilon_low", "clip_epsilon_high", "group_size", "steps", "default_knob")
    assert {name for name in asked if getattr(stack, name) is None} == set(stack.unknown)


@EVERY
def test_metric_names_lead_to_columns_and_drifts_only_to_the_behavior_policy(stack):
    drifts = ("approx_kl", "clip_fraction_low", "clip_fraction_high", "log_ratio_rms")
    for key, metric in METRICS[stack.name].items():
        assert metric.column is None or metric.column in METRIC_NAMES, key
        assert metric.reference in (None, "behavior", "proximal", "reference_model"), key
        if metric.column in drifts:
            assert metric.reference == "behavior", key
    columns = {metric.column for metric in METRICS[stack.name].values()}
    assert columns >= {"learning_rate", "loss"} or stack.name == "tinker"


@pytest.mark.parametrize(
    ("stack", "keys"),
    [
        (
            "verl",
            "rollout_corr/{kl k3_kl chi2_token chi2_seq log_ppl_diff log_ppl_abs_diff ppl_ratio "
            "training_ppl rollout_ppl rollout_is_mean rollout_is_std rollout_is_min rollout_is_max "
            "rollout_is_eff_sample_size rollout_is_ratio_fraction_high "
            "rollout_is_ratio_fraction_low rollout_is_oob_ratio}",
        ),
        ("verl", "training/rollout_{probs_diff_mean probs_diff_max actor_probs_pearson_corr}"),
        ("verl", "actor/{ppo_kl pg_clipfrac pg_clipfrac_lower grad_norm lr pg_loss entropy}"),
        ("verl", "training/off_policy/{trajectory_staleness/mean evicted_samples}"),
        ("verl_fully_async", "fully_async/count/{stale_samples_processed dropped_stale_samples}"),
        ("openrlhf", "train/{ppo_kl vllm_kl ppo_clip_ratio actor_lr entropy_loss kl}"),
        ("areal", "ppo_actor/update/{importance_weight/avg approx_kl/avg behave_imp_weight/avg}"),
        ("areal", "ppo_actor/update/compute_logp/kl_div_{direct/avg taylor/avg dual/avg}"),
        ("areal", "ppo_actor/update/version_stats/sample_staleness_theta_{avg max}"),
        (
            "prime_rl",
            "{masked_mismatch_kl/mean kl_ent_ratio/mean is_masked_low off_policy/max}",
        ),
        (
            "nemo_rl",
            "train/{gen_kl_error js_divergence_error token_mult_prob_error lr}",
        ),
        ("skyrl", "policy/{rollout_train_logprobs_abs_diff_std policy_kl policy_lr}"),
        ("skyrl", "policy/minibatch_rollout_logprobs_abs_diff_{mean std max min}"),
        ("slime", "train/{ppo_kl train_rollout_logprob_abs_diff ois tis tis_abs tis_clipfrac}"),
        ("tinker", "optim/{kl_sample_train_v1 kl_sample_train_v2 lr entropy}"),
        ("trl", "sampling/{sampling_logp_difference/mean importance_sampling_ratio/min}"),
        ("trl", "{cispo_clip_ratio vespo/phi_seq_mean frac_reward_zero_std policy_loss}"),
        ("trl_async", "sample/{staleness_mean staleness_max dropped_stale_total}"),
    ],
)
def test_keys_are_known_as_the_stacks_spell_them(stack, keys):
    before, _, names = keys.removesuffix("}").partition("{")
    assert [name for name in names.split() if metric_of(stack, before + name) is None] == []


# -- settings as text -------------------------------------------------------------------------


def test_keyword_arguments_of_trl():
    text = settings("trl_async", **SETTING, clip_epsilon_high=0.28)
    call = ast.parse(text, mode="exec").body[0].value
    assert call.func.id == "AsyncGRPOConfig"
    assert {each.arg: each.value.value for each in call.keywords} == {
        "learning_rate": 2e-6,
        "epsilon": 0.2,
        "epsilon_high": 0.28,
        "num_generations": 8,
        "max_steps": 500,
        "max_staleness": 6,  # the last of 7 learner steps is behind the queue
        "weight_sync_steps": 1,
    }
    text = settings("trl", **SETTING)
    assert "steps_per_generation=8," in text
    assert "num_iterations=1," in text
    assert "S = steps_per_generation·num_iterations/gradient_accumulation_steps − 1" in text


def test_toml_of_prime_rl_with_the_clip_it_does_not_have():
    text = settings("prime_rl", **SETTING)
    assert tomllib.loads(text) == {
        "max_steps": 500,
        "trainer": {"optim": {"lr": 2e-6}},
        "orchestrator": {"group_size": 8, "max_off_policy_steps": 7},
    }
    assert "# clip_epsilon_low 0.2: prime-rl masks by the difference of probabilities" in text


def test_overrides_of_verl():
    lines = settings("verl", **SETTING).splitlines()
    assert [line.removesuffix(" \\") for line in lines if not line.startswith("#")] == [
        "actor_rollout_ref.actor.optim.lr=2e-06",
        "actor_rollout_ref.actor.clip_ratio_low=0.2",
        "actor_rollout_ref.actor.clip_ratio_high=0.2",
        "actor_rollout_ref.rollout.n=8",
        "trainer.total_training_steps=500",
        "trainer.v1.trainer_mode=separate_async",
        "trainer.v1.sampler.max_off_policy_threshold=1",
        "trainer.v1.separate_async.parameter_sync_step=4",
    ]
    assert not lines[-1].endswith("\\")
    assert all(line.endswith("\\") for line in lines[:-1] if not line.startswith("#"))


def test_flags_of_openrlhf_with_one_or_two_clip_ranges():
    text = settings("openrlhf", **SETTING)
    assert "--actor.eps_clip 0.2 \\" in text
    assert "--train.async_enable \\" in text
    assert "--train.async_queue_size 6" in text
    text = settings("openrlhf", **SETTING, clip_epsilon_high=0.3)
    assert "--actor.eps_clip_low_high 0.2 0.3" in text
    assert "clip_epsilon_high" not in text


@EVERY
def test_a_snippet_names_the_rate_the_batch_and_how_staleness_is_counted(stack):
    text = settings(stack.name, **SETTING)
    assert f"{stack.learning_rate.rpartition('.')[2]}" in text
    assert stack.knob.rpartition(".")[2] in text
    assert "2e-06" in text
    assert "one optimizer update is to take 16 prompts × 8 rollouts" in text
    fresh = settings(stack.name, **SETTING | {"max_staleness": 0})
    assert ("train synchronously" in fresh) == (largest_knob(stack, 0) is None)


def read_back(text, stack):
    """The settings of a snippet as the stack would hold them."""
    if stack.syntax == "toml":
        return tomllib.loads(text)
    if stack.syntax == "python":
        call = ast.parse(text, mode="exec").body[0].value
        return {each.arg: each.value.value for each in call.keywords}
    lines = [line.removesuffix(" \\") for line in text.splitlines() if not line.startswith("#")]
    parts = [line.partition("=" if stack.syntax == "overrides" else " ") for line in lines]
    return {name: value for name, _, value in parts}


@EVERY
@pytest.mark.parametrize("staleness", [0, 3, 7, 31])
def test_the_staleness_of_a_snippet_read_back_is_the_one_asked_for(stack, staleness):
    text = settings(stack.name, **SETTING | {"max_staleness": staleness})
    held, notes = config_held(read_back(text, stack), stack)
    assert notes == []
    assert held["learning_rate"] == SETTING["learning_rate"]
    if "train synchronously" in text:
        assert "knob" not in held
        return
    config, _ = config_told(held, stack)
    lower = re.search(r"the next lower S that .* can express is (\d+)", text)
    assert config["max_staleness"] == (int(lower[1]) if lower else staleness)


@pytest.mark.parametrize(
    ("name", "beside", "is_asynchronous"),
    [
        ("verl", {"trainer.v1.trainer_mode": "sync"}, False),
        ("verl", {"trainer": {"v1": {"trainer_mode": "separate_async"}}}, True),
        ("verl", {}, False),
        ("openrlhf", {"train.async_enable": False}, False),
        ("openrlhf", {"train.async_enable": True}, True),
        ("nemo_rl", {"grpo.async_grpo.enabled": False}, False),
        ("nemo_rl", {"grpo.async_grpo.enabled": True}, True),
        ("nemo_rl", {"grpo.async_grpo.enabled": 1.0}, True),
        ("prime_rl", {}, True),
    ],
)
def test_a_log_holds_its_staleness_only_where_the_run_was_asynchronous(
    name, beside, is_asynchronous
):
    stack = STACKS[name]
    companions = dict.fromkeys(stack.companions, 2)
    found = {stack.knob.lstrip("-"): 8, stack.learning_rate.lstrip("-"): 1e-6, **companions}
    held, notes = config_held(found | beside, stack)
    of_age = {"knob": 8, **companions} if is_asynchronous else {}
    assert held == {"learning_rate": 1e-6, **of_age}
    assert len(notes) == (not is_asynchronous)


def test_an_unknown_stack_is_refused_with_those_that_are_known():
    with pytest.raises(BadInput, match=r"allowed: trl \| trl_async \| verl"):
        settings("nonsense", **SETTING)
