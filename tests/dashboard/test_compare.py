import math

import pytest
from factories import a_config, a_run

from advisor.compare import curve, differing_configuration, outcome_rows
from storage.records import RunInfo, RunStatus


def run_of(**changes):
    return a_run(a_config(**changes))


def test_only_what_differs_is_shown_with_the_value_of_every_run():
    one, two = run_of(), run_of(learning_rate=4e-3, max_staleness=0)
    assert differing_configuration([one, two]) == [
        {"setting": "learning rate", one.id: "0.0002", two.id: "0.004"},
        {"setting": "max staleness", one.id: "3", two.id: "0"},
    ]


def test_names_and_groups_are_no_difference():
    runs = [run_of(name="one", group="a"), run_of(name="two", group="b")]
    assert differing_configuration(runs) == []


def test_of_three_runs_one_that_differs_is_enough():
    runs = [run_of(), run_of(), run_of(seed=1)]
    (row,) = differing_configuration(runs)
    assert [row[run.id] for run in runs] == ["0", "0", "1"]


def test_rates_that_differ_only_in_late_digits_do_not_look_the_same():
    one, two = run_of(learning_rate=2e-4), run_of(learning_rate=2.000001e-4)
    (row,) = differing_configuration([one, two])
    assert row[one.id] != row[two.id]


def test_a_setting_that_is_left_to_its_default_differs_from_one_that_is_given():
    one, two = run_of(), run_of(clip_epsilon_high=0.28)
    (row,) = differing_configuration([one, two])
    assert (row[one.id], row[two.id]) == ("default", "0.28")


def test_a_setting_that_a_run_does_not_have_is_missing_and_differs():
    mine = run_of()
    theirs = RunInfo(id="imported", name="x", created_at=0.0, config={"learning_rate": 2e-4})
    rows = {row["setting"]: row for row in differing_configuration([mine, theirs])}
    assert "learning rate" not in rows
    assert (rows["max staleness"][mine.id], rows["max staleness"]["imported"]) == ("3", "–")


def test_outcomes_tell_zero_unknown_and_not_finite_apart():
    one = a_run(status=RunStatus.COLLAPSED, collapse_step=0, reward_last=0.0, reward_first=0.78125)
    two = a_run(status=RunStatus.RUNNING, reward_last=math.nan)
    rows = {row["outcome"]: (row[one.id], row[two.id]) for row in outcome_rows([one, two])}
    assert rows["status"] == ("collapsed", "running")
    assert rows["collapse step"] == ("0", "–")
    assert rows["reward last"] == ("0", "not finite")
    assert rows["reward first"] == ("0.7812", "–")


SERIES = {
    "step": [0, 1, 2, 3],
    "sampled_at_step": [0, 0, 2, None],
    "learning_rate": [1e-4, 2e-4, None, 2e-4],
    "reward_mean": [0.5, 0.6, None, 0.8],
}


@pytest.mark.parametrize(
    ("align", "x"),
    [
        ("step", [0, 1, 2, 3]),
        ("version", [0, 0, 2, None]),
        # 1e-4, then 1e-4 + 2e-4; from an unknown rate on nothing is known.
        ("rate", [1e-4, pytest.approx(3e-4), None, None]),
    ],
)
def test_a_curve_runs_along_steps_versions_or_the_rate_used_so_far(align, x):
    assert curve(SERIES, "reward_mean", align) == (x, [0.5, 0.6, None, 0.8])
