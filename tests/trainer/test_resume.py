"""A run that was stopped, killed or failed goes on as if nothing had happened."""

import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
from dataclasses import asdict, replace

import psutil
import pytest
from factories import a_config, a_run, a_step
from processes import command, ended, start, wait_until

from storage.commandline import BadInput
from storage.engine import checkpoint_folder
from storage.liveness import is_lost
from storage.records import RunStatus
from storage.store import Store
from trainer.checkpoint import Checkpoints, NoCheckpoint
from trainer.launch import create_run, launch, reopen, resume
from trainer.worker import Worker

TIMES = ("run_id", "time", "seconds", "seconds_generate", "seconds_learn", "seconds_measure")
STEPS = 12
SETTING = {
    "steps": STEPS,
    "prompts": 4,
    "group_size": 4,
    "evaluate_every": 5,
    "evaluation_rollouts": 16,
    "bias_every": 1,
}
takes_processes = pytest.mark.slow  # each imports torch


@pytest.fixture(autouse=True)
def this_process(monkeypatch, own_home):
    """Run in this process, in a home of one's own; give the process its signals back afterwards."""
    monkeypatch.setenv("ETALON_HOME", str(own_home))
    handlers = {each: signal.getsignal(each) for each in (signal.SIGTERM, signal.SIGINT)}
    yield
    for each, handler in handlers.items():
        signal.signal(each, handler)


def ignore(words, step, steps):
    pass


def at(step, act):
    """Do something after so many learner steps."""

    def progress(words, done, steps):
        if done == step:
            act()

    return progress


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def interrupt():
    os.kill(os.getpid(), signal.SIGINT)


def facts(store, run_id):
    """Everything a run wrote but its id, its times, and the samples of where it was stopped."""
    rows = [
        *store.steps(run_id),
        *store.evaluations(run_id),
        *store.drifts(run_id),
        *store.bias_probes(run_id),
        *(row for row in store.samples(run_id) if row.step in (0, STEPS - 1)),
    ]
    return [repr({k: v for k, v in asdict(row).items() if k not in TIMES}) for row in rows]


def ends(run):
    names = ("status", "outcome", "outcome_reason", "reward_first", "reward_last", "reward_best")
    return [getattr(run, name) for name in (*names, "reward_final", "error", "stop_requested")]


@pytest.fixture
def undisturbed(store):
    return Worker(store, create_run(store, a_config(**SETTING)), ignore).run()


def stopped(store, step=7, **changes):
    """Make a run that was stopped after so many learner steps."""
    run = create_run(store, a_config(**SETTING, **changes))
    return Worker(store, run, at(step, terminate)).run()


def go_on(store, run_id, steps=None):
    return Worker(store, reopen(store, run_id, RunStatus.RUNNING, steps), ignore).run()


def test_a_stopped_run_goes_on_as_if_nothing_had_happened(store, undisturbed):
    run = stopped(store)
    assert (run.status, len(store.steps(run.id))) == (RunStatus.STOPPED, 7)
    resumed = go_on(store, run.id)
    assert facts(store, run.id) == facts(store, undisturbed.id)
    assert ends(resumed) == ends(undisturbed)
    assert resumed.started_at == run.started_at
    kinds = [event.kind for event in store.events(run.id)]
    assert kinds == ["start", "checkpoint", "resumed"]
    last = store.events(run.id)[-1]
    assert (last.step, last.data) == (7, {"steps_forgotten": 0})


def test_an_interrupted_run_ends_after_its_present_step_and_goes_on(store, undisturbed):
    run = create_run(store, a_config(**SETTING))
    with pytest.raises(KeyboardInterrupt):
        Worker(store, run, at(4, interrupt)).run()
    assert store.run(run.id).outcome_reason == "interrupted"
    assert [row.step for row in store.steps(run.id)] == [0, 1, 2, 3]
    assert Checkpoints(checkpoint_folder(run.id)).steps() == [4]
    go_on(store, run.id)
    assert facts(store, run.id) == facts(store, undisturbed.id)


def test_a_second_interrupt_does_not_wait(store):
    run = create_run(store, a_config(**SETTING))

    def twice():
        interrupt()
        interrupt()

    with pytest.raises(KeyboardInterrupt):
        Worker(store, run, at(2, twice)).run()
    assert Checkpoints(checkpoint_folder(run.id)).steps() == [0]


