"""Advise: what each field takes and refuses, S in a stack's unit, settings written for a stack."""

import re
import shlex

import pytest
from factories import fill
from pages import charts, faults, headline, tiles, words
from probed import a_calibration, linear_holds
from states import fill_evidence, fresh

from advisor.answer import ask, consider
from advisor.measured import measured
from advisor.wording import rate
from storage.commandline import parse
from storage.importers.snippets import settings
from storage.importers.stacks import STACKS
from storage.importers.staleness import largest_knob
from storage.records import Calibration
from trainer.__main__ import _parser
from trainer.config_options import config_from_options

S_OF_FOUR = {
    "trl": 3,  # 4 micro-batches at one per update: ages 0 … 3
    "trl_async": 5,  # one micro-batch waits behind the queue
    "verl": 19,  # (4 + 1) versions of 4 updates, less the newest one
    "verl_fully_async": 20,  # ⌈1 + 4⌉ windows of 4 updates
    "openrlhf": 5,  # one more batch is being sampled
    "areal": 4,
    "prime_rl": 4,
    "nemo_rl": 4,
    "skyrl": 4,
    "slime": 5,  # one rollout is sampled ahead
    "tinker": 4,
}
"""S in learner steps where the knob of a stack is 4 and all else at its default."""


def unit_of(stack):
    """How a link names the unit of a stack."""
    return f"{STACKS[stack].title}: {STACKS[stack].knob.rpartition('.')[2]}"


def asked_staleness(page):
    command = shlex.split(page.code[-1].value)[3:]
    return config_from_options(parse(_parser(), command)).max_staleness


# -- what is refused --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "allowed"),
    [
        ("max_staleness", "-1", "whole number, 0 <= max_staleness <= 4096"),
        ("max_staleness", "2.5", "whole number, 0 <= max_staleness <= 4096"),
        ("steps", "0", "whole number, 1 <= steps <= 100000000"),
        ("steps", "1e3x", "whole number, 1 <= steps <= 100000000"),
        ("learning_rate", "a lot", "0 < learning_rate <= 10"),
        ("learning_rate", "nan", "0 < learning_rate <= 10"),
        ("learning_rate", "0", "0 < learning_rate <= 10"),
        ("clip_epsilon", "1.0", "0 < clip_epsilon < 1"),
        ("clip_epsilon", "inf", "0 < clip_epsilon < 1"),
        ("prompts", "0", "whole number, 1 <= prompts"),
        ("group_size", "-3", "whole number, "),
        ("hidden_size", "wide", "whole number, "),
        ("layers", "0", "whole number, 1 <= layers"),
    ],
)
def test_what_is_wrong_with_a_field_is_one_line_and_nothing_is_answered(
    archive, visit, name, value, allowed
):
    page = visit("advise", **{name: value})
    assert not page.exception
    (fault,) = faults(page)
    assert fault.startswith(f"{name}: {value!r} is not allowed; allowed: {allowed}")
    assert not tiles(page)
    assert not charts(page)
    assert not page.button
    assert not archive.recommendations()


def test_each_fault_of_a_question_gets_one_message(archive, visit):
    page = visit("advise")
    for name in ("max_staleness", "steps", "learning_rate", "clip_epsilon"):
        page.text_input(key=name).set_value("much")
    page.run()
    assert [each.split(":")[0] for each in faults(page)] == [
        "clip_epsilon",
        "learning_rate",
        "max_staleness",
        "steps",
    ]
    page.text_input(key="steps").set_value("600").run()
    assert len(faults(page)) == 3
    assert not archive.recommendations()


@pytest.mark.parametrize("name", ["risk", "evidence", "like", "unit", "schedule", "for"])
def test_a_choice_that_does_not_exist_is_left_at_its_default(visit, name):
    page = visit("advise", **{name: "no such thing"})
    assert not page.exception
    assert not page.error
    assert tiles(page)
    assert name not in page.query_params


@pytest.mark.parametrize("value", ["-1", "nan", "soon"])
def test_a_time_that_is_none_counts_as_not_given(visit, value):
    page = visit("advise", generate_seconds=value, learn_seconds="1")
    assert not page.exception
    assert "Learning per hour by staleness" not in charts(page)


def test_a_probe_answers_before_archived_runs_and_may_be_chosen(archive, visit):
    fill_evidence(archive)
    without = headline(visit("advise"))
    probe = a_calibration(linear_holds((2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3), edge=1.5e-3))
    archive.save_calibration(probe)
    page = visit("advise")
    assert not page.exception
    question = ask(settings={"max_staleness": 3, "steps": 300}, evidence=(), risk=0.05)
    advice = consider(question, (), measured(probe))
    assert headline(page)[0] == rate(advice.max_learning_rate)
    named = f"Probe of arithmetic, S = 3, T = 300 ({probe.id})"
    assert headline(visit("advise", evidence=named)) == headline(page)
    runs_only = visit("advise", evidence="Runs, else published settings")
    assert headline(runs_only) == without


