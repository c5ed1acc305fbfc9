"""What goes into the archive comes out of it: NaN, ±inf and "not measured" are different facts."""

import math
import os
from dataclasses import fields, replace

import pytest
from factories import NOON, a_run, a_step, an_evaluation

from storage.errors import RunExists, RunNotFound
from storage.records import Event, Recommendation, RunInfo, StepMetrics, missing_reason
from storage.store import new_run_id

FACTS = pytest.mark.parametrize("fact", [None, math.nan, math.inf, -math.inf, 0.0, 5e-324, 1 / 3])
MEASURED = [f.name for f in fields(StepMetrics) if f.type == float | None]
REWARDS = [f.name for f in fields(RunInfo) if f.name.startswith(("reward_", "gold_reward_"))]


def same(one, other):
    """Compare bit by bit: NaN equals NaN here, and neither None, 0 nor inf equals another."""
    return repr(one) == repr(other)


@FACTS
def test_every_number_of_a_step_comes_back_as_it_went_in(store, fact):
    run = a_run()
    store.create_run(run)
    row = a_step(run.id, 0, **dict.fromkeys(MEASURED, fact))
    store.append_step(row)
    assert len(MEASURED) > 25
    assert same(store.steps(run.id), [row])
    assert same(store.series(run.id, MEASURED), {name: [fact] for name in MEASURED})


def test_three_kinds_of_missing_stay_apart_in_one_row(store):
    run = a_run()
    store.create_run(run)
    store.append_step(a_step(run.id, 0, loss=math.nan, grad_norm=math.inf, entropy=None))
    [row] = store.steps(run.id)
    assert math.isnan(row.loss)
    assert row.grad_norm == math.inf
    assert row.entropy is None
    assert missing_reason(run, row, "loss") == "computed nan"
    assert missing_reason(run, row, "grad_norm") == "computed inf"
    assert missing_reason(run, row, "entropy") == "not measured"


def test_a_reason_of_the_row_comes_before_one_of_the_run():
    run = a_run(unmeasured={"loss": "of the run", "entropy": "of the run"})
    row = a_step(run.id, 0, reasons={"loss": "of the row"}, grad_norm=2.0)
    assert missing_reason(run, row, "loss") == "of the row"
    assert missing_reason(run, row, "entropy") == "of the run"
    assert missing_reason(run, row, "grad_norm") is None


def test_another_program_reads_null_for_nan_and_finds_its_name_beside_it(store):
    run = a_run()
    store.create_run(run)
    store.append_step(a_step(run.id, 0, loss=math.nan, entropy=None))
    with store.reading() as raw:
        found = raw.exec_driver_sql("SELECT loss, entropy, non_finite FROM steps").one()
    assert tuple(found) == (None, None, '["loss"]')


@FACTS
def test_every_reward_of_a_run_comes_back_created_or_updated(store, fact):
    created, updated = (a_run(**dict.fromkeys(REWARDS, value)) for value in (fact, 0.5))
    for run in (created, updated):
        store.create_run(run)
    store.update_run(updated.id, **dict.fromkeys(REWARDS, fact))
    assert len(REWARDS) == 7
    assert same(store.run(created.id), created)
    assert same(store.run(updated.id), replace(updated, **dict.fromkeys(REWARDS, fact)))


def test_updating_one_field_leaves_the_nan_of_another(store):
    run = a_run(reward_last=math.nan, reward_best=math.nan)
    store.create_run(run)
    store.update_run(run.id, reward_best=0.75, notes="looked at")
    back = store.run(run.id)
    assert math.isnan(back.reward_last)
    assert back.reward_best == 0.75


@FACTS
def test_an_evaluation_comes_back_as_it_went_in(store, fact):
    run = a_run()
    store.create_run(run)
    row = an_evaluation(run.id, 25, 0.5 if fact is None else fact, reward_std=fact, gold=fact)
    store.append_evaluation(row)
    assert same(store.evaluations(run.id), [row])


@FACTS
def test_json_columns_keep_facts_however_deep(store, fact):
    config = {"learning_rate": fact, "deep": [{"er": [fact, "text", True]}]}
    run = replace(a_run(), config=config)
    store.create_run(run)
    row = a_step(run.id, 0, clipping_radii={"0.001": fact, "0.1": 0.5}, extra={"x": [fact]})
    store.append_step(row)
    event = Event(run_id=run.id, time=1.0, kind="k", message="m", data={"value": fact})
    advice = Recommendation(time=1.0, question={"s": fact}, answer={"η": fact}, evidence=("a",))
    assert same(store.run(run.id), run)
    assert same(store.steps(run.id), [row])
    event = replace(event, id=store.append_event(event))
    advice = replace(advice, id=store.save_recommendation(advice))
    assert same(store.events(), [event])
    assert same(store.recommendations(), [advice])


