import math

import pytest
from factories import a_config, a_run

from advisor.compare import (
    ALIGNMENTS,
    Summary,
    by_run,
    curve,
    differing_configuration,
    matching,
    outcome_rows,
    regime_word,
    summary,
    summary_rows,
)
from storage.records import Event, RunInfo, RunStatus


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
    "time": [None, 100.0, 101.5, 104.0],
    "sampled_at_step": [0, 0, 2, None],
    "displacement": [0.1, None, 0.3, 0.4],
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
        ("exposure", [pytest.approx(3e-4), pytest.approx(9e-4), None, None]),
        ("time", [None, 0.0, 1.5, 4.0]),
        ("drift", [0.1, None, 0.3, 0.4]),
    ],
)
def test_a_curve_runs_along_the_axis_that_was_chosen(align, x):
    assert curve(SERIES, "reward_mean", align, 3) == (x, [0.5, 0.6, None, 0.8])


def test_every_axis_that_is_offered_is_known():
    assert set(ALIGNMENTS) == {"step", "version", "rate", "exposure", "time", "drift"}


def test_the_exposure_of_a_run_is_unknown_without_its_s_and_zero_at_s_zero():
    assert curve(SERIES, "reward_mean", "exposure", None)[0] == [None] * 4
    assert curve(SERIES, "reward_mean", "exposure", 0)[0] == [0.0, 0.0, None, None]


def test_a_run_without_any_time_has_no_place_in_time():
    assert curve(SERIES | {"time": [None] * 4}, "reward_mean", "time")[0] == [None] * 4


# -- which runs -------------------------------------------------------------------------------


def a_regime(word):
    return Event(run_id="x", time=0.0, kind="regime", message="", data={"regime": word})


@pytest.mark.parametrize(
    ("status", "outcome", "newest", "word"),
    [
        (RunStatus.COLLAPSED, "collapsed", a_regime("stable"), "collapsed"),
        (RunStatus.DIVERGED, "diverged", None, "diverged"),
        (RunStatus.RUNNING, None, a_regime("staleness_limited"), "staleness limited"),
        (RunStatus.FINISHED, "healthy", a_regime("horizon_limited"), "horizon limited"),
        (RunStatus.FINISHED, "healthy", None, "healthy"),
        (RunStatus.FINISHED, None, None, "not judged"),
        (RunStatus.RUNNING, None, None, "not judged"),
        (RunStatus.STOPPED, "undetermined", None, "not judged"),
    ],
)
def test_the_regime_of_a_run_is_its_verdict_else_what_was_seen_of_it(status, outcome, newest, word):
    assert regime_word(a_run(status=status, outcome=outcome), newest) == word


FACTS = {
    "S": lambda run: [run.config["max_staleness"]],
    "tag": lambda run: run.name.split(),
}


def test_a_run_matches_that_has_one_of_the_wanted_values_of_every_fact():
    runs = [
        a_run(a_config(max_staleness=s), name=tags)
        for s, tags in ((0, "red"), (0, "red blue"), (3, "blue"), (15, ""))
    ]

    def found(**wanted):
        return [runs.index(run) for run in matching(runs, wanted, FACTS)]

    assert found() == found(S=[], tag=[]) == [0, 1, 2, 3]
    assert found(S=[0]) == [0, 1]
    assert found(S=[3, 15]) == [2, 3]
    assert found(tag=["blue"]) == [1, 2]
    assert found(S=[0], tag=["blue"]) == [1]
    assert found(S=[63]) == []


# -- metrics in three numbers -----------------------------------------------------------------


def series_of(name, values):
    return {"step": list(range(len(values))), name: values}


@pytest.mark.parametrize(
    ("name", "best"),
    [
        ("reward_mean", 0.9),  # a low reward is bad
        ("approx_kl", 0.1),  # a high KL is
        ("displacement", None),  # neither is
        ("tokens_per_second", None),  # nobody said
    ],
)
def test_the_best_of_a_metric_is_by_the_direction_that_is_good(name, best):
    found = summary(series_of(name, [0.2, 0.9, 0.1, 0.4]), name, None)
    assert found == Summary(best=best, last=0.4, at_collapse=None)


def test_what_is_not_finite_is_never_best_but_may_be_last():
    found = summary(series_of("reward_mean", [0.2, math.inf, math.nan]), "reward_mean", None)
    assert found.best == 0.2
    assert math.isnan(found.last)
    nothing = summary(series_of("reward_mean", [math.nan]), "reward_mean", None)
    assert nothing.best is None


def test_the_last_value_is_the_last_that_was_measured():
    values = [0.0, None, 0.3, None]
    assert summary(series_of("reward_mean", values), "reward_mean", None).last == 0.3
    assert summary(series_of("reward_mean", [None]), "reward_mean", 0) == Summary(
        best=None, last=None, at_collapse=None
    )


@pytest.mark.parametrize(
    ("collapse_step", "value"), [(None, None), (0, 0.0), (1, 0.3), (2, 0.3), (3, None)]
)
def test_a_collapse_is_shown_at_its_onset_or_the_first_measurement_after_it(collapse_step, value):
    values = [0.0, None, 0.3, None]
    found = summary(series_of("reward_mean", values), "reward_mean", collapse_step)
    assert found.at_collapse == value


def test_differences_are_from_the_baseline_and_unknown_where_one_of_both_is():
    found = {
        "pinned": Summary(best=0.9, last=0.8, at_collapse=None),
        "worse": Summary(best=0.7, last=math.nan, at_collapse=0.5),
    }
    assert summary_rows(found, None) == [
        {"run": "pinned", "best": "0.9", "last": "0.8", "at collapse": "–"},
        {"run": "worse", "best": "0.7", "last": "not finite", "at collapse": "0.5"},
    ]
    pinned, worse = summary_rows(found, "pinned")
    assert (pinned["Δ best"], pinned["Δ last"], pinned["Δ at collapse"]) == ("+0", "+0", "–")
    assert (worse["Δ best"], worse["Δ last"], worse["Δ at collapse"]) == ("-0.2", "–", "–")


def test_a_baseline_that_was_not_chosen_gives_no_differences():
    found = {"one": Summary(best=0.9, last=0.8, at_collapse=None)}
    assert summary_rows(found, "another") == summary_rows(found, None)


def test_rows_per_setting_become_rows_per_run():
    rows = [{"setting": "η", "a": "1", "b": "2"}, {"setting": "S", "a": "3", "b": "–"}]
    assert by_run(rows, "setting", {"a": "first", "b": "second"}) == [
        {"run": "first", "η": "1", "S": "3"},
        {"run": "second", "η": "2", "S": "–"},
    ]
    assert by_run([], "setting", {"a": "first"}) == [{"run": "first"}]
