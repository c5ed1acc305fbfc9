"""Extremes over blocks: true after every kind of write, and an outline that loses no spike."""

import math
import random

import pytest
from factories import a_run, a_step, an_evaluation
from sqlalchemy import delete, func, select

from storage.errors import RunNotFound
from storage.models import rollups, steps
from storage.records import Sample
from storage.rollups import BLOCK, RAW_ROWS_PER_POINT, extremes
from storage.store import Store


@pytest.fixture
def run(store):
    made = a_run()
    store.create_run(made)
    return made


def rows_of(run, count, first=0, **changes):
    return [a_step(run.id, t, loss=math.sin(t), **changes) for t in range(first, first + count)]


def kept(store, run):
    """The rollups of a run, in order."""
    query = select(rollups).where(rollups.c.run_id == run.id)
    with store.reading() as connection:
        found = connection.execute(query.order_by(rollups.c.block, rollups.c.metric))
        return [dict(row) for row in found.mappings()]


def true_ones(store, run, blocks):
    """What the rollups of these blocks ought to be, computed from the rows by the definition."""
    found = []
    for block in blocks:
        rows = [row for row in store.steps(run.id) if row.step // BLOCK == block]
        for name in ("grad_norm", "loss", "step"):
            values = [(getattr(row, name), row.step) for row in rows]
            finite = [(v, s) for v, s in values if v is not None and math.isfinite(v)]
            strange = [s for v, s in values if v is not None and not math.isfinite(v)]
            if not finite and not strange:
                continue
            low = min(finite, key=lambda pair: pair[0], default=(None, None))
            high = max(finite, key=lambda pair: pair[0], default=(None, None))
            found.append(
                {
                    "run_id": run.id,
                    "metric": name,
                    "block": block,
                    "low": low[0],
                    "low_step": low[1],
                    "high": high[0],
                    "high_step": high[1],
                    "mean": pytest.approx(sum(v for v, _ in finite) / len(finite))
                    if finite
                    else None,
                    "not_finite_step": strange[0] if strange else None,
                }
            )
    return found


# -- writing ----------------------------------------------------------------------------------


def test_a_block_is_rolled_up_by_the_step_that_completes_it(store, run):
    for row in rows_of(run, BLOCK - 1):
        store.append_step(row)
    assert kept(store, run) == []
    store.append_step(a_step(run.id, BLOCK - 1, loss=9.0))
    assert kept(store, run) == true_ones(store, run, [0])
    [loss, _] = kept(store, run)
    assert (loss["high"], loss["high_step"]) == (9.0, BLOCK - 1)


def test_steps_one_by_one_and_in_bulk_make_the_same_rollups(store, run):
    other = a_run(id="20231114-221320-00000b")
    store.create_run(other)
    for row in rows_of(run, 2 * BLOCK + 5):
        store.append_step(row)
    assert store.append_steps(rows_of(other, 2 * BLOCK + 5)) == 2 * BLOCK + 5
    both = [kept(store, each) for each in (run, other)]
    assert both[0] == [{**row, "run_id": run.id} for row in both[1]]
    assert both[0] == true_ones(store, run, [0, 1])


def test_a_value_that_is_not_finite_is_remembered_and_is_no_extreme(store, run):
    rows = rows_of(run, BLOCK)
    rows[7] = a_step(run.id, 7, loss=math.nan, grad_norm=math.inf)
    rows[9] = a_step(run.id, 9, loss=-math.inf)
    store.append_steps(rows)
    found = {row["metric"]: row for row in kept(store, run)}
    assert found["loss"]["not_finite_step"] == 7
    assert found["loss"]["low"] > -1.1
    assert found["grad_norm"]["low"] is None
    assert found["grad_norm"]["not_finite_step"] == 7
    assert kept(store, run) == true_ones(store, run, [0])


@pytest.mark.parametrize("in_bulk", [False, True])
@pytest.mark.parametrize("reopened", [False, True])
def test_a_replaced_step_of_a_finished_block_is_rolled_up_again(store, run, in_bulk, reopened):
    store.append_steps(rows_of(run, BLOCK + 20))
    writer = Store.open(store.url) if reopened else store
    row = a_step(run.id, 100, loss=50.0)
    writer.append_steps([row]) if in_bulk else writer.append_step(row)
    assert kept(store, run)[0]["high"] == 50.0
    assert kept(store, run) == true_ones(store, run, [0])
    if reopened:
        writer.close()


def test_an_archive_without_rollups_gets_them_on_the_first_write_or_by_asking(store, run):
    store.append_steps(rows_of(run, 2 * BLOCK))
    complete = kept(store, run)
    for repair in (lambda s: s.append_step(a_step(run.id, 2 * BLOCK)), Store.build_rollups):
        with store.writing() as connection:
            connection.execute(delete(rollups))
        again = Store.open(store.url)
        repair(again)
        again.close()
        assert kept(store, run) == complete
    assert store.build_rollups() == 0


def test_steps_far_apart_roll_up_only_where_there_are_any(store, run):
    store.append_steps([a_step(run.id, t, loss=1.0) for t in (9, 19, 2_000_000_000)])
    assert {row["block"] for row in kept(store, run)} == {0}
    store.append_step(a_step(run.id, 2_000_000_001, loss=1.0))
    assert store.build_rollups() == 0


def test_many_steps_are_written_all_or_none(store, run):
    stranger = a_step("nobody", 3)
    with pytest.raises(RunNotFound, match="nobody"):
        store.append_steps([*rows_of(run, BLOCK), stranger])
    assert store.steps(run.id) == []
    assert kept(store, run) == []
    assert store.append_steps([]) == 0


# -- deleting ---------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [-1, 0, BLOCK - 2, BLOCK - 1, BLOCK, 3 * BLOCK])
def test_steps_after_one_are_forgotten_and_the_rollups_stay_true(store, run, step):
    store.append_steps(rows_of(run, 2 * BLOCK + 5))
    for t in (0, BLOCK, 2 * BLOCK):
        store.append_evaluation(an_evaluation(run.id, t, 0.5))
        store.append_samples([Sample(run_id=run.id, step=t, number=0, prompt="p", completion="c")])
    store.delete_steps_after(run.id, step)
    assert [row.step for row in store.steps(run.id)] == list(range(min(step + 1, 2 * BLOCK + 5)))
    assert [row.step for row in store.evaluations(run.id)] == store.sampled_steps(run.id)
    assert all(t <= step for t in store.sampled_steps(run.id))
    assert kept(store, run) == true_ones(store, run, range(min((step + 1) // BLOCK, 2)))
    for row in rows_of(run, 2 * BLOCK - step - 1, first=step + 1):
        store.append_step(row)
    assert kept(store, run) == true_ones(store, run, [0, 1])


def test_forgetting_steps_of_an_unknown_run_is_an_error(store):
    with pytest.raises(RunNotFound):
        store.delete_steps_after("nobody", 3)


# -- the outline ------------------------------------------------------------------------------


def test_a_short_run_comes_as_it_is_with_what_was_not_measured_left_out(store, run):
    store.append_steps([a_step(run.id, t, loss=v) for t, v in enumerate([1.0, None, math.inf])])
    store.append_step(a_step(run.id, 3, loss=math.nan, grad_norm=2.0))
    found = store.overview(run.id, ["loss", "grad_norm"])
    assert found["loss"][0] == [0, 2, 3]
    assert str(found["loss"][1]) == "[1.0, inf, nan]"
    assert found["grad_norm"] == ([3], [2.0])
    assert store.overview(run.id, ["loss"], first=1, last=2) == {"loss": ([2], [math.inf])}


def test_of_nothing_there_is_an_empty_outline(store, run):
    for asked in (run.id, "nobody"):
        assert store.overview(asked, ["loss"]) == {"loss": ([], [])}
    store.append_step(a_step(run.id, 0, loss=1.0))
    assert store.overview(run.id, ["loss"], first=5) == {"loss": ([], [])}
    assert store.overview(run.id, ["loss"], first=5, last=3) == {"loss": ([], [])}
    assert store.overview(run.id, []) == {}


@pytest.mark.parametrize("rolled", [True, False])
@pytest.mark.parametrize("count", [90, 600, 5000])
def test_an_outline_keeps_the_extremes_a_spike_and_a_nan_within_few_points(
    store, run, count, rolled
):
    """Ten points: 90 steps are read raw and coarsened, 600 and 5000 go by rollups."""
    points, rng = 10, random.Random(count)
    values = [rng.gauss(0, 1) for _ in range(count)]
    values[count // 3], values[count // 2] = 99.0, math.nan
    rows = [a_step(run.id, t, loss=v, grad_norm=-abs(v)) for t, v in enumerate(values)]
    store.append_steps(rows)
    if not rolled:
        with store.writing() as connection:
            connection.execute(delete(rollups))
    assert (count > RAW_ROWS_PER_POINT * points) == (count > 90)
    for first, last in ((0, None), (7, count - 9), (count // 3, count // 2)):
        found = store.overview(run.id, ["loss", "grad_norm"], first=first, last=last, points=points)
        inside = values[first : count if last is None else last + 1]
        finite = [v for v in inside if math.isfinite(v)]
        at, line = found["loss"]
        assert len(at) <= (2 * points if len(inside) > 4 * points else len(inside))
        assert at == sorted(set(at))
        assert max(v for v in line if math.isfinite(v)) == max(finite)
        assert min(v for v in line if math.isfinite(v)) == min(finite)
        assert any(math.isnan(v) for v in line)
        for step, value in zip(at, line, strict=True):
            assert first <= step < first + len(inside)
            assert math.isnan(value) or value == values[step]


def test_sparse_steps_are_outlined_by_how_many_there_are(store, run):
    store.append_steps([a_step(run.id, 10 * t, loss=float(t)) for t in range(30)])
    assert store.overview(run.id, ["loss"], points=10)["loss"][0] == [10 * t for t in range(30)]


def test_a_block_that_was_never_rolled_up_is_read_row_by_row_between_others(store, run):
    store.append_steps(rows_of(run, 3 * BLOCK))
    with store.writing() as connection:
        connection.execute(delete(rollups).where(rollups.c.block == 1))
    at, line = store.overview(run.id, ["loss"], points=4)["loss"]
    values = [math.sin(t) for t in range(3 * BLOCK)]
    assert [math.sin(t) for t in at] == line
    assert (min(line), max(line)) == (min(values), max(values))
    assert len(at) <= 8


def test_rollups_are_what_a_fresh_computation_gives(store, run):
    store.append_steps(rows_of(run, 2 * BLOCK, grad_norm=1.0))
    with store.reading() as connection:
        fresh = list(extremes(connection, run.id, 0, 1))
        count = connection.execute(select(func.count()).select_from(steps)).scalar()
    assert count == 2 * BLOCK
    assert sorted(fresh, key=lambda row: (row["block"], row["metric"])) == kept(store, run)
