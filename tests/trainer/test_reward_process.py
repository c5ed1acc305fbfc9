"""A reward function that hangs, crashes or prints harms nobody but its own process."""

import contextlib
import gc
import sys

import psutil
import pytest
from own_things import LENGTH, own_config, own_values
from processes import wait_until

from storage.commandline import run_command
from storage.records import RunStatus
from trainer import reward_process
from trainer.__main__ import main
from trainer.judging import RewardFailed
from trainer.launch import create_run
from trainer.own_files import Prompt
from trainer.reward_process import RewardProcess
from trainer.worker import Worker

SIGNATURE = "def judge(prompts, completions):\n"
HANGS = {
    "in Python, catching everything": """
    while True:
        try:
            time.sleep(60)
        except BaseException:
            pass
""",
    "in C, without a look at signals": "    return max(itertools.repeat(1))\n",
    "deaf to every signal that can be ignored": """
    for each in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:
        if each not in (signal.SIGCHLD, 32, 33):
            signal.signal(each, signal.SIG_IGN)
    while True:
        pass
""",
}


def ignore(*words):
    pass


def a_reward(folder, body, *, seconds=1.0, first=""):
    file = folder / "own_reward.py"
    file.write_text(f"import itertools, os, signal, sys, time\n{first}\n{SIGNATURE}{body}")
    return RewardProcess(f"{file}:judge", seconds=seconds, threads=1)


LEFT: set[int] = set()


@pytest.fixture(autouse=True)
def _left_by_other_tests():
    """Remember what tests before this one have left in this process."""
    LEFT.clear()
    LEFT.update(each.pid for each in children())


def children():
    """Return the processes of rewards that the test itself has started."""
    found = []
    for each in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):
            if each.pid not in LEFT and any("reward_process" in w for w in each.cmdline()):
                found.append(each)
    return found


@pytest.mark.parametrize("how", HANGS)
def test_a_reward_that_hangs_is_ended_whatever_it_does(tmp_path, how):
    with pytest.raises(RewardFailed) as found:
        a_reward(tmp_path, HANGS[how])(["1+1="], ["2"])
    assert str(found.value) == (
        "the reward of 1 completions took longer than 1 s, and was ended; "
        "make it faster, or allow more than 1 by reward_timeout"
    )
    assert children() == []


def test_what_a_reward_started_is_ended_with_it(tmp_path):
    body = """
    other = subprocess.Popen(["sleep", "600"])
    open(__file__ + ".pid", "w").write(str(other.pid))
    other.wait()
"""
    with pytest.raises(RewardFailed, match="took longer than"):
        a_reward(tmp_path, body, seconds=3.0, first="import subprocess")(["1+1="], ["2"])
    other = int((tmp_path / "own_reward.py.pid").read_text())
    wait_until(lambda: is_gone(other))


def is_gone(pid):
    """Whether a process is only waiting to be buried by whoever adopted it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    return True


def test_a_reward_that_hangs_while_it_is_imported_is_ended(tmp_path, monkeypatch):
    monkeypatch.setattr(reward_process, "LEAST_TO_BEGIN", 1.0)
    with pytest.raises(RewardFailed, match="importing the reward took longer than 1 s"):
        a_reward(tmp_path, "    return [1.0]\n", first="time.sleep(60)")(["1+1="], ["2"])
    assert children() == []


@pytest.mark.parametrize(
    ("body", "how"),
    [("os._exit(7)", "with exit code 7"), ("os.kill(os.getpid(), 11)", "by signal 11")],
)
def test_a_reward_whose_process_dies_says_how(tmp_path, body, how):
    judge = a_reward(tmp_path, f"    {body}\n", seconds=60)
    with pytest.raises(
        RewardFailed, match=f"^the reward of 1 completions: its process ended {how}"
    ):
        judge(["1+1="], ["2"])


def test_a_reward_may_use_the_alarm_signal_and_keep_what_it_loaded(tmp_path):
    body = """
    signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    signal.pause()
    loaded.append(len(completions))
    return [sum(loaded)] * len(completions)
"""
    judge = a_reward(tmp_path, body, seconds=60, first="loaded = []")
    assert judge(["1+1=", "1+2="], ["2", "3"]) == [2.0, 2.0]
    assert judge(["1+1="], ["2"]) == [3.0]


def test_the_process_of_a_reward_goes_with_whoever_uses_it(tmp_path):
    judge = a_reward(tmp_path, "    return [1.0]\n", seconds=60)
    assert judge(["1+1="], ["2"]) == [1.0]
    assert len(children()) == 1
    del judge
    gc.collect()
    assert children() == []


def test_a_run_that_fails_takes_the_process_of_its_reward_along(tmp_path, monkeypatch, capsys):
    """Without waiting for the garbage collector: the same process may carry out other runs."""
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    monkeypatch.delenv("ETALON_DB", raising=False)
    values = own_values(tmp_path, f"{SIGNATURE}    return None\n")
    named = ("workload", "model", "prompts_file", "reward", "steps")
    options = [w for n in named for w in (f"--{n.replace('_', '-')}", str(values[n]))]
    gc.disable()
    try:
        words = ["run", "--learning-rate", "1e-4", "--max-staleness", "0", *options]
        assert run_command(main, words) == 1
        assert children() == []
    finally:
        gc.enable()
    assert "the reward returned None" in capsys.readouterr().err


def test_a_reward_loads_no_torch_and_gets_the_other_keys(tmp_path):
    file = tmp_path / "own_reward.py"
    file.write_text(
        "import sys\ndef judge(prompts, completions, answer):\n"
        "    return [('torch' in sys.modules) + 10 * (a == 'x') for a in answer]\n"
    )
    judge = RewardProcess(f"{file}:judge", seconds=60, threads=1)
    assert "torch" in sys.modules
    assert judge([Prompt("1+1=", {"answer": "x"}), "2+2="], ["2", "4"]) == [10.0, 0.0]


def test_what_a_reward_prints_goes_to_standard_error(tmp_path, capfd):
    assert a_reward(tmp_path, "    print('seen'); return [1.0]\n", seconds=60)([""], [""]) == [1.0]
    out, err = capfd.readouterr()
    assert (out, err) == ("", "seen\n")


@pytest.mark.parametrize(
    "changes",
    [
        {},
        pytest.param({"schedule": "queue", "steps": 200}, marks=pytest.mark.long),
    ],
)
def test_a_run_whose_reward_hangs_later_fails_with_every_step_kept(
    store, tmp_path, monkeypatch, changes
):
    """The start takes one call; of the learner's steps, or of a rollout worker's, the third hangs.

    With a queue the start is judged in the learner's process and batches in the worker's.
    """
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    last = 3 if changes else 4
    counting = f"    judge.n = getattr(judge, 'n', 0) + 1\n    while judge.n == {last}: pass\n"
    body = LENGTH.replace("    return", f"{counting}    return")
    config = own_config(tmp_path, body, reward_timeout=2, **changes)
    run = create_run(store, config)
    with pytest.raises(RewardFailed):
        Worker(store, run, ignore).run()
    run = store.run(run.id)
    assert run.status is RunStatus.FAILED
    assert run.outcome_reason == (
        "RewardFailed: the reward of 16 completions took longer than 2 s, and was "
        "ended; make it faster, or allow more than 2 by reward_timeout"
    )
    assert [row.step for row in store.steps(run.id)] == [0, 1]
    assert run.reward_last is not None
