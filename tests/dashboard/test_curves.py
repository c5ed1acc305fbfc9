"""The columns that pages draw: read once, then only what is new."""

import math

import pytest
from factories import NOON, a_run, a_step, fill
from sqlalchemy import text

from advisor.compare import curve, summary
from advisor.dashboard.curves import (
    COMPARED_POINTS,
    LONG,
    RUNS_KEPT,
    WATCHED,
    columns_of,
    compared_columns,
    window_of,
)
from storage.importers.importing import import_file


def add_steps(store, run, steps, **changes):
    store.append_steps(
        a_step(run.id, t, reward_mean=float(t), **({"time": NOON + t} | changes)) for t in steps
    )


@pytest.fixture
def run(store):
    run = a_run()
    store.create_run(run)
    return run


def test_columns_are_what_the_archive_holds_and_grow_with_it(store, run):
    assert columns_of(store, run.id) == {name: [] for name in WATCHED}
    for steps in (range(3), range(3, 4), range(4, 50)):
        add_steps(store, run, steps)
        found = columns_of(store, run.id)
        assert found == store.series(run.id, WATCHED)
    assert found["reward_mean"] == [float(t) for t in range(50)]
    assert columns_of(store, run.id) == found


def test_rows_that_are_known_are_not_read_again(store, run):
    add_steps(store, run, range(10))
    columns_of(store, run.id)
    with store.writing() as connection:  # what nobody does: it shows which rows are read
        connection.execute(text("update steps set reward_mean = 99 where step < 9"))
    add_steps(store, run, range(10, 12))
    assert columns_of(store, run.id)["reward_mean"] == [float(t) for t in range(12)]


def test_what_was_handed_out_does_not_change_afterwards(store, run):
    add_steps(store, run, range(3))
    before = columns_of(store, run.id)
    add_steps(store, run, range(3, 6))
    columns_of(store, run.id)
    assert before["step"] == [0, 1, 2]


@pytest.mark.parametrize("upto", [9, 11, 20, 30])
def test_a_run_that_was_taken_back_is_read_anew(store, run, upto):
    add_steps(store, run, range(21))
    columns_of(store, run.id)
    store.delete_steps_after(run.id, 9)
    for t in range(10, upto + 1):
        store.append_step(a_step(run.id, t, time=NOON + 500 + t, reward_mean=-1.0))
    found = columns_of(store, run.id)
    assert found == store.series(run.id, WATCHED)
    assert found["step"] == list(range(upto + 1))
    assert set(found["reward_mean"][10:]) <= {-1.0}


def test_a_newest_row_that_is_not_finite_stays_one_row(store, run):
    add_steps(store, run, range(3))
    store.append_step(a_step(run.id, 3, reward_mean=math.nan, grad_norm=math.inf))
    for _ in range(2):
        found = columns_of(store, run.id)
        assert found["step"] == [0, 1, 2, 3]
        assert math.isnan(found["reward_mean"][3])
        assert found["entropy"] == [None] * 4


def test_a_log_that_is_imported_again_with_more_metrics_is_read_anew(store):
    plain = b'{"step": 1, "reward": 0.5}\n{"step": 2, "reward": 0.6}'
    more = b'{"step": 1, "entropy": 0.4}\n{"step": 2, "entropy": 0.3}'
    first = import_file(store, plain, name="a log", stack="trl")
    assert columns_of(store, first.run_id)["entropy"] == [None, None]
    again = import_file(store, [plain, more], name="a log", stack="trl")
    assert again.run_id == first.run_id
    assert columns_of(store, first.run_id) == store.series(first.run_id, WATCHED)
    assert columns_of(store, first.run_id)["entropy"] == [0.4, 0.3]


def test_several_runs_are_kept_apart_however_many_there_are(store):
    runs = [a_run(name=f"run {i}") for i in range(RUNS_KEPT + 3)]
    for i, run in enumerate(runs):
        store.create_run(run)
        store.append_step(a_step(run.id, 0, reward_mean=float(i)))
    for _ in range(2):
        found = [columns_of(store, run.id)["reward_mean"] for run in runs]
        assert found == [[float(i)] for i in range(len(runs))]


