"""Whole runs in queue mode: interrupted, killed, and gone on with."""

import os
import signal
import subprocess
import sys

import psutil
import pytest
from own_things import own_config, own_values
from processes import PATIENCE, PROJECT, environment, wait_until

from storage.records import RunStatus
from storage.store import Store
from trainer.launch import create_run, launch, reopen
from trainer.worker import Worker

SETTING = {"schedule": "queue", "max_staleness": 2, "checkpoint_every": 2, "steps": 40}
A_WHILE = (
    "import time\n"
    "def judge(prompts, completions, **keys):\n"
    "    time.sleep(0.1)\n"
    "    return [len(c) for c in completions]\n"
)


@pytest.fixture(autouse=True)
def this_process(monkeypatch, tmp_path):
    """Run in a home of one's own; give the process its signals back afterwards."""
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in handlers.items():
        signal.signal(each, handler)


def rollout_workers(pid):
    """Return the processes that sample: what a process was forked off that does nothing else."""
    children = psutil.Process(pid).children()
    servers = [c for c in children if "multiprocessing.forkserver" in " ".join(c.cmdline())]
    return [worker for server in servers for worker in server.children()]


def gone(process):
    return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE


@pytest.mark.long
def test_killed_learners_and_workers_leave_every_row_once(tmp_path):
    store = Store.open(str(tmp_path / "etalon.db"))
    run_id = launch(store, own_config(tmp_path, A_WHILE, **SETTING))
    wait_until(lambda: len(store.steps(run_id)) > 3)
    learner = psutil.Process(store.run(run_id).pid)
    workers = rollout_workers(learner.pid)
    assert len(workers) == 1
    learner.kill()
    wait_until(lambda: all(gone(each) for each in (learner, *workers)))
    taken = len(store.steps(run_id))
    resumed = 0

    def progress(words, step, steps):
        nonlocal resumed
        resumed += 1
        if resumed == 5:
            [worker] = rollout_workers(os.getpid())
            worker.kill()

    ended = Worker(store, reopen(store, run_id, RunStatus.RUNNING), progress).run()
    assert ended.status is RunStatus.FINISHED
    assert [row.step for row in store.steps(run_id)] == list(range(40))
    assert taken < 40
    events = store.events(run_id)
    assert [event.kind for event in events] == ["start", "resumed", "rollout_worker"]
    assert events[2].message.startswith("a rollout worker ended by signal 9 and is replaced")
    assert rollout_workers(os.getpid()) == []
    store.close()


def test_an_interrupt_from_the_terminal_ends_the_workers_with_the_learner(tmp_path):
    values = own_values(tmp_path, A_WHILE, **(SETTING | {"steps": 10_000, "rollout_workers": 1}))
    values |= {"learning_rate": 1e-3}
    words = [f"--{name.replace('_', '-')}={value}" for name, value in values.items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", "run", *words],
        cwd=PROJECT,
        env=environment(tmp_path),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    store = Store.open(str(tmp_path / "etalon.db"))
    wait_until(lambda: bool(store.runs() and store.steps(store.runs()[0].id)))
    workers = rollout_workers(process.pid)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert "Traceback" not in err
    assert len(workers) == 1
    assert gone(workers[0])
    [run] = store.runs()
    assert (run.status, run.outcome_reason) == (RunStatus.STOPPED, "interrupted")
    store.close()


def test_a_stopped_run_goes_on_where_it_was_in_the_queue(tmp_path):
    store = Store.open(str(tmp_path / "etalon.db"))
    study = {"bias_study": "0,2", "bias_shards": 16, "bias_prompts": 2}
    run = create_run(store, own_config(tmp_path, **(SETTING | study | {"steps": 8})))

    def stop(words, step, steps):
        if step == 3:
            os.kill(os.getpid(), signal.SIGTERM)

    assert Worker(store, run, stop).run().status is RunStatus.STOPPED
    again = reopen(store, run.id, RunStatus.RUNNING)
    ended = Worker(store, again, lambda *_: None).run()
    assert ended.status is RunStatus.FINISHED
    rows = store.steps(run.id)
    assert [row.step for row in rows] == list(range(8))
    assert rows[3].staleness_max == 0  # sampled anew, from the weights that it goes on from
    assert max(row.staleness_max for row in rows) <= 2
    assert {probe.staleness for probe in store.bias_probes(run.id)} == {0, 2}
    store.close()
