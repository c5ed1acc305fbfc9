"""A real run goes on while its archive is locked for a minute, or its server restarts."""

import os
import sqlite3
import time
from contextlib import closing

import pytest
from factories import a_config
from processes import wait_until

from storage.check import inconsistencies
from storage.engine import journal_file
from storage.records import RunStatus
from storage.store import Store
from trainer.launch import launch, stop

LOCKED_SECONDS = 60.0


@pytest.fixture
def home(tmp_path, etalon_home, monkeypatch):
    (tmp_path / "warm_starts").symlink_to(etalon_home / "warm_starts")
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))


def begun(store):
    config = a_config(steps=100_000, prompts=4, group_size=4, evaluation_rollouts=16)
    run_id = launch(store, config)
    wait_until(lambda: store.last_step(run_id) is not None)
    return run_id


def kept_steps(run_id):
    """Count the learner steps among the writes of a journal."""
    return journal_file(run_id).read_bytes().count(b'{"StepMetrics":')


def ended(store, run_id):
    wait_until(lambda: not journal_file(run_id).exists())
    stop(store, run_id)
    wait_until(lambda: not store.run(run_id).status.alive)
    steps = store.series(run_id, ["step"])["step"]
    assert store.run(run_id).status is RunStatus.STOPPED
    assert steps == list(range(len(steps)))
    assert inconsistencies(store) == []
    return len(steps)


@pytest.mark.long
def test_a_lock_that_is_held_for_a_minute(home, store):
    run_id = begun(store)
    path = store.url.removeprefix("sqlite:///")
    with closing(sqlite3.connect(path, timeout=60, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        before = store.last_step(run_id)
        time.sleep(LOCKED_SECONDS)
        assert store.last_step(run_id) == before
        kept = kept_steps(run_id)
    assert kept > 20, "it went on training"
    assert ended(store, run_id) >= before + kept
    told = next(event for event in store.events(run_id) if event.kind == "archive")
    assert "writes kept, and sent" in told.message


@pytest.mark.long
def test_a_postgresql_server_that_restarts_in_the_middle(home, postgres_server):
    with postgres_server.archive() as url, closing(Store.open(url)) as store:
        run_id = begun(store)
        pid = store.run(run_id).pid
        with postgres_server.stopped():
            wait_until(lambda: journal_file(run_id).exists() and kept_steps(run_id) > 20)
            os.kill(pid, 0)  # it lives
        ended(store, run_id)
