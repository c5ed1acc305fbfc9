"""One place says what a run may be told: every bound, and what people mistype."""

import argparse
import json
import math
from itertools import pairwise

import pytest
from factories import a_config

from storage.commandline import BadInput, Parser, parse
from trainer.config import TrainerConfig, changed, checked_config
from trainer.config_options import add_config_options, config_from_options

WHOLE = "whole number, "
TINY = 5e-324  # the smallest positive float

BOUNDS = [
    # field, last allowed below, first refused below, last allowed above, first refused above, words
    ("learning_rate", TINY, 0, 10, 10.000001, "0 < learning_rate <= 10"),
    ("max_staleness", 0, -1, 4096, 4097, WHOLE + "0 <= max_staleness <= 4096"),
    ("steps", 1, 0, 10**8, 10**8 + 1, WHOLE + "1 <= steps <= 100000000"),
    ("clip_epsilon", TINY, 0, math.nextafter(1, 0), 1, "0 < clip_epsilon < 1"),
    ("clip_epsilon_high", 0.2, 0, 100, 100.01, "0 < clip_epsilon_high <= 100"),
    ("updates_per_batch", 1, 0, 4, 1025, WHOLE + "1 <= updates_per_batch <= 1024"),
    ("prompts", 1, 0, 65536, 65537, WHOLE + "1 <= prompts <= 65536"),
    ("group_size", 2, 1, 4096, 4097, WHOLE + "2 <= group_size <= 4096"),
    ("seed", 0, -1, 2**31 - 1, 2**31, WHOLE + "0 <= seed <= 2147483647"),
    ("adam_beta1", 0, -0.001, 0.999999, 1, "0 <= adam_beta1 < 1"),
    ("adam_beta2", 0, -0.001, 0.999999, 1, "0 <= adam_beta2 < 1"),
    ("weight_decay", 0, -0.001, 1, 1.001, "0 <= weight_decay <= 1"),
    ("max_grad_norm", TINY, 0, 1e6, 1.1e6, "0 < max_grad_norm <= 1000000.0"),
    ("warmup_steps", 0, -1, 10**6, 10**6 + 1, WHOLE + "0 <= warmup_steps <= 1000000"),
    ("ramp_from", TINY, 0, 2e-4, 10.1, "0 < ramp_from <= 10"),
    ("warm_start_success", 0.05, 0.04, 0.95, 0.96, "0.05 <= warm_start_success <= 0.95"),
    ("hidden_size", 16, 0, 8192, 8208, WHOLE + "16 <= hidden_size <= 8192, a multiple of 16"),
    ("layers", 1, 0, 128, 129, WHOLE + "1 <= layers <= 128"),
    ("evaluate_every", 1, 0, 10**6, 10**6 + 1, WHOLE + "1 <= evaluate_every <= 1000000"),
    ("evaluation_rollouts", 2, 1, 10**6, 10**6 + 1, WHOLE + "2 <= evaluation_rollouts <= 1000000"),
    ("kl_to_start_every", 1, 0, 10**6, 10**6 + 1, WHOLE + "1 <= kl_to_start_every <= 1000000"),
    ("bias_every", 0, -1, 10**6, 10**6 + 1, WHOLE + "0 <= bias_every <= 1000000"),
    ("threads", 1, 0, 1024, 1025, WHOLE + "1 <= threads <= 1024"),
]


def refusal(**changes):
    """Return the one line that a configuration is refused with."""
    with pytest.raises(BadInput) as found:
        a_config(**changes)
    [line] = str(found.value).splitlines()
    return line


@pytest.mark.parametrize(("name", "low", "below", "high", "above", "words"), BOUNDS)
def test_a_bound_is_allowed_and_what_lies_beyond_is_refused_with_value_and_range(
    name, low, below, high, above, words
):
    assert getattr(a_config(**{name: low}), name) == low
    assert getattr(a_config(**{name: high}), name) == high
    assert refusal(**{name: below}) == f"{name}: {below!r} is not allowed; allowed: {words}"
    assert refusal(**{name: above}) == f"{name}: {above!r} is not allowed; allowed: {words}"


