"""Real sweeps in processes of their own, which are killed and go on."""

import json
import signal
from contextlib import contextmanager, suppress

import psutil
import pytest
from factories import a_config
from processes import PATIENCE, command, ended, start, wait_until

from advisor.answer import gather
from storage.records import RunStatus
from storage.store import Store
from trainer.launch import create_run
from trainer.sweep import KIND
from trainer.worker import Worker

SMALL = ["--prompts", "2", "--group-size", "2", "--evaluation-rollouts", "8"]
SMALL_CONFIG = {"prompts": 2, "group_size": 2, "evaluation_rollouts": 8}


takes_processes = pytest.mark.slow  # each worker needs 4 s to import torch


def sweep_words(*, rates="1e-4", ages="0", seeds="1", steps="3", jobs="1"):
    lists = ["--learning-rates", rates, "--max-stalenesses", ages, "--seeds", seeds]
    return ["-m", "trainer", "sweep", *lists, "--steps", steps, "--jobs", jobs, *SMALL, "--json"]


def answer_of(done, returncode=0):
    assert done.returncode == returncode, done.stderr
    [line] = done.stdout.splitlines()
    return json.loads(line)


def archive_of(home):
    return Store.open(f"sqlite:///{home / 'etalon.db'}")


def measured(store, run_id):
    names = ("reward_mean", "loss", "displacement", "entropy", "kl_to_start", "cycle_drift")
    return store.series(run_id, names)


def trained_here(store, config):
    """Train in this process, where nothing of the pool is, and return what was measured."""
    run = create_run(store, config)
    before = signal.getsignal(signal.SIGTERM)
    Worker(store, run, print).run()
    signal.signal(signal.SIGTERM, before)
    return measured(store, run.id)


@takes_processes
def test_a_sweep_trains_every_cell_once_and_the_same_command_again_does_nothing(
    own_home, store, monkeypatch
):
    words = sweep_words(rates="1e-4,1e-3", ages="0,2")
    answer = answer_of(command(*words, home=own_home))
    cells = answer["cells"]
    assert [(c["learning_rate"], c["max_staleness"], c["seed"]) for c in cells] == [
        (1e-4, 0, 0),
        (1e-4, 2, 0),
        (1e-3, 0, 0),
        (1e-3, 2, 0),
    ]
    assert answer["counts"] == {"finished": 4}
    assert all(c["steps"] == 3 and c["seconds"] > 0 for c in cells)
    assert cells[0]["collapse_step"] is None
    assert cells[0]["collapse_step_reason"] == "the run did not collapse"
    archive = archive_of(own_home)
    runs = archive.runs()
    assert {(run.group, run.kind) for run in runs} == {(answer["group"], KIND)}
    assert len({run.pid for run in runs}) == 1, "one process took them all"

    again = answer_of(command(*words, home=own_home))
    assert again["cells"] == cells
    assert archive.runs() == runs

    monkeypatch.setenv("ETALON_HOME", str(own_home))
    alone = a_config(learning_rate=1e-3, max_staleness=2, steps=3, **SMALL_CONFIG)
    last = measured(archive, cells[-1]["run_id"])
    assert len(last["loss"]) == 3
    assert last == trained_here(store, alone), "what its process did before leaves no trace"
    archive.close()


def statuses(store):
    return [run.status for run in store.runs()]


def begun(store, count):
    """Whether that many runs have ended and another is in its learner steps."""
    runs = store.runs()  # read once: a run that ends between two readings would count as both
    running = [run for run in runs if run.status is RunStatus.RUNNING]
    return sum(run.status is RunStatus.FINISHED for run in runs) >= count and any(
        store.steps(run.id, last=1) for run in running
    )


@contextmanager
def a_sweep(*words, home, store, finished=0):
    """Start a sweep and wait until that many runs have ended and the next is under way.

    Neither the sweep nor its workers outlive the test, whatever becomes of it.
    """
    sweep = start(*words, home=home)
    known = psutil.Process(sweep.pid)
    workers = []
    try:
        wait_until(lambda: begun(store, finished) or sweep.poll() is not None)
        workers = known.children()
        yield sweep, workers
    finally:
        for process in (*workers, *(known.children() if known.is_running() else []), known):
            with suppress(psutil.NoSuchProcess):
                process.kill()
        sweep.communicate()


def killed_within_a_run(store, sweep, workers):
    """Kill a sweep while a run of it is under way, which has no time to end: nobody may write."""
    with store.writing():
        if not begun(store, 1):
            assert sweep.poll() is None, "no run is left"
            return False
        for process in (sweep, *workers):
            process.send_signal(signal.SIGKILL)
        ended(sweep)
        assert psutil.wait_procs(workers, PATIENCE)[1] == []
        return True


