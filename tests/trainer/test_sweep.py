"""Sweeps: which cells there are, and which are run again."""

import os
import socket
import threading
import time
from dataclasses import replace

import psutil
import pytest
from factories import a_config, a_run

from advisor.answer import gather
from storage.commandline import run_command
from storage.errors import RunTakenOver
from storage.liveness import PulseReader
from storage.records import RunStatus
from storage.store import Store
from trainer.__main__ import main
from trainer.launch import process_columns
from trainer.pool import Pool
from trainer.sweep import KIND, Cells, free_jobs, group_name

GROUP = "a sweep"


def nobody(run):
    """No run belongs to the pool: there is none."""
    return False


def a_gone_process():
    """Return pid and start time of a process that has ended."""
    process = psutil.Popen(["true"])
    started = process.create_time()
    process.wait()
    return {"pid": process.pid, "pid_started": started, "host": socket.gethostname()}


def this_process():
    me = psutil.Process()
    return {"pid": me.pid, "pid_started": me.create_time(), "host": socket.gethostname()}


def a_cell(store, **changes):
    """Add a run that stands for the cell ``a_config(group=GROUP)``."""
    run = a_run(a_config(group=GROUP), **({"kind": KIND, "group": GROUP} | changes))
    store.create_run(run)
    return run


def look(store, *configs):
    return Cells(store, configs or [a_config()], GROUP).look(nobody)


# -- which cells there are --------------------------------------------------------------------


def faults(capsys, home, *words):
    """Return the lines of standard error of a sweep that must refuse its input."""
    assert run_command(main, ["sweep", *words]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert list(home.iterdir()) == []
    return said.err.splitlines()


@pytest.fixture
def empty_home(tmp_path, monkeypatch):
    home = tmp_path / "empty"
    home.mkdir()
    monkeypatch.setenv("ETALON_HOME", str(home))
    monkeypatch.delenv("ETALON_DB", raising=False)
    return home


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (
            "--learning-rates 1e-4,nan,0,11 --max-stalenesses 0 --seeds 1 --steps 3",
            [
                "learning_rate: 'nan' is not allowed; allowed: 0 < learning_rate <= 10",
                "learning_rate: '0' is not allowed; allowed: 0 < learning_rate <= 10",
                "learning_rate: '11' is not allowed; allowed: 0 < learning_rate <= 10",
            ],
        ),
        (
            "--learning-rates 1e-4,,x --max-stalenesses 1.5,-1 --seeds 1 --steps 0",
            [
                "steps: '0' is not allowed; allowed: whole number, 1 <= steps <= 100000000",
                "max_staleness: '1.5' is not allowed; allowed: "
                "whole number, 0 <= max_staleness <= 4096",
                "max_staleness: '-1' is not allowed; allowed: "
                "whole number, 0 <= max_staleness <= 4096",
                "learning_rate: '' is not allowed; allowed: 0 < learning_rate <= 10",
                "learning_rate: 'x' is not allowed; allowed: 0 < learning_rate <= 10",
            ],
        ),
        (
            "--steps 3",
            [
                "learning_rates: not given; allowed: 0 < learning_rate <= 10, with commas between",
                "max_stalenesses: not given; allowed: "
                "whole number, 0 <= max_staleness <= 4096, with commas between",
                "seeds: not given; allowed: whole number, 1 <= seeds <= 10000",
            ],
        ),
        (
            "--learning-rates 1 --max-stalenesses 0 --seeds 0 --jobs two --steps 3",
            [
                "seeds: '0' is not allowed; allowed: whole number, 1 <= seeds <= 10000",
                "jobs: 'two' is not allowed; allowed: whole number, 1 <= jobs <= 1024",
            ],
        ),
        (
            "--learning-rates 1 --max-stalenesses 0 --seeds 2 --first-seed 2147483647 --steps 3",
            ["seed: 2147483648 is not allowed; allowed: whole number, 0 <= seed <= 2147483647"],
        ),
        (
            "--learning-rates 1 --max-stalenesses 0 --seeds 1 --first-seed x --steps 3",
            ["seed: 'x' is not allowed; allowed: whole number, 0 <= seed <= 2147483647"],
        ),
    ],
)
def test_every_fault_of_a_sweep_has_one_line_and_nothing_is_made(
    capsys, empty_home, words, expected
):
    assert sorted(faults(capsys, empty_home, *words.split())) == sorted(expected)