def test_a_failed_run_goes_on_from_its_last_checkpoint(store, undisturbed):
    def fail():
        raise ZeroDivisionError("on purpose")

    run = create_run(store, a_config(**SETTING, checkpoint_every=4))
    with pytest.raises(ZeroDivisionError):
        Worker(store, run, at(10, fail)).run()
    resumed = go_on(store, run.id)
    assert facts(store, run.id) == facts(store, undisturbed.id)
    assert ends(resumed) == ends(undisturbed)
    last = store.events(run.id)[-1]
    assert (last.kind, last.step, last.data) == ("resumed", 8, {"steps_forgotten": 2})


def test_a_longer_horizon_is_the_run_that_was_planned_so_from_the_start(store):
    longer = a_config(**(SETTING | {"steps": STEPS + 3}))
    straight = Worker(store, create_run(store, longer), ignore).run()
    run = stopped(store)
    resumed = go_on(store, run.id, STEPS + 3)
    assert resumed.config["steps"] == STEPS + 3
    assert store.steps(run.id)[-1].step == STEPS + 2
    assert [r.loss for r in store.steps(run.id)] == [r.loss for r in store.steps(straight.id)]


def test_a_run_leaves_checkpoints_only_when_it_can_go_on(store, undisturbed):
    assert not checkpoint_folder(undisturbed.id).exists()
    run = stopped(store, checkpoint_every=2)
    assert Checkpoints(checkpoint_folder(run.id)).steps() == [7]
    go_on(store, run.id)
    assert not checkpoint_folder(run.id).exists()


def test_a_damaged_checkpoint_is_told_and_the_one_before_it_used(store, undisturbed):
    run = create_run(store, a_config(**SETTING, checkpoint_every=4))
    kept = checkpoint_folder(run.id)
    copy = kept.with_name("copy")
    with pytest.raises(KeyboardInterrupt):
        Worker(store, run, at(8, lambda: (shutil.copytree(kept, copy), interrupt()))).run()
    shutil.copytree(copy / "4", kept / "4")
    (kept / "8" / "tensors.safetensors").write_bytes(b"half")
    go_on(store, run.id)
    assert facts(store, run.id) == facts(store, undisturbed.id)
    damage, again = store.events(run.id)[-2:]
    assert (damage.kind, damage.level) == ("checkpoint", "warning")
    assert "step 8 is damaged" in damage.message
    assert (again.kind, again.step) == ("resumed", 4)


def test_a_checkpoint_ahead_of_an_archive_that_lost_rows_is_not_used(store, undisturbed):
    run = create_run(store, a_config(**SETTING, checkpoint_every=4))
    kept = checkpoint_folder(run.id)
    copy = kept.with_name("copy")
    with pytest.raises(KeyboardInterrupt):
        Worker(store, run, at(8, lambda: (shutil.copytree(kept, copy), interrupt()))).run()
    shutil.copytree(copy / "4", kept / "4")
    store.delete_steps_after(run.id, 5)  # such as after a power cut
    go_on(store, run.id)
    assert facts(store, run.id) == facts(store, undisturbed.id)
    assert "the archive holds the rows of 6 steps only" in store.events(run.id)[-2].message


def test_a_run_whose_checkpoints_are_all_damaged_fails_and_says_so(store):
    run = stopped(store)
    (checkpoint_folder(run.id) / "7" / "state.json").write_text("")
    with pytest.raises(NoCheckpoint, match="step 7 is damaged"):
        go_on(store, run.id)
    assert store.run(run.id).status is RunStatus.FAILED
    assert len(store.steps(run.id)) == 7


def test_a_checkpoint_that_cannot_be_written_ends_no_run(store):
    run = create_run(store, a_config(**SETTING))
    checkpoint_folder(run.id).parent.mkdir()
    checkpoint_folder(run.id).write_text("in the way")
    assert Worker(store, run, ignore).run().status is RunStatus.FINISHED
    warning = store.events(run.id)[1]
    assert (warning.kind, warning.level) == ("checkpoint", "warning")
    assert "could not be written" in warning.message


# -- who may resume ---------------------------------------------------------------------------


def running_in(process, **changes):
    return a_run(
        status=RunStatus.RUNNING,
        host=socket.gethostname(),
        pid=process.pid,
        pid_started=process.create_time(),
        **changes,
    )