@pytest.mark.parametrize("given", ["nan", "inf", "-inf", math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("name", ["learning_rate", "clip_epsilon_high", "max_grad_norm"])
def test_numbers_that_are_not_finite_are_refused(name, given):
    assert refusal(**{name: given}).startswith(f"{name}: {given!r} is not allowed; allowed: 0 < ")


@pytest.mark.parametrize("given", ["1e", "2,5", "", "-1e-4", "1e-4x", "0.1.2", "η", "1e400"])
def test_what_people_mistype_for_a_rate_is_refused(given):
    line = refusal(learning_rate=given)
    assert line == f"learning_rate: {given!r} is not allowed; allowed: 0 < learning_rate <= 10"


@pytest.mark.parametrize("given", ["3.5", "1e3", "three", "", "1,000", "0x10", 2.5])
def test_what_is_no_whole_number_is_refused_for_a_count(given):
    line = refusal(steps=given)
    assert (
        line == f"steps: {given!r} is not allowed; allowed: whole number, 1 <= steps <= 100000000"
    )


@pytest.mark.parametrize(
    ("text", "rate"), [("1e-4", 1e-4), (" 2e-4 ", 2e-4), (".5", 0.5), ("1", 1)]
)
def test_text_from_a_command_line_or_a_form_becomes_the_number_it_means(text, rate):
    assert a_config(learning_rate=text).learning_rate == rate


@pytest.mark.parametrize(
    ("name", "given", "words"),
    [
        ("workload", "nosuch", "arithmetic | preference | custom"),
        ("workload", "Arithmetic", "arithmetic | preference | custom"),
        ("schedule", "cycle", "cyclic | constant"),
        ("optimizer", "adam", "adamw | sgd"),
        ("loss", "ppo", "grpo | dr_grpo | gspo | cispo | tis | decoupled"),
        ("stop_on_collapse", "perhaps", "true | false"),
        ("device", "cuda:", "auto | cpu | mps | cuda | cuda:N"),
        ("device", "cuda:0\n", "auto | cpu | mps | cuda | cuda:N"),
        ("hidden_size", 40, "whole number, 16 <= hidden_size <= 8192, a multiple of 16"),
        ("name", "x" * 121, "at most 120 characters"),
    ],
)
def test_a_choice_that_does_not_exist_is_refused_with_those_that_do(name, given, words):
    line = refusal(**{name: given})
    assert line.startswith(f"{name}: {given!r} is not allowed; allowed: {words}")


@pytest.mark.parametrize("device", ["auto", "cpu", "mps", "cuda", "cuda:0", "cuda:11"])
def test_devices_that_a_machine_may_have_are_allowed(device):
    assert a_config(device=device).device == device


def test_a_clip_range_above_is_never_narrower_than_the_one_below():
    assert refusal(clip_epsilon=0.2, clip_epsilon_high=0.19) == (
        "clip_epsilon_high: 0.19 is below clip_epsilon 0.2; allowed: at least clip_epsilon"
    )
    assert a_config(clip_epsilon=0.2, clip_epsilon_high=0.2).epsilon_high == 0.2
    assert a_config(clip_epsilon=0.2, clip_epsilon_high=3).epsilon_high == 3


def test_the_clip_range_above_is_the_one_below_unless_it_is_said():
    config = a_config(clip_epsilon=0.3)
    assert (config.epsilon_low, config.epsilon_high) == (0.3, 0.3)


@pytest.mark.parametrize(
    ("given", "epsilons"),
    [
        ({}, (0.2, 0.2)),
        ({"loss": "dr_grpo"}, (0.2, 0.2)),
        ({"loss": "gspo"}, (3e-4, 4e-4)),
        ({"loss": "gspo", "clip_epsilon": 1e-3}, (1e-3, 1e-3)),
        ({"loss": "gspo", "clip_epsilon_high": 1e-3}, (3e-4, 1e-3)),
        ({"loss": "cispo"}, (math.inf, 4.0)),
        ({"loss": "tis"}, (math.inf, 1.0)),
        ({"loss": "tis", "clip_epsilon_high": 0.1}, (math.inf, 0.1)),
        ({"loss": "decoupled"}, (0.2, 0.2)),
    ],
)
def test_a_clip_range_that_was_not_given_is_that_of_the_loss_and_is_stored(given, epsilons):
    config = a_config(**given)
    assert (config.epsilon_low, config.epsilon_high) == epsilons
    stored = json.loads(config.model_dump_json())
    assert TrainerConfig.model_validate(stored) == config
    assert stored["clip_epsilon"] == (None if math.isinf(epsilons[0]) else epsilons[0])


def test_what_was_stored_before_there_were_other_losses_reads_as_it_was_meant():
    old = {"learning_rate": 2e-4, "max_staleness": 3, "steps": 300, "loss": "grpo"}
    assert TrainerConfig.model_validate({**old, "clip_epsilon": 0.2}) == a_config()
    assert TrainerConfig.model_validate({**old, "clip_epsilon": 0.3}).epsilon_high == 0.3


def test_a_range_below_is_refused_where_the_loss_has_none():
    assert refusal(loss="tis", clip_epsilon=0.2) == (
        "clip_epsilon: 0.2 is not allowed with the loss tis, which clips nothing below 1; "
        "allowed: leave it out, clip_epsilon_high is its range"
    )


def test_updates_that_would_make_rollouts_too_old_are_refused():
    assert a_config(max_staleness=3, updates_per_batch=4).updates_per_batch == 4
    assert refusal(max_staleness=3, updates_per_batch=5) == (
        "updates_per_batch: 5 makes rollouts 4 learner steps old, max_staleness is 3; "
        "allowed: at most max_staleness + 1"
    )


def test_a_clip_range_does_not_go_along_to_another_loss():
    grpo = a_config(clip_epsilon=0.1, clip_epsilon_high=0.3).model_dump()
    assert checked_config(changed(grpo, {"loss": "gspo"})).epsilon_low == 3e-4
    assert checked_config(changed(grpo, {"loss": "tis"})).epsilon_high == 1
    assert checked_config(changed(grpo, {"loss": "gspo", "clip_epsilon": 0.01})).epsilon_low == 0.01
    for same in ({}, {"loss": "grpo"}, {"loss": None, "seed": 5}):
        assert checked_config(changed(grpo, same)).epsilon_high == 0.3
    unsaid = changed({"clip_epsilon": 0.1}, {"steps": 5})
    assert unsaid == {"clip_epsilon": 0.1, "steps": 5}


def test_weight_decay_that_the_optimizer_would_ignore_is_refused():
    line = refusal(optimizer="sgd", weight_decay=0.1)
    assert line.startswith("weight_decay: 0.1 is not allowed with the optimizer sgd")
    assert a_config(optimizer="sgd").weight_decay == 0


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("learning_rat", "did you mean learning_rate?"),
        ("max-staleness", "did you mean max_staleness?"),
        ("clip_eps", "did you mean clip_epsilon?"),
        ("qqqq", "allowed: workload, hidden_size, layers, "),
    ],
)
def test_an_unknown_setting_is_refused_with_a_hint(name, hint):
    assert refusal(**{name: 1}).startswith(f"{name}: not a setting; {hint}")