def test_a_probe_of_another_setting_that_was_chosen_says_why_it_does_not_answer(archive, visit):
    probe = a_calibration(linear_holds((2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3), edge=1.5e-3))
    archive.save_calibration(probe)
    named = f"Probe of arithmetic, S = 3, T = 300 ({probe.id})"
    page = visit("advise", evidence=named, optimizer="sgd")
    assert not page.exception
    (fault,) = faults(page)
    assert fault.startswith(f"calibration: {probe.id!r} does not answer this")
    assert not tiles(page)


def test_a_probe_that_another_version_wrote_is_on_offer_and_refused_in_one_line(archive, visit):
    archive.save_calibration(
        Calibration(
            id="from-tomorrow",
            time=0.0,
            setting={"workload": "not invented yet"},
            segments=(),
            run_ids=(),
            learner_steps=0,
            cost_steps=0.0,
            seconds=0.0,
        )
    )
    assert not visit("advise").exception
    page = visit("advise", evidence="Probe by another version (from-tomorrow)")
    assert not page.exception
    (fault,) = faults(page)
    assert fault == "calibration: 'from-tomorrow' was written by another version; probe again"


# -- S in a stack's unit ----------------------------------------------------------------------


@pytest.mark.parametrize("stack", STACKS)
def test_staleness_may_be_given_as_a_stack_counts_it(archive, visit, stack):
    fill_evidence(archive)
    page = visit("advise", unit=unit_of(stack), max_staleness="4")
    assert not page.exception
    assert not page.error
    assert f"S = {S_OF_FOUR[stack]} learner steps" in [each.value for each in page.caption]
    assert asked_staleness(page) == S_OF_FOUR[stack]
    assert page.text_input(key="max_staleness").label == STACKS[stack].knob.rpartition(".")[2]


def test_an_empty_field_keeps_its_s_whatever_the_unit(archive, visit):
    fill_evidence(archive)
    page = visit("advise", unit=unit_of("verl"))
    assert page.text_input(key="max_staleness").placeholder == "S = 3"
    assert asked_staleness(page) == 3


@pytest.mark.parametrize(
    ("stack", "value", "low", "high"),
    [
        ("verl", "-1", 0, 1023),
        ("verl", "much", 0, 1023),
        ("verl", "nan", 0, 1023),
        ("verl", "1e308", 0, 1023),
        ("verl", "1024", 0, 1023),
        ("trl", "0", 1, 4097),
        ("prime_rl", "1e300", 0, 4096),
    ],
)
def test_what_is_wrong_with_staleness_in_a_unit_is_one_line(
    archive, visit, stack, value, low, high
):
    page = visit("advise", unit=unit_of(stack), max_staleness=value)
    assert not page.exception
    knob = STACKS[stack].knob
    assert faults(page) == [
        f"{knob}: {value!r} is not allowed; allowed: a number from {low} to {high}"
    ]
    assert not tiles(page)
    assert not archive.recommendations()


@pytest.mark.parametrize(("value", "s"), [("0", 3), ("1023", 4095)])
def test_the_ends_of_the_range_that_is_told_are_allowed(visit, value, s):
    page = visit("advise", unit=unit_of("verl"), max_staleness=value)
    assert not page.error
    assert f"S = {s} learner steps" in [each.value for each in page.caption]


# -- settings for a stack ---------------------------------------------------------------------


@pytest.mark.parametrize("stack", STACKS)
def test_the_settings_for_a_stack_hold_the_advised_rate_and_staleness(archive, visit, stack):
    fill_evidence(archive)
    page = visit("advise", max_staleness="7", **{"for": STACKS[stack].title})
    assert not page.exception
    (code,) = (each.value for each in page.code)
    shown = float(tiles(page)["Suggested"].replace("–", headline(page)[0]))
    (command,) = (each.value for each in visit("advise", max_staleness="7").code)
    advised = float(re.search(r"--learning-rate (\S+)", command)[1])  # three digits, two are shown
    assert advised == pytest.approx(shown, rel=0.05)
    assert f"{advised:.15g}" in code
    assert "S = 7 learner steps" in code
    last = STACKS[stack].learning_rate.rpartition(".")[2]
    assert re.search(rf"{re.escape(last)}\s*[= ]\s*{advised:.15g}", code)
    knob = STACKS[stack].knob
    value = largest_knob(STACKS[stack], 7)[knob]
    assert re.search(rf"{re.escape(knob.rpartition('.')[2])}\s*[= ]\s*{value:g}\b", code)
    expected = settings(stack, learning_rate=advised, max_staleness=7, steps=300)
    assert code.strip() == expected.strip()


def test_without_a_stack_the_command_of_the_trainer_is_written(archive, visit):
    fill(archive, fresh(), steps=40)
    fill_evidence(archive)
    page = visit("advise", max_staleness="0", prompts="24")
    probe, train = (each.value for each in page.code)
    assert probe.startswith("python -m advisor probe --workload arithmetic")
    assert train.startswith("python -m trainer run --workload arithmetic")
    assert "--prompts 24" in probe
    assert "--prompts 24" in train
    assert any("Etalon" in str(each) for each in words(page))