def refused(store, run, words, steps=None):
    store.create_run(run)
    with pytest.raises(BadInput, match=words) as error:
        reopen(store, run.id, RunStatus.RUNNING, steps)
    assert "\n" not in str(error.value)
    assert store.run(run.id) == run


@pytest.mark.parametrize("status", [RunStatus.FINISHED, RunStatus.COLLAPSED, RunStatus.DIVERGED])
def test_a_run_that_came_to_its_end_is_not_resumed(store, status):
    refused(store, a_run(status=status), f"has come to its end, {status}; allowed: a run that was")


def test_a_run_that_lives_or_waits_is_not_resumed(store):
    refused(store, running_in(psutil.Process()), "is running; allowed")
    refused(store, a_run(id="waits"), "is queued; allowed")


@pytest.mark.parametrize("ago", [400, 200, -86_400])
def test_a_run_on_another_host_is_never_taken_from_it_because_of_what_clocks_say(store, ago):
    run = replace(running_in(psutil.Process()), host="elsewhere", heartbeat_at=time.time() - ago)
    refused(store, run, "is running on elsewhere; allowed")


def test_a_process_that_took_over_the_number_of_a_dead_one_is_not_taken_for_it(store):
    run = running_in(psutil.Process())
    store.create_run(replace(run, pid_started=run.pid_started - 3600))
    assert reopen(store, run.id, RunStatus.RUNNING).pid_started == run.pid_started


def test_what_has_no_checkpoint_or_is_none_of_ours_is_refused(store):
    refused(store, a_run(status="stopped", archived=True), "is archived")
    refused(store, a_run(id="b", status="stopped", kind="imported"), "was imported")
    run = a_run(id="c", status=RunStatus.STOPPED)
    store.create_run(run)
    store.append_step(a_step(run.id, 0))
    with pytest.raises(BadInput, match=r"has no checkpoint in .*c; start it again"):
        reopen(store, run.id, RunStatus.RUNNING)


@pytest.mark.parametrize(
    ("changes", "steps", "words"),
    [
        ({}, "299", "steps: 299 is below the 300 that were planned"),
        ({}, "many", "steps: 'many' is not allowed"),
        ({"ramp_from": 1e-5}, 301, "steps: 301 is not allowed with ramp_from"),
        ({"bias_study": "0,1"}, 301, "steps: 301 is not allowed with bias_study"),
    ],
)
def test_a_horizon_that_does_not_fit_is_refused(store, changes, steps, words):
    refused(store, a_run(a_config(**changes), status=RunStatus.STOPPED), words, steps)


def test_of_two_that_read_the_same_run_one_gets_it(store):
    run = a_run(status=RunStatus.STOPPED)
    store.create_run(run)
    assert store.reclaim_run(run, status=RunStatus.QUEUED)
    assert not store.reclaim_run(run, status=RunStatus.QUEUED)
    lost = replace(running_in(psutil.Process()), id="lost", heartbeat_count=3)
    store.create_run(lost)
    assert store.reclaim_run(lost, status=RunStatus.RUNNING, pid=1)
    assert not store.reclaim_run(lost, status=RunStatus.RUNNING, pid=2)
    assert store.run("lost").pid == 1


# -- real processes ---------------------------------------------------------------------------

WORDS = [f"--{name.replace('_', '-')}={value}" for name, value in SETTING.items()]
FIRM = ["--learning-rate=2e-4", "--max-staleness=3", "--checkpoint-every=1", "--steps=60", *WORDS]
FIRM.remove(f"--steps={STEPS}")


def in_home(home):
    return Store.open(str(home / "etalon.db"))


@pytest.mark.long
def test_a_run_that_is_killed_again_and_again_ends_as_if_it_had_not_been(own_home):
    assert command("-m", "trainer", "run", *FIRM, home=own_home).returncode == 0
    store = in_home(own_home)
    chance = random.Random(0)
    try:
        [straight] = store.runs()
        process = start("-m", "trainer", "run", *FIRM, home=own_home)
        wait_until(lambda: len(store.runs()) == 2)
        run_id = store.runs()[0].id
        for _ in range(2):  # benchmarks/kills.py has a long form
            before = len(store.events(run_id)), len(store.steps(run_id))
            wait_until(
                lambda before=before: (
                    len(store.events(run_id)) > before[0] and store.steps(run_id, last=1)
                )
            )
            time.sleep(chance.uniform(0, 0.4))
            process.kill()
            ended(process)
            process = start("-m", "trainer", "resume", run_id, "--json", home=own_home)
        assert ended(process).returncode == 0
        assert facts(store, run_id) == facts(store, straight.id)
        assert ends(store.run(run_id)) == ends(straight)
        assert not (own_home / "checkpoints" / run_id).exists()
    finally:
        store.close()