def test_what_must_be_given_is_asked_for_in_one_line_each():
    with pytest.raises(BadInput) as found:
        checked_config({"learning_rate": None, "steps": 5})
    assert str(found.value).splitlines() == [
        "learning_rate: not given; allowed: 0 < learning_rate <= 10",
        "max_staleness: not given; allowed: whole number, 0 <= max_staleness <= 4096",
    ]


def test_every_fault_is_told_at_once():
    with pytest.raises(BadInput) as found:
        a_config(steps=0, group_size=1, loss="ppo")
    names = [line.split(":")[0] for line in str(found.value).splitlines()]
    assert names == ["steps", "loss", "group_size"]


# -- what follows from a configuration ---------------------------------------------------------


@pytest.mark.parametrize(
    ("max_staleness", "given", "interval"),
    [(0, None, 25), (24, None, 25), (25, None, 26), (99, None, 100), (99, 7, 7)],
)
def test_the_policy_is_evaluated_every_25_steps_or_once_a_cycle(max_staleness, given, interval):
    config = a_config(max_staleness=max_staleness, evaluate_every=given)
    assert config.evaluation_interval == interval  # max(25, S+1) unless given


def test_the_learning_rate_warms_up_in_equal_parts_and_then_stays():
    config = a_config(learning_rate=1.0, warmup_steps=4)
    found = [config.learning_rate_at(step) for step in range(7)]
    assert found == pytest.approx([0.2, 0.4, 0.6, 0.8, 1, 1, 1])
    assert a_config(learning_rate=0.5, warmup_steps=0).learning_rate_at(0) == 0.5


