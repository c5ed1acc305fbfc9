import math
import shlex

import pytest
from factories import a_config

from advisor.regime import Estimate, unknown
from advisor.wording import (
    at_most,
    chance,
    command,
    duration,
    horizon,
    literal,
    number,
    pace,
    probe_command,
    rate,
    shortened,
    span,
)
from storage.commandline import parse
from trainer.__main__ import _parser
from trainer.config_options import config_from_options


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89, "89 s"), (90, "2 min"), (5399, "90 min"), (5400, "1.5 h")],
)
def test_a_length_of_time_is_written_in_the_unit_that_suits_it(seconds, words):
    assert duration(seconds) == words


def test_the_pace_is_the_mean_since_the_start():
    # 100 steps in 50 s are 2 a second; the other 200 take 100 s.
    assert pace(100, 300, 1000.0, 1050.0) == "2.0 steps/s, about 2 min left"


def test_a_pace_that_is_not_known_is_said_to_be_so():
    assert pace(0, 300, None, 1050.0) == "waiting to start"
    assert pace(0, 300, 1000.0, 1050.0) == "no learner step yet"
    assert pace(5, 300, 1050.0, 1050.0) == "no learner step yet"  # no time has passed
    assert pace(100, None, 1000.0, 1050.0) == "2.0 steps/s"


def test_a_run_beyond_its_plan_has_nothing_left_rather_than_less_than_nothing():
    assert pace(400, 300, 1000.0, 1050.0).endswith("about 0 s left")


@pytest.mark.parametrize(
    ("learning_rate", "words"),
    [(2e-4, "2.0e-4"), (0.000456, "4.6e-4"), (1.0, "1.0e0"), (9.96e-5, "1.0e-4")],
)
def test_learning_rates_are_written_as_people_type_them(learning_rate, words):
    assert rate(learning_rate) == words


@pytest.mark.parametrize(
    ("probability", "words"),
    [
        (0.0, "0%"),
        (1e-9, "<1%"),
        (0.0099, "<1%"),
        (0.01, "1%"),
        (0.99, "99%"),
        (0.9901, ">99%"),
        (1 - 1e-9, ">99%"),
        (1.0, "100%"),
    ],
)
def test_what_is_possible_is_never_written_as_impossible_or_certain(probability, words):
    assert chance(probability) == words


@pytest.mark.parametrize(
    ("value", "words"),
    [(None, "–"), (math.nan, "not finite"), (-math.inf, "not finite"), (0.0, "0"), (12, "12")],
)
def test_unknown_not_finite_and_zero_are_three_different_words(value, words):
    assert number(value) == words


@pytest.mark.parametrize(
    ("estimate", "words"),
    [
        (Estimate(value=0.3, low=0.1234, high=0.9), "0.12 … 0.9"),
        (Estimate(value=0.3, low=0.301, high=0.302), "0.3"),
        (Estimate(value=0.0, low=0.0, high=0.0), "0"),
        (Estimate(high=2.4), "at most 2.4"),
        (Estimate(low=1.2e-6), "at least 1.2e-6"),
        (Estimate(low=2.0, high=math.inf), "2 … ∞"),
        (Estimate(low=math.nan, high=math.nan), "unknown"),
        (unknown("no run has ended"), "unknown"),
    ],
)
def test_an_interval_says_which_of_its_ends_is_known(estimate, words):
    assert span(estimate) == words


def test_a_horizon_with_both_ends_is_a_step_and_its_interval():
    when = Estimate(value=1840.4, low=900.0, high=3700.0)
    assert horizon(when, 500) == (
        "At this drift the horizon is used up at step 1,840 (900 … 3,700)."
    )


def test_a_horizon_of_which_one_bound_is_known_is_said_from_where_the_run_is():
    bound = Estimate(low=400.0, is_bound=True, reason="2 runs survived")
    assert horizon(bound, 399) == (
        "At this drift the horizon lasts at least to step 400: 2 runs survived."
    )
    assert horizon(bound, 400).startswith("At this drift the horizon lasts at least")
    assert horizon(bound, 401).startswith("Since about step 400 this run has been farther")
    assert "unknown" in horizon(bound, 401)


def test_an_unknown_horizon_gives_its_reason_and_no_step():
    assert horizon(unknown("no run has ended"), 10) == (
        "What remains of the horizon is unknown: no run has ended."
    )


def test_a_horizon_far_away_is_not_written_to_the_last_digit():
    far = Estimate(low=3.2e11, is_bound=True, reason="a reason")
    assert horizon(far, 10) == (
        "At this drift the horizon lasts at least to step 1,000,000 or later: a reason."
    )


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"learning_rate": 7.8e-5, "clip_epsilon_high": 0.28, "schedule": "constant"},
        {"stop_on_collapse": False, "device": "cuda:1", "seed": 7},
        {"loss": "gspo", "updates_per_batch": 2},
        {"loss": "tis"},
        {"name": 'it\'s a "test" $HOME', "group": "two words"},
    ],
)
def test_a_command_makes_the_configuration_it_was_written_from(changes):
    config = a_config(**changes)
    words = shlex.split(command(config))
    assert words[:4] == ["python", "-m", "trainer", "run"]
    assert config_from_options(parse(_parser(), words[3:])) == config


def test_a_command_says_only_what_is_required_or_not_default():
    assert command(a_config(learning_rate=7.8e-5)) == (
        "python -m trainer run --workload arithmetic --learning-rate 7.8e-5 "
        "--max-staleness 3 --steps 300"
    )


def test_a_probe_is_told_the_setting_and_not_what_it_chooses_itself():
    setting = a_config(max_staleness=7, clip_epsilon=0.3, name="mine", learning_rate=7.8e-5)
    assert probe_command(setting) == (
        "python -m advisor probe --workload arithmetic --max-staleness 7 --steps 300 "
        "--clip-epsilon 0.3"
    )


def test_text_is_shown_as_it_is_whatever_markdown_it_holds():
    assert literal("**a** :red[b] $x$ `c` <d>") == (r"\*\*a\*\* \:red\[b\] \$x\$ \`c\` \<d>")
    assert literal("arithmetic η=0.0003 S=3") == "arithmetic η=0.0003 S=3"


def test_a_long_name_is_cut_and_shown_to_be_cut():
    assert shortened("1234567890", 10) == "1234567890"
    assert shortened("12345678901", 10) == "123456789…"
    assert shortened("1234567 8901", 9) == "1234567…"


@pytest.mark.parametrize("value", [8.1249e-8, 1e-3, 0.00045678, 9.999e-5, 1.0, 0.3, 7.2e-6])
def test_a_rate_to_run_is_never_more_than_the_safe_one_nor_much_less(value):
    assert 0.99 * value < at_most(value) <= value
    assert float(f"{at_most(value):.3g}") == at_most(value)