@pytest.mark.long
def test_of_two_who_resume_at_once_one_wins(own_home):
    store = in_home(own_home)
    try:
        run = stopped(store)
        both = [start("-m", "trainer", "resume", run.id, home=own_home) for _ in range(2)]
        codes = sorted((done.returncode, done.stderr) for done in map(ended, both))
        assert [code for code, _ in codes] == [0, 2]
        assert codes[1][1].strip().splitlines()[-1].startswith(f"run: {run.id} ")
        assert len(store.steps(run.id)) == STEPS
    finally:
        store.close()


@pytest.mark.long  # tests/faults kills and resumes; a journey in the browser resumes detached
def test_a_lost_run_goes_on_detached(own_home):
    store = in_home(own_home)
    try:
        run_id = launch(store, a_config(**(SETTING | {"steps": 100_000})))
        wait_until(lambda: len(store.steps(run_id)) > 3)
        process = psutil.Process(store.run(run_id).pid)
        process.kill()
        wait_until(lambda: not process.is_running() or process.status() == psutil.STATUS_ZOMBIE)
        resume(store, run_id)
        wait_until(lambda: "resumed" in [event.kind for event in store.events(run_id)])
        store.update_run(run_id, stop_requested=True)
        wait_until(lambda: not store.run(run_id).status.alive)
        assert store.run(run_id).status is RunStatus.STOPPED
    finally:
        store.close()


FAR_AWAY = """
import socket, sys, time
now = time.time
socket.gethostname, time.time = lambda: "far away", lambda: now() - 400
from trainer.__main__ import main
main(sys.argv[1:])
"""


@pytest.mark.long
def test_a_run_of_another_host_whose_clock_is_behind_is_taken_over_only_when_it_is_dead(own_home):
    store = in_home(own_home)
    words = [word for word in FIRM if word != "--steps=60"] + ["--steps=100000"]
    process = start("-c", FAR_AWAY, "run", *words, home=own_home)
    try:
        wait_until(lambda: any(len(store.steps(run.id)) > 3 for run in store.runs()), 120)
        [run] = store.runs()
        assert is_lost(run), "by the clocks"
        again = ("-m", "trainer", "resume", run.id, "--detach")
        alive = command(*again, home=own_home)
        assert (alive.returncode, alive.stdout) == (2, "")
        assert "on far away, where it gave a sign of life just now" in alive.stderr
        os.kill(process.pid, signal.SIGSTOP)
        taken = command(*again, home=own_home)
        assert (taken.returncode, taken.stdout) == (0, f"{run.id} goes on\n")
        assert "was silent for long on far away; watching 30 s more" in taken.stderr
        wait_until(lambda: "resumed" in [event.kind for event in store.events(run.id)], 120)
        os.kill(process.pid, signal.SIGCONT)
        here = store.run(run.id)
        assert here.host == socket.gethostname()
        assert f"is carried out by process {here.pid} on {here.host} now" in ended(process).stderr
        store.update_run(run.id, stop_requested=True)
        wait_until(lambda: not store.run(run.id).status.alive)
        assert [row.step for row in store.steps(run.id)] == list(range(len(store.steps(run.id))))
    finally:
        process.kill()
        store.close()


@takes_processes
def test_the_command_answers_as_run_does_and_refuses_with_exit_code_2(own_home):
    store = in_home(own_home)
    run = stopped(store)
    store.close()
    words = [sys.executable, "-m", "trainer", "resume", run.id, "--json"]
    again = command(*words[1:], home=own_home)
    assert again.returncode == 0
    assert f'"run_id": "{run.id}", "status": "finished"' in again.stdout
    assert f'"steps": {STEPS}' in again.stdout
    refusal: subprocess.CompletedProcess[str] = command(*words[1:], "--detach", home=own_home)
    assert (refusal.returncode, refusal.stdout) == (2, "")
    assert refusal.stderr.strip() == (
        f"run: {run.id} has come to its end, finished; allowed: a run that was stopped, failed, or "
        "whose process is gone"
    )
