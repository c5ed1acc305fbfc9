"""Every published setting is read as it stands in the packaged table, with its source."""

import csv
import math
from collections import Counter

import pytest

from advisor.literature import TABLE, PublishedRun, literature_trials, nearest, published_runs

RUNS = published_runs()
with TABLE.open(encoding="utf-8", newline="") as _file:
    HEADER, *ROWS = csv.reader(_file)


def column(name):
    return [row[HEADER.index(name)] for row in ROWS]


def numbers(name, kind):
    return [kind(text) if text else None for text in column(name)]


def test_every_row_is_read_and_none_loses_its_source():
    assert len(RUNS) == len(ROWS) == 51
    assert [run.source for run in RUNS] == column("source")
    assert all(run.source.strip() and run.source in run.label for run in RUNS)
    assert all(text.strip() for text in column("provenance"))


def test_every_field_is_read_as_it_stands_and_a_blank_is_none():
    assert [run.model for run in RUNS] == column("model")
    assert [run.method for run in RUNS] == column("method")
    assert [run.correction for run in RUNS] == column("correction")
    assert [run.outcome for run in RUNS] == column("outcome")
    assert [run.learning_rate for run in RUNS] == numbers("learning_rate", float)
    assert [run.clip_epsilon for run in RUNS] == numbers("clip_epsilon", float)
    assert [run.steps for run in RUNS] == numbers("horizon_updates", int)
    assert [run.staleness for run in RUNS] == numbers("staleness_updates", int)


def test_the_values_are_possible_ones():
    assert {run.outcome for run in RUNS} == {"stable", "degraded", "collapsed"}
    assert all(run.learning_rate is None or 0 < run.learning_rate < 1e-3 for run in RUNS)
    assert all(run.staleness >= 0 for run in RUNS)
    assert all(run.steps is None or run.steps >= 1 for run in RUNS)
    assert all(run.clip_epsilon is None or 0 < run.clip_epsilon < 1 for run in RUNS)


def test_a_setting_without_a_learning_rate_is_shown_but_is_no_evidence():
    trials = literature_trials(RUNS)
    known = [run for run in RUNS if run.learning_rate is not None]
    assert len(trials) == len(known) == 38
    assert [trial.label for trial in trials] == [run.label for run in known]
    assert all("η=?" in run.label for run in RUNS if run.learning_rate is None)


def test_only_stable_counts_as_safe_and_an_unknown_horizon_stays_unknown():
    known = [run for run in RUNS if run.learning_rate is not None]
    for run, trial in zip(known, literature_trials(RUNS), strict=True):
        assert trial.unsafe == (run.outcome in ("degraded", "collapsed"))
        assert (trial.learning_rate, trial.max_staleness) == (run.learning_rate, run.staleness)
        assert trial.steps == run.steps
    assert Counter(trial.steps is None for trial in literature_trials(RUNS))[True] > 0


def published(staleness, rate=1e-6):
    return PublishedRun(
        source="s",
        model="m",
        method="x",
        correction="clip",
        learning_rate=rate,
        staleness=staleness,
        clip_epsilon=None,
        steps=None,
        outcome="stable",
    )


def test_the_nearest_settings_are_nearest_by_the_ratio_of_s_plus_one():
    runs = [published(s) for s in (0, 3, 7, 15, 255)]
    assert [run.staleness for run in nearest(runs, 8)] == [7, 15, 3]
    assert [run.staleness for run in nearest(runs, 0, count=2)] == [0, 3]
    assert [run.staleness for run in nearest(runs, 4096, count=1)] == [255]


def test_a_setting_without_a_rate_is_never_the_nearest():
    assert nearest([published(3, rate=None), published(100)], 3) == [published(100)]


@pytest.mark.parametrize("staleness", [0, 3, 16, 4096])
def test_the_nearest_of_the_table_are_really_the_nearest(staleness):
    def distance(run):
        return abs(math.log((run.staleness + 1) / (staleness + 1)))

    found = nearest(RUNS, staleness)
    assert len(found) == 3
    others = [run for run in RUNS if run.learning_rate is not None and run not in found]
    assert max(map(distance, found)) <= min(map(distance, others))