def test_a_run_that_was_deleted_has_no_columns(store, run):
    fill(store, other := a_run(name="stays"), steps=5)
    add_steps(store, run, range(5))
    columns_of(store, run.id)
    columns_of(store, other.id)
    store.delete_run(run.id)
    assert columns_of(store, run.id)["step"] == []
    assert columns_of(store, other.id)["step"] == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("last", "steps"),
    [(None, [0, 1, 5, 6, 9]), (1, [9]), (4, [6, 9]), (5, [5, 6, 9]), (1000, [0, 1, 5, 6, 9])],
)
def test_a_window_is_counted_in_learner_steps_and_not_in_rows(last, steps):
    columns = {"step": [0, 1, 5, 6, 9], "reward_mean": [0.0, 0.1, None, 0.6, 0.9]}
    found = window_of(columns, last)
    assert found["step"] == steps
    assert found["reward_mean"] == columns["reward_mean"][-len(steps) :]


@pytest.mark.parametrize(
    ("last", "until", "steps"),
    [(4, 6, [5, 6]), (6, 5, [0, 1, 5]), (1, 7, []), (4, 100, [6, 9]), (None, 6, [0, 1, 5, 6, 9])],
)
def test_a_window_may_end_before_the_newest_step(last, until, steps):
    columns = {"step": [0, 1, 5, 6, 9], "reward_mean": [0.0, 0.1, None, 0.6, 0.9]}
    found = window_of(columns, last, until)
    assert found["step"] == steps
    assert found["reward_mean"] == [v for s, v in zip(*columns.values(), strict=True) if s in steps]


def test_a_window_of_nothing_is_nothing():
    assert window_of({"step": [], "reward_mean": []}, 200) == {"step": [], "reward_mean": []}


def test_a_long_run_is_compared_by_few_of_its_steps_that_lose_nothing(store):
    """Best, last and at-collapse value and the exposure at each step are those of all steps."""
    run = a_run(collapse_step=LONG - 7)
    store.create_run(run)
    store.append_steps(
        a_step(
            run.id,
            t,
            reward_mean=9.0 if t == 9_345 else math.sin(t),
            learning_rate=1e-4 * (1 + t % 3),
            displacement=t**0.5,
        )
        for t in range(LONG + 700)
    )
    few, whole = compared_columns(store, run, "reward_mean"), columns_of(store, run.id)
    assert len(few["step"]) <= 2 * COMPARED_POINTS + 3
    assert few["step"][0] == 0
    assert summary(few, "reward_mean", run.collapse_step) == summary(
        whole, "reward_mean", run.collapse_step
    )
    for align in ("step", "time", "rate", "exposure", "drift"):
        places, values = curve(few, "reward_mean", align, 3)
        all_places, all_values = curve(whole, "reward_mean", align, 3)
        assert places == pytest.approx([all_places[step] for step in few["step"]])
        assert values == [all_values[step] for step in few["step"]]


def test_a_short_run_is_compared_whole_and_a_long_one_anew_when_it_grew(store, run):
    add_steps(store, run, range(40))
    assert compared_columns(store, run, "reward_mean") == columns_of(store, run.id)
    add_steps(store, run, range(40, LONG + 1))
    assert compared_columns(store, run, "reward_mean")["step"][-1] == LONG
    add_steps(store, run, range(LONG + 1, LONG + 2))
    assert compared_columns(store, run, "reward_mean")["step"][-1] == LONG + 1


def test_a_sum_is_unknown_from_the_first_step_on_that_was_not_measured(store, run):
    store.append_steps(a_step(run.id, t, learning_rate=None if t == 5 else 0.5) for t in range(8))
    assert store.sums_at(run.id, "learning_rate", [0, 3, 4, 6, 7]) == [0.5, 2.0, 2.5, None, None]
    assert store.sums_at(run.id, "learning_rate", []) == []