def test_no_radii_and_an_empty_set_of_radii_are_different(store):
    run = a_run()
    store.create_run(run)
    for step, radii in enumerate([None, {}]):
        store.append_step(a_step(run.id, step, clipping_radii=radii))
    assert [row.clipping_radii for row in store.steps(run.id)] == [None, {}]


def test_writing_a_step_or_an_evaluation_twice_leaves_the_second(store):
    run = a_run()
    store.create_run(run)
    for loss in (math.nan, 0.25, 0.25):
        store.append_step(a_step(run.id, 7, loss=loss))
        store.append_evaluation(an_evaluation(run.id, 7, loss))
    assert same(store.steps(run.id), [a_step(run.id, 7, loss=0.25)])
    assert same(store.evaluations(run.id), [an_evaluation(run.id, 7, 0.25)])


def test_rows_of_a_run_that_is_not_there_are_refused(store):
    known = a_run(id="20260101-120000-abcdef")
    store.create_run(known)
    unknown = "20260101-120000-abcdee"
    writes = [
        lambda: store.append_step(a_step(unknown, 0)),
        lambda: store.append_evaluation(an_evaluation(unknown, 0, 0.5)),
        lambda: store.append_event(Event(run_id=unknown, time=1.0, kind="k", message="m")),
        lambda: store.update_run(unknown, notes="n"),
        lambda: store.run(unknown),
    ]
    for write in writes:
        with pytest.raises(RunNotFound, match=f"{unknown}.*nearest: {known.id}") as found:
            write()
        assert isinstance(found.value, KeyError)
    assert store.step_counts() == {}


def test_a_run_is_created_once(store):
    run = a_run(notes="the first")
    store.create_run(run)
    with pytest.raises(RunExists, match=run.id):
        store.create_run(replace(run, notes="the second"))
    assert store.run(run.id).notes == "the first"


def test_steps_are_read_in_order_from_a_step_on_or_only_the_last(store):
    run = a_run()
    store.create_run(run)
    for step in (3, 0, 2, 1, 4):
        store.append_step(a_step(run.id, step, loss=step / 10))
    assert [row.step for row in store.steps(run.id)] == [0, 1, 2, 3, 4]
    assert [row.step for row in store.steps(run.id, after=2)] == [3, 4]
    assert [row.step for row in store.steps(run.id, last=2)] == [3, 4]
    assert store.steps(run.id, last=0) == []
    assert store.series(run.id, ["step", "loss"], after=3) == {"step": [4], "loss": [0.4]}
    assert store.step_counts() == {run.id: 5}
    assert store.last_steps() == {run.id: 4}
    assert store.step_counts([run.id, "nosuch"]) == {run.id: 5}
    assert store.step_counts([]) == {}


def test_runs_are_listed_newest_first_and_filtered(store):
    ids = [f"2026010{day}-120000-000000" for day in (1, 3, 2)]
    for run_id in ids:
        store.create_run(a_run(id=run_id, group="a" if run_id == ids[0] else None))
    store.update_run(ids[1], archived=True)
    assert [run.id for run in store.runs()] == [ids[1], ids[2], ids[0]]
    assert [run.id for run in store.runs(archived=False)] == [ids[2], ids[0]]
    assert [run.id for run in store.runs(archived=True)] == [ids[1]]
    assert [run.id for run in store.runs(group="a")] == [ids[0]]


def test_a_heartbeat_counts_and_hears_that_a_stop_was_asked_for(store):
    run = a_run()
    store.create_run(run)
    assert not store.heartbeat(run.id, 10.0)
    store.update_run(run.id, stop_requested=True)
    assert store.heartbeat(run.id, 11.0)
    back = store.run(run.id)
    assert (back.heartbeat_count, back.heartbeat_at) == (2, 11.0)


def test_the_newest_events_come_oldest_first(store):
    run = a_run()
    store.create_run(run)
    for i in range(5):
        store.append_event(Event(run_id=run.id, time=float(i), kind="k", message=str(i)))
    assert [event.message for event in store.events(run.id, last=3)] == ["2", "3", "4"]


def test_ids_of_one_second_are_in_the_order_of_their_creation_and_none_is_given_twice():
    ids = [new_run_id(NOON) for _ in range(10_000)]
    assert len(set(ids)) == len(ids)
    assert sorted(ids) == ids
    assert new_run_id(NOON + 1) > ids[-1]


def test_a_forked_process_begins_at_numbers_of_its_own():
    reading, writing = os.pipe()
    if (child := os.fork()) == 0:
        os.write(writing, new_run_id(NOON).encode())
        os._exit(0)
    os.waitpid(child, 0)
    there = os.read(reading, 100).decode()
    os.close(reading)
    os.close(writing)
    assert there != new_run_id(NOON)