@pytest.mark.parametrize(("low", "high"), [(1e-8, 10.0), (1e-4, 2e-4), (3e-3, 3e-3)])
def test_a_ramp_grows_by_the_same_factor_each_step_and_hits_both_ends(low, high):
    config = a_config(ramp_from=low, learning_rate=high, steps=26, warmup_steps=0)
    rates = [config.learning_rate_at(step) for step in range(26)]
    assert (rates[0], rates[25]) == (pytest.approx(low), pytest.approx(high))
    factors = [after / before for before, after in pairwise(rates)]
    assert factors == pytest.approx([(high / low) ** (1 / 25)] * 25)
    assert config.learning_rate_at(40) == pytest.approx(high)  # a run that goes on stays there


def test_a_ramp_warms_up_like_any_rate_and_of_one_step_begins_at_its_start():
    config = a_config(ramp_from=1e-4, learning_rate=1e-2, steps=3, warmup_steps=1)
    found = [config.learning_rate_at(step) for step in range(3)]
    assert found == pytest.approx([0.5e-4, 1e-3, 1e-2])
    single = a_config(ramp_from=1e-4, learning_rate=1e-2, steps=1, warmup_steps=0)
    assert single.learning_rate_at(0) == pytest.approx(1e-4)


def test_a_ramp_never_falls():
    assert refusal(ramp_from=3e-3, learning_rate=2e-3) == (
        "ramp_from: 0.003 is above learning_rate 0.002; allowed: 0 < ramp_from <= learning_rate"
    )


def test_without_a_ramp_the_rate_does_not_grow():
    config = a_config(learning_rate=0.5, warmup_steps=0)
    assert config.ramp_from is None
    assert {config.learning_rate_at(step) for step in range(300)} == {0.5}


def test_a_configuration_survives_being_stored():
    config = a_config(clip_epsilon=0.1, clip_epsilon_high=0.3, name="η=2e-4", group="g")
    assert TrainerConfig.model_validate(config.model_dump(mode="json")) == config


# -- command line -----------------------------------------------------------------------------


def options(*words):
    parser = Parser()
    add_config_options(parser)
    return parse(parser, words)


def test_every_setting_is_an_option_whose_help_names_its_range():
    parser = argparse.ArgumentParser()
    add_config_options(parser)
    text = " ".join(parser.format_help().split())
    for name in TrainerConfig.model_fields:
        assert f"--{name.replace('_', '-')}" in text
    assert "0 < learning_rate <= 10" in text


def test_options_become_the_configuration_and_what_is_not_said_its_default():
    config = config_from_options(
        options("--learning-rate", "1e-3", "--max-staleness=7", "--steps", "9", "--threads", "2")
    )
    assert config == a_config(learning_rate=1e-3, max_staleness=7, steps=9, threads=2)


def test_a_switch_can_be_turned_off_and_on():
    given = ["--learning-rate", "1", "--max-staleness", "0", "--steps", "1"]
    assert config_from_options(options(*given)).stop_on_collapse
    assert not config_from_options(options(*given, "--no-stop-on-collapse")).stop_on_collapse
    assert config_from_options(options(*given, "--stop-on-collapse")).stop_on_collapse


def test_a_negative_value_is_a_value_and_not_an_option():
    with pytest.raises(BadInput, match=r"learning_rate: '-1e-4' is not allowed"):
        config_from_options(
            options("--learning-rate", "-1e-4", "--max-staleness", "0", "--steps", "1")
        )