@takes_processes
def test_a_killed_sweep_goes_on_where_it_was(own_home):
    words = sweep_words(seeds="3", steps="40")
    store = archive_of(own_home)
    with a_sweep(*words, home=own_home, store=store, finished=1) as (sweep, workers):
        while not killed_within_a_run(store, sweep, workers):
            wait_until(lambda: begun(store, 1) or sweep.poll() is not None)
    finished = {run.id: run for run in store.runs() if run.status is RunStatus.FINISHED}
    half = [run.id for run in store.runs() if run.status is RunStatus.RUNNING]
    assert len(half) == 1

    answer = answer_of(command(*words, home=own_home))
    assert answer["counts"] == {"finished": 3}
    kept = {run.id: run for run in store.runs() if run.id in finished}
    assert kept == finished
    assert store.run(half[0]).archived
    assert len(store.steps(half[0])) > 0, "a half run is put away, not deleted"
    evidence = gather(store, group=answer["group"])
    assert sorted(facts.run_id for facts in evidence) == sorted(
        cell["run_id"] for cell in answer["cells"]
    )
    assert [facts.steps for facts in evidence] == [40, 40, 40]
    store.close()


@pytest.mark.long
def test_a_cell_whose_sweep_was_killed_goes_on_and_is_not_started_twice(own_home):
    words = sweep_words(seeds="2", steps="200")
    store = archive_of(own_home)
    with a_sweep(*words, home=own_home, store=store) as (first, [worker]):
        first.send_signal(signal.SIGKILL)
        ended(first)
        answer = answer_of(command(*words, home=own_home))
        assert answer["counts"] == {"finished": 2}
        assert len(store.runs()) == 2, "nothing was made again"
        assert [run.pid == worker.pid for run in store.runs()].count(True) == 1
        assert psutil.wait_procs([worker], PATIENCE)[1] == [], "it ended after its present run"
    store.close()


@takes_processes
@pytest.mark.parametrize(
    ("how", "jobs"),
    [(signal.SIGINT, 2), pytest.param(signal.SIGTERM, 1, marks=pytest.mark.long)],
)
def test_an_interrupted_sweep_stops_its_workers_and_keeps_every_step(
    own_home, tmp_path, monkeypatch, how, jobs
):
    litter = tmp_path / "temporary"
    litter.mkdir()
    store = archive_of(own_home)
    words = sweep_words(seeds="4", steps="100000", jobs=str(jobs))
    monkeypatch.setenv("TMPDIR", str(litter))
    with a_sweep(*words, home=own_home, store=store) as (sweep, workers):
        assert len(workers) == jobs
        sweep.send_signal(how)
        done = ended(sweep)
        assert (done.returncode, done.stdout) == (130, "")
        assert psutil.wait_procs(workers, 0)[1] == []
    assert set(statuses(store)) <= {RunStatus.STOPPED, RunStatus.QUEUED}
    stopped = [run for run in store.runs() if run.status is RunStatus.STOPPED]
    assert 1 <= len(stopped) <= jobs
    assert any(store.steps(run.id) for run in stopped)
    assert all(run.ended_at is not None for run in stopped)
    assert list(litter.iterdir()) == []
    store.close()


@pytest.mark.long
def test_a_worker_that_dies_fails_one_run_which_is_retried(own_home):
    store = archive_of(own_home)
    words = sweep_words(seeds="2", steps="60")
    with a_sweep(*words, home=own_home, store=store) as (sweep, [worker]):
        worker.send_signal(signal.SIGKILL)
        answer = answer_of(ended(sweep))
    assert answer["counts"] == {"finished": 2}
    [failed] = store.runs(archived=True)
    assert failed.status is RunStatus.FAILED
    assert failed.error == "its process ended by signal 9"
    store.close()


@pytest.mark.long
def test_runs_that_fail_are_retried_once_and_reported_and_end_no_other(own_home):
    [folder] = (own_home / "warm_starts").iterdir()
    (folder / "model.safetensors").write_bytes(b"not the weights")
    answer = answer_of(command(*sweep_words(seeds="2"), home=own_home))
    assert answer["counts"] == {"failed": 2}
    assert all("cannot be loaded: SafetensorError" in c["error"] for c in answer["cells"])
    store = archive_of(own_home)
    assert statuses(store) == [RunStatus.FAILED] * 4
    assert [run.archived for run in store.runs()].count(True) == 2
    assert len({run.pid for run in store.runs()}) == 1, "one worker took them all"
    store.close()


@takes_processes
def test_a_sweep_without_a_warm_start_says_so_and_burns_no_cell(tmp_path):
    (tmp_path / "warm_starts").write_text("a file where the folder should be")
    done = command(*sweep_words(seeds="3"), home=tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert "before it took a run" in done.stderr
    assert "File exists" in done.stderr
    store = archive_of(tmp_path)
    assert statuses(store) == [RunStatus.QUEUED] * 3
    store.close()
