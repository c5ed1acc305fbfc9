"""Runs too long to be read whole: they are drawn from their outline, and lose no spike by it."""

import math

import pytest
from factories import NOON, a_run, a_step
from pages import said_in

from advisor.dashboard.curves import (
    LONG,
    WATCHED,
    compared_columns,
    drawn_part,
    outlines_of,
)
from advisor.dashboard.run_charts import run_charts
from storage.store import Store

STEPS = LONG + 300
SPIKE, BROKEN = 7_777, 9_345


def steps(run_id, numbers, reward=0.8):
    return (
        a_step(
            run_id,
            t,
            time=NOON + t,
            sampled_at_step=t,
            reward_mean=reward,
            grad_norm=math.nan if t == BROKEN else 50.0 if t == SPIKE else 5.0,
            kl_to_start=1e-4 * t if t % 5 == 4 else None,
        )
        for t in numbers
    )


@pytest.fixture(scope="module")
def long_run(tmp_path_factory):
    """An archive with one long run; for reading."""
    store = Store.open(str(tmp_path_factory.mktemp("long") / "archive.db"))
    run = a_run(name="long", unmeasured={"entropy": "nobody looked"})
    store.create_run(run)
    store.append_steps(steps(run.id, range(STEPS)))
    yield store, run
    store.close()


def test_an_outline_reaches_from_the_first_step_to_the_newest(long_run):
    store, run = long_run
    columns, outlines = drawn_part(store, run.id, None)
    assert columns == {name: [] for name in WATCHED}
    reward = outlines["reward_mean"]
    assert (reward.x[0], reward.x[-1]) == (0, STEPS - 1)
    assert list(reward.x) == sorted(reward.x)
    assert set(reward.y) == {0.8}
    assert reward.mean_y == pytest.approx([0.8] * len(reward.mean_x))
    assert list(reward.mean_x) == sorted(reward.mean_x)
    assert len(reward.x) < STEPS / 2


def test_a_spike_and_what_is_not_finite_survive_at_their_own_steps(long_run):
    store, run = long_run
    norm = outlines_of(store, run.id)["grad_norm"]
    assert norm.y[norm.x.index(SPIKE)] == 50.0
    assert math.isnan(norm.y[norm.x.index(BROKEN)])
    assert all(math.isfinite(value) for value in norm.mean_y)
    chart = run_charts(store, run, "all steps")["gradient"]
    faint = chart["data"][0]
    assert faint["y"][faint["x"].index(SPIKE)] == 50.0
    assert [(m["x0"], m["label"]["text"]) for m in chart["layout"]["shapes"]] == [
        (BROKEN, "not finite")
    ]


def test_what_was_never_measured_gives_its_reason_and_no_zero(long_run):
    store, run = long_run
    assert list(outlines_of(store, run.id)["entropy"].y) == []
    chart = run_charts(store, run, "all steps")["entropy"]
    assert [each["text"] for each in said_in(chart)] == ["nobody looked"]


def test_a_window_of_a_long_run_shows_every_step_of_it(long_run):
    store, run = long_run
    columns, outlines = drawn_part(store, run.id, 200)
    assert outlines is None
    assert columns["step"] == list(range(STEPS - 200, STEPS))
    assert columns == store.series(run.id, WATCHED, after=STEPS - 201)
    earlier, _ = drawn_part(store, run.id, 200, SPIKE + 10)
    assert earlier["step"] == list(range(SPIKE - 189, SPIKE + 11))
    assert earlier["grad_norm"][earlier["step"].index(SPIKE)] == 50.0


def test_the_outline_grows_and_goes_back_with_the_run(tmp_path):
    store = Store.open(str(tmp_path / "archive.db"))
    run = a_run()
    store.create_run(run)
    store.append_steps(steps(run.id, range(LONG)))
    columns, outlines = drawn_part(store, run.id, None)
    assert outlines is None  # not yet
    assert columns["step"] == list(range(LONG))
    for upto in (LONG + 1, LONG + 10, LONG + 1100):
        store.append_steps(steps(run.id, range(store.last_step(run.id) + 1, upto)))
        reward = drawn_part(store, run.id, None)[1]["reward_mean"]
        assert reward.x[-1] == upto - 1
    store.delete_steps_after(run.id, LONG + 20)
    store.append_steps(steps(run.id, range(LONG + 21, LONG + 30), reward=0.1))
    reward = drawn_part(store, run.id, None)[1]["reward_mean"]
    assert reward.x[-1] == LONG + 29
    assert set(reward.y[reward.x.index(LONG + 21) :]) == {0.1}
    store.close()


def test_a_log_of_the_same_length_with_another_end_is_drawn_anew(tmp_path):
    store = Store.open(str(tmp_path / "archive.db"))
    run = a_run()
    store.create_run(run)
    for reward in (0.8, 0.1):
        store.delete_steps_after(run.id, -1)
        store.append_steps(steps(run.id, range(STEPS), reward=reward))
        assert set(drawn_part(store, run.id, None)[1]["reward_mean"].y) == {reward}
        assert set(compared_columns(store, run, "reward_mean")["reward_mean"]) == {reward}
    store.close()
