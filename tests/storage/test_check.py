"""Every inconsistency that is planted by raw SQL is found and named, and nothing else is."""

from contextlib import closing

import pytest
from damage import COLLAPSED, FINISHED, plant
from factories import a_run, a_step, an_evaluation, seed, seeded_store

from storage.check import inconsistencies
from storage.errors import ArchiveUnavailable
from storage.records import BiasProbe, Event, LagDrift, RunStatus, Sample
from storage.store import Store


@pytest.fixture
def seeded_file(tmp_path):
    opened = seeded_store(tmp_path)
    yield opened
    opened.close()


def test_an_empty_and_a_sound_archive_have_none(store):
    assert inconsistencies(store) == []
    assert inconsistencies(seed(store)) == []


def test_live_queued_and_imported_runs_need_no_end_time(store):
    for status in (RunStatus.QUEUED, RunStatus.RUNNING):
        store.create_run(a_run(status=status))
    store.create_run(a_run(status=RunStatus.FINISHED, kind="imported"))
    assert inconsistencies(store) == []


def test_a_run_that_begins_later_than_at_step_0_has_no_gap(store):
    run = a_run()
    store.create_run(run)
    for step in (5, 6, 7):
        store.append_step(a_step(run.id, step))
    assert inconsistencies(store) == []


def test_rows_of_a_run_that_does_not_exist(seeded):
    seeded.append_event(Event(run_id=COLLAPSED, time=1.0, kind="k", message="m"))
    seeded.append_evaluation(an_evaluation(FINISHED, 25, 0.8))
    plant(seeded, f"DELETE FROM runs WHERE id = '{COLLAPSED}'")
    assert inconsistencies(seeded) == [
        f"{table}: rows of run {COLLAPSED}, which does not exist"
        for table in ("evaluations", "events", "steps")
    ]


def test_rows_of_every_table_of_facts_are_missed_by_their_run(seeded):
    seeded.append_steps([a_step(COLLAPSED, t) for t in range(512)])
    seeded.append_drift(LagDrift(run_id=COLLAPSED, step=1, lag=1, norm=1.0, rate_sum=1.0))
    seeded.append_samples(
        [Sample(run_id=COLLAPSED, step=1, number=0, prompt="1+1=", completion="2")]
    )
    seeded.tag_run(COLLAPSED, ["mine"])
    seeded.append_bias_probe(
        BiasProbe(
            run_id=COLLAPSED,
            step=1,
            staleness=1,
            correction="clip",
            time=1.0,
            shards=16,
            rollouts=64,
        )
    )
    plant(seeded, f"DELETE FROM runs WHERE id = '{COLLAPSED}'")
    assert {line.split(":")[0] for line in inconsistencies(seeded)} == {
        *("steps", "evaluations", "drifts", "bias_probes", "samples", "rollups", "tags"),
    }


def test_an_imported_run_has_a_row_only_where_its_log_has_one(store):
    run = a_run(kind="imported", status=RunStatus.FINISHED)
    store.create_run(run)
    store.append_steps([a_step(run.id, 10 * t) for t in range(5)])
    assert inconsistencies(store) == []


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE rollups SET high = 9 WHERE metric = 'loss'",
        "DELETE FROM rollups WHERE metric = 'loss'",
        "UPDATE rollups SET not_finite_step = 3 WHERE metric = 'loss'",
        f"UPDATE steps SET loss = 9 WHERE step = 100 AND run_id = '{FINISHED}'",
    ],
)
def test_extremes_that_are_not_those_of_the_steps(seeded, change):
    seeded.append_steps([a_step(FINISHED, t, loss=0.5) for t in range(512)])
    assert inconsistencies(seeded) == []
    plant(seeded, change)
    assert inconsistencies(seeded) == [
        f"rollups: block 0 of run {FINISHED} is not what its steps say"
    ]


def test_a_gap_in_the_steps(seeded):
    plant(seeded, f"DELETE FROM steps WHERE run_id = '{FINISHED}' AND step IN (7, 8, 20)")
    assert inconsistencies(seeded) == [f"steps: run {FINISHED} has 37 rows between step 0 and 39"]


@pytest.mark.parametrize("status", ["finished", "collapsed", "diverged", "failed", "stopped"])
def test_an_ended_run_without_an_end_time(seeded, status):
    change = f"UPDATE runs SET status = '{status}', ended_at = NULL WHERE id = '{FINISHED}'"
    plant(seeded, change)
    assert inconsistencies(seeded) == [f"runs: {FINISHED} is {status} and has no end time"]


def test_several_are_all_named(seeded):
    plant(
        seeded,
        "DELETE FROM steps WHERE step = 1",
        f"UPDATE runs SET ended_at = NULL WHERE id = '{COLLAPSED}'",
    )
    assert [line.split(":")[0] for line in inconsistencies(seeded)] == ["steps", "steps", "runs"]


def test_a_damaged_index_is_found_by_the_database_itself(seeded_file):
    """An index that no longer agrees with its table, made by editing the schema."""
    seeded_file.close()
    plant(
        seeded_file,
        "PRAGMA writable_schema = ON",
        "UPDATE sqlite_master SET sql = replace(sql, '(status)', '(name)')"
        " WHERE name = 'runs_by_status'",
    )
    opened = Store.open(seeded_file.url, create=False)
    found = inconsistencies(opened)
    opened.close()
    assert found
    assert all(line.startswith("database: ") and "runs_by_status" in line for line in found)


def test_a_file_with_overwritten_pages_is_reported_in_one_way_or_refused(seeded_file, tmp_path):
    seeded_file.close()
    path = tmp_path / "seeded.db"
    plant(seeded_file, "PRAGMA journal_mode = DELETE")
    content = bytearray(path.read_bytes())
    page = 4096
    content[len(content) // 2 // page * page : len(content) // 2 // page * page + page] = (
        b"\xff" * page
    )
    path.write_bytes(content)
    try:
        with closing(Store.open(seeded_file.url, create=False)) as opened:
            found = inconsistencies(opened)
    except ArchiveUnavailable as error:
        found = [str(error)]
    assert found