def test_the_group_of_a_setting_does_not_depend_on_what_the_cells_vary():
    name = group_name([a_config()])
    assert name.startswith("sweep-arithmetic-")
    assert group_name([a_config(learning_rate=1e-3, max_staleness=0, seed=7)]) == name
    assert group_name([a_config(seed=1), a_config(seed=2)]) == name
    assert group_name([a_config(clip_epsilon=0.2)]) == name, "0.2 is the default"
    assert group_name([a_config(clip_epsilon=0.3)]) != name
    assert group_name([a_config(steps=301)]) != name


def test_processes_share_the_cores_among_their_threads():
    cores = len(os.sched_getaffinity(0))
    assert free_jobs([a_config()]) == cores
    assert free_jobs([a_config(threads=1), a_config(threads=2 * cores)]) == 1
    assert free_jobs([a_config(schedule="queue", rollout_workers=cores)]) == 1


# -- which cells are run again ----------------------------------------------------------------


def test_missing_cells_become_queued_runs_of_one_group_in_the_order_given(store):
    configs = [a_config(learning_rate=rate, seed=seed) for rate in (1e-3, 1e-4) for seed in (0, 1)]
    runs = look(store, *configs, configs[0])
    assert [(run.config["learning_rate"], run.seed) for run in runs] == [
        (1e-3, 0),
        (1e-3, 1),
        (1e-4, 0),
        (1e-4, 1),
    ]
    assert {(run.status, run.kind, run.group) for run in runs} == {
        (RunStatus.QUEUED, KIND, GROUP),
    }
    assert len(store.runs()) == 4
    assert look(store, *configs) == runs


def test_two_sweeps_that_begin_at_once_add_every_cell_once(either_store):
    configs = [a_config(seed=seed) for seed in range(20)]
    together = threading.Barrier(4)
    found = []

    def begin():
        own = Store.open(either_store.url)
        together.wait()
        found.append([run.id for run in Cells(own, configs, GROUP).look(nobody)])
        own.close()

    threads = [threading.Thread(target=begin) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(either_store.runs()) == 20
    assert found == [found[0]] * 4


def test_of_all_that_claim_a_run_one_gets_it(either_store):
    runs = [a_cell(either_store) for _ in range(20)]
    together = threading.Barrier(4)
    claimed = []

    def claim():
        own = Store.open(either_store.url)
        together.wait()
        claimed.extend(run.id for run in runs if own.claim_run(run.id, pid=1))
        own.close()

    threads = [threading.Thread(target=claim) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(claimed) == sorted(run.id for run in runs)
    assert {run.status for run in either_store.runs()} == {RunStatus.RUNNING}


def test_of_all_that_take_what_waits_each_takes_another_and_no_more_than_may_live(either_store):
    for n in range(20):
        either_store.create_run(a_run(a_config(), id=f"{n:02}"))
    together = threading.Barrier(4)
    taken = []

    def first(alive):
        if sum(run.pid is not None for run in alive) >= 12:
            return None
        return min((run for run in alive if run.pid is None), key=lambda run: run.id)

    def take():
        own = Store.open(either_store.url)
        together.wait()
        while (run := own.take_run(first, pid=1)) is not None:
            taken.append(run.id)
        own.close()

    threads = [threading.Thread(target=take) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(taken) == [f"{n:02}" for n in range(12)]


@pytest.mark.parametrize(
    "changes", [{"archived": True}, {"status": RunStatus.STOPPED}, {"status": RunStatus.RUNNING}]
)
def test_what_was_put_away_or_is_not_queued_cannot_be_claimed(store, changes):
    run = a_cell(store, **changes)
    assert not store.claim_run(run.id, pid=1)
    assert store.run(run.id) == run


def test_a_process_that_got_the_id_of_an_earlier_one_does_not_own_its_run(
    store, tmp_path, monkeypatch
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    run = a_cell(store)
    others = set(psutil.Process().children())
    with Pool(store, GROUP, jobs=1) as pool:
        pool.tend([run])
        [worker] = set(psutil.Process().children()) - others
        taken = replace(run, **process_columns(worker.pid))
        assert pool.owns(taken)
        assert not pool.owns(replace(taken, process_mark="of another 1"))
        assert not pool.owns(replace(taken, host="another"))
        assert not pool.owns(replace(taken, **process_columns(os.getpid())))
    assert not worker.is_running()


@pytest.mark.parametrize("status", [RunStatus.FINISHED, RunStatus.COLLAPSED, RunStatus.DIVERGED])
def test_a_run_that_is_a_fact_is_not_made_again(store, status):
    run = a_cell(store, status=status)
    assert look(store) == [run]
    assert store.runs() == [run]


def test_a_run_in_a_live_process_is_left_to_it(store):
    run = a_cell(store, status=RunStatus.RUNNING, **this_process())
    assert look(store) == [run]


def test_a_run_whose_process_is_gone_is_put_away_and_its_cell_begins_anew(store):
    old = a_cell(store, status=RunStatus.RUNNING, heartbeat_at=5.0, **a_gone_process())
    [new] = look(store)
    assert (new.status, new.id != old.id) == (RunStatus.QUEUED, True)
    old = store.run(old.id)
    assert (old.archived, old.status, old.ended_at) == (True, RunStatus.STOPPED, 5.0)
    assert old.outcome_reason == f"its process is gone; made again as {new.id}"
    assert store.runs(group=GROUP, archived=False) == [new]


def test_a_cell_of_another_host_begins_anew_once_it_was_watched_and_its_process_learns_of_it(store):
    theirs = {"host": "elsewhere", "pid": 7, "process_mark": "its boot 1"}
    old = a_cell(store, status=RunStatus.RUNNING, heartbeat_at=time.time() - 400, **theirs)
    cells, now = Cells(store, [a_config()], GROUP), [0.0]
    cells._pulses = PulseReader(monotonic=lambda: now[0])
    for now[0] in (0.0, 29.0):
        assert cells.look(nobody) == [old]
    store.heartbeat(old.id, time.time() - 400, **theirs)
    for now[0] in (30.0, 59.0, 60.0):
        [cell] = cells.look(nobody)
    assert cell.id != old.id
    old = store.run(old.id)
    assert old.outcome_reason == (
        f"its process on elsewhere was silent for long; made again as {cell.id}"
    )
    with pytest.raises(RunTakenOver, match="was stopped meanwhile: its process on elsewhere"):
        store.heartbeat(old.id, time.time(), **theirs)


def test_a_stopped_run_is_made_again_by_the_next_sweep(store):
    old = a_cell(store, status=RunStatus.STOPPED, stop_requested=True)
    [new] = look(store)
    assert new.status is RunStatus.QUEUED
    assert store.run(old.id).archived


def test_what_a_person_stops_while_a_sweep_watches_stays_stopped(store):
    cells = Cells(store, [a_config()], GROUP)
    [run] = cells.look(nobody)
    store.update_run(run.id, status=RunStatus.STOPPED, stop_requested=True)
    [after] = cells.look(nobody)
    assert (after.id, after.status) == (run.id, RunStatus.STOPPED)


def test_what_another_sweep_was_interrupted_in_is_taken_over(store):
    cells = Cells(store, [a_config()], GROUP)
    [run] = cells.look(nobody)
    store.update_run(run.id, status=RunStatus.STOPPED)
    [after] = cells.look(nobody)
    assert (after.id != run.id, after.status) == (True, RunStatus.QUEUED)


def test_a_failed_run_is_retried_once_per_sweep(store):
    first = a_cell(store, status=RunStatus.FAILED, error="out of memory")
    cells = Cells(store, [a_config()], GROUP)
    [second] = cells.look(nobody)
    assert second.status is RunStatus.QUEUED
    kept = store.run(first.id)
    assert (kept.archived, kept.status, kept.error) == (True, RunStatus.FAILED, "out of memory")
    store.update_run(second.id, status=RunStatus.FAILED)
    [reported] = cells.look(nobody)
    assert (reported.id, reported.status) == (second.id, RunStatus.FAILED)


def test_runs_of_another_setting_kind_or_group_stand_for_no_cell(store):
    for changes in ({"kind": "train"}, {"group": "another"}, {"archived": True}):
        a_cell(store, status=RunStatus.FINISHED, **changes)
    other = a_run(a_config(steps=301), kind=KIND, group=GROUP, status=RunStatus.FINISHED)
    store.create_run(other)
    store.create_run(replace(a_run(kind=KIND, group=GROUP), config={"of": "a later version"}))
    [new] = look(store)
    assert new.status is RunStatus.QUEUED
    assert not store.run(other.id).archived


def test_a_run_that_ended_early_counts_with_all_its_steps(store):
    configs = [a_config(steps=100, seed=seed) for seed in range(3)]
    cells = Cells(store, configs, GROUP)
    collapsed, running, _ = cells.look(nobody)
    store.update_run(collapsed.id, status=RunStatus.COLLAPSED)
    store.update_run(running.id, status=RunStatus.RUNNING, **this_process())
    assert cells.steps_done(cells.look(nobody)) == (100, 300)


def test_what_was_put_away_is_evidence_for_nothing(store):
    a_cell(store, status=RunStatus.STOPPED, archived=True)
    kept = a_cell(store, status=RunStatus.FINISHED, outcome="healthy")
    assert [facts.run_id for facts in gather(store, group=GROUP)] == [kept.id]
