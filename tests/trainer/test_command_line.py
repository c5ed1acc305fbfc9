"""``python -m trainer`` as a person meets it: real processes, real archives, exit codes."""

import json
import math
import os
import signal
import socket
import sqlite3
import sys
from contextlib import closing

import psutil
import pytest
from outcome_oracle import stored_collapse
from processes import PROJECT, command, ended, start, wait_until

from storage.commandline import run_command
from storage.liveness import PulseReader
from storage.records import RunStatus
from storage.store import Store
from trainer.__main__ import main

SETTING = ["--workload", "arithmetic", "--learning-rate", "2e-4", "--max-staleness", "3"]
ENDLESS = [*SETTING, "--steps", "1000000"]
TIMES = ("run_id", "time", "seconds_generate", "seconds_learn", "seconds_measure", "seconds_wait")

takes_a_process = pytest.mark.slow  # a process that imports torch needs 4 s before its first step


def the_object(text):
    """Return the one JSON object of a standard output that holds nothing else."""
    [line] = text.splitlines()
    answer = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert isinstance(answer, dict)
    return answer


def ask(path, query, *values):
    with closing(sqlite3.connect(path)) as db:
        db.row_factory = sqlite3.Row
        return [dict(row) for row in db.execute(query, values)]


def step_rows(path, run_id):
    """Return the step rows of a run without its id, times and timings."""
    rows = ask(path, "SELECT * FROM steps WHERE run_id = ? ORDER BY step", run_id)
    return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]


def the_run(path):
    [run] = ask(path, "SELECT * FROM runs")
    return run


def steps_committed(path):
    """Count the step rows of an archive that another process may still be making."""
    if not path.exists() or not ask(path, "SELECT * FROM sqlite_master WHERE name = 'steps'"):
        return 0
    return ask(path, "SELECT count(*) AS n FROM steps")[0]["n"]


def nothing_is_missing_without_a_reason(answer):
    for name, value in answer.items():
        assert value is not None or answer.get(f"{name}_reason"), f"{name} is null without a reason"


# -- the two runs that the project promises ---------------------------------------------------


def test_a_gentle_run_finishes_learns_and_prints_one_object(archive_with_two_runs):
    assert archive_with_two_runs.finished_returncode == 0
    answer = the_object(archive_with_two_runs.finished_output)
    assert answer["status"] == "finished"
    assert answer["steps"] == 300
    assert answer["reward_last"] > answer["reward_first"]
    assert answer["collapse_step"] is None
    nothing_is_missing_without_a_reason(answer)


def test_a_rough_run_collapses_with_exit_code_1(archive_with_two_runs):
    assert archive_with_two_runs.collapsed_returncode == 1
    answer = the_object(archive_with_two_runs.collapsed_output)
    assert answer["status"] == answer["outcome"] == "collapsed"
    nothing_is_missing_without_a_reason(answer)


def test_the_collapse_step_agrees_with_one_recomputed_from_the_stored_rows(archive_with_two_runs):
    path = archive_with_two_runs.home / "etalon.db"
    found = stored_collapse(path, archive_with_two_runs.collapsed_id)
    answer = archive_with_two_runs.collapsed_result
    assert answer["collapse_step"] == found.version
    assert stored_collapse(path, archive_with_two_runs.finished_id) is None
    # A run may be stopped 100 batches after onset: onset is one batch, 100 more follow.
    assert answer["steps"] == found.batch + 101


def test_the_rewards_of_the_answer_are_those_of_the_stored_rows(archive_with_two_runs):
    path = archive_with_two_runs.home / "etalon.db"
    for answer in (archive_with_two_runs.finished_result, archive_with_two_runs.collapsed_result):
        rewards = [row["reward_mean"] for row in step_rows(path, answer["run_id"])]
        assert answer["steps"] == len(rewards)
        assert answer["reward_first"] == pytest.approx(math.fsum(rewards[:20]) / 20)
        assert answer["reward_last"] == pytest.approx(math.fsum(rewards[-20:]) / 20)
        query = "SELECT * FROM evaluations WHERE run_id = ? ORDER BY step"
        evaluations = ask(path, query, answer["run_id"])
        last = evaluations[-1]
        assert (last["step"], last["rollouts"]) == (len(rewards), 1024)
        assert answer["reward_final"] == last["reward"]
        # max(25, S+1) = 25: every 25 steps, from the start to the end.
        assert [row["step"] for row in evaluations[:-1]] == list(range(0, len(rewards), 25))


# -- bad input --------------------------------------------------------------------------------

GOOD = {"--learning-rate": "2e-4", "--max-staleness": "3", "--steps": "5"}


def refused(capsys, *words):
    """Run a command that must be refused; return its one line."""
    assert run_command(main, words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    return line


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--learning-rate", "nan", "learning_rate: 'nan' …: 0 < learning_rate <= 10"),
        ("--learning-rate", "-1e-4", "learning_rate: '-1e-4' …: 0 < learning_rate <= 10"),
        ("--max-staleness", "-1", "max_staleness: '-1' …: whole number, 0 <= max_staleness"),
        ("--steps", "0", "steps: '0' …: whole number, 1 <= steps"),
        ("--workload", "nosuch", "workload: 'nosuch' …: arithmetic"),
        ("--group-size", "1", "group_size: '1' …: whole number, 2 <= group_size"),
        ("--clip-epsilon", "1", "clip_epsilon: '1' …: 0 < clip_epsilon < 1"),
        ("--device", "gpu", "device: 'gpu' …: auto | cpu | mps | cuda | cuda:N"),
    ],
)
def test_a_value_out_of_range_is_refused_in_one_line_and_leaves_nothing(
    option, value, words, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ETALON_DB", raising=False)
    given = [word for pair in (GOOD | {option: value}).items() for word in pair]
    line = refused(capsys, "run", *given, "--json")
    start_of_line, allowed = words.split(" …")
    assert line.startswith(f"{start_of_line} is not allowed; allowed{allowed}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (
            ["run", "--learnin-rate", "1"],
            "--learnin-rate: unknown argument; did you mean --learning-rate?",
        ),
        (["run", "--steps"], "argument --steps: expected one argument"),
        (["rum"], "argument run|"),
        ([], "the following arguments are required: run|"),
        (["stop"], "the following arguments are required: run"),
        (["stop", "20260101-000000-abcdef"], "db: there is no archive at"),
    ],
)
def test_a_mistyped_command_is_refused_in_one_line_and_leaves_nothing(
    words, line, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("ETALON_DB", raising=False)
    assert refused(capsys, *words).startswith(line)
    assert list(tmp_path.iterdir()) == []


def test_every_fault_has_a_line_of_its_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "home"))
    assert run_command(main, ["run", "--steps", "0", "--seed", "x", "--max-staleness", "1"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    names = [line.split(":")[0] for line in err.splitlines()]
    assert names == ["learning_rate", "steps", "seed"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["nowhere/a.db", "a file/a.db", ".", "/proc/a.db"])
def test_an_archive_that_cannot_be_written_is_refused_and_nothing_is_left(
    place, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "home"))
    (tmp_path / "a file").touch()
    line = refused(capsys, "run", *SETTING, "--steps", "5", "--db", str(tmp_path / place))
    assert line.startswith("db: ")
    assert [path.name for path in tmp_path.rglob("*")] == ["a file"]


def test_a_process_refuses_bad_input_with_exit_code_2_and_an_empty_standard_output(tmp_path):
    done = command("-m", "trainer", "run", *SETTING, "--steps", "0", "--json", home=tmp_path / "h")
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("steps: '0' is not allowed; allowed: whole number, 1 <= steps")
    assert list(tmp_path.iterdir()) == []


def test_stopping_an_unknown_run_names_the_nearest(tmp_path, monkeypatch, capsys, store):
    line = refused(capsys, "stop", "20260101-000000-abcdef", "--db", store.url)
    assert line == "run: '20260101-000000-abcdef' is not in the archive; it holds 0 runs"


# -- runs that somebody or something ends -----------------------------------------------------


def test_a_run_interrupted_while_its_code_loads_leaves_no_queued_run(store, monkeypatch, capsys):
    class InterruptedLoading:
        def find_spec(self, name, *_):
            if name == "trainer.worker":
                raise KeyboardInterrupt

    monkeypatch.delitem(sys.modules, "trainer.worker", raising=False)
    monkeypatch.setattr(sys, "meta_path", [InterruptedLoading(), *sys.meta_path])
    assert run_command(main, ["run", *ENDLESS, "--db", store.url]) == 130
    assert capsys.readouterr().out == ""
    assert store.runs() == []


@pytest.fixture
def interruptible():
    """Let children hear SIGINT even where these tests run in the background of a shell."""
    handler = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, handler)


@takes_a_process
@pytest.mark.usefixtures("interruptible")
def test_an_interrupted_run_exits_130_and_keeps_its_rows_which_the_seed_decides(
    own_home, archive_with_two_runs
):
    path = own_home / "etalon.db"
    running = start("-m", "trainer", "run", *ENDLESS, "--json", home=own_home)
    wait_until(lambda: steps_committed(path) >= 12)
    running.send_signal(signal.SIGINT)
    done = ended(running)
    assert (done.returncode, done.stdout) == (130, "")
    assert done.stderr.splitlines()[-1] == "interrupted; everything up to the last step is kept"
    run = the_run(path)
    assert (run["status"], run["outcome_reason"]) == ("stopped", "interrupted")
    assert run["ended_at"] >= run["started_at"]
    rows = step_rows(path, run["id"])
    assert [row["step"] for row in rows] == list(range(len(rows)))
    # Another process, same seed and threads: the same numbers to the last bit.
    other = archive_with_two_runs
    twins = step_rows(other.home / "etalon.db", other.finished_id)[: len(rows)]
    assert rows[: len(twins)] == twins
    assert len(twins) >= 12


@takes_a_process
def test_a_run_that_is_stopped_ends_with_exit_code_0_and_every_step(own_home, capsys):
    path = own_home / "etalon.db"
    running = start("-m", "trainer", "run", *ENDLESS, "--json", home=own_home)
    wait_until(lambda: steps_committed(path) >= 3)
    run_id = the_run(path)["id"]
    assert run_command(main, ["stop", run_id, "--db", str(path), "--json"]) == 0
    assert the_object(capsys.readouterr().out) == {"run_id": run_id, "status": "running"}
    done = ended(running)
    assert done.returncode == 0
    answer = the_object(done.stdout)
    assert (answer["run_id"], answer["status"]) == (run_id, "stopped")
    nothing_is_missing_without_a_reason(answer)
    assert [row["step"] for row in step_rows(path, run_id)] == list(range(answer["steps"]))
    assert answer["steps"] >= 3
    assert answer["reward_final"] is not None
    # Stopping it again changes nothing.
    before = the_run(path)
    assert run_command(main, ["stop", run_id, "--db", str(path), "--json"]) == 0
    assert the_object(capsys.readouterr().out) == {"run_id": run_id, "status": "stopped"}
    assert the_run(path) == before


@takes_a_process
def test_a_detached_run_goes_on_without_its_starter_until_it_is_stopped(own_home):
    path = own_home / "etalon.db"
    began = start("-m", "trainer", "run", *ENDLESS, "--detach", "--json", home=own_home)
    done = ended(began)  # the run itself would take hours
    assert done.returncode == 0
    answer = the_object(done.stdout)
    assert answer.keys() == {"run_id"}
    run = the_run(path)
    assert run["id"] == answer["run_id"]
    process = psutil.Process(run["pid"])
    try:
        assert os.getsid(process.pid) == process.pid  # a closed terminal does not end it
        wait_until(lambda: steps_committed(path) >= 3)
        assert the_run(path)["status"] == "running"
        asked = command("-m", "trainer", "stop", run["id"], home=own_home)
        assert asked.returncode == 0
        wait_until(lambda: the_run(path)["status"] != "running")
        assert the_run(path)["status"] == "stopped"
        rows = step_rows(path, run["id"])
        assert [row["step"] for row in rows] == list(range(len(rows)))
    finally:
        if process.is_running():
            process.kill()


@takes_a_process
def test_a_killed_run_leaves_its_committed_rows_and_reads_as_lost(own_home):
    path = own_home / "etalon.db"
    running = start("-m", "trainer", "run", *ENDLESS, home=own_home)
    wait_until(lambda: steps_committed(path) >= 3)
    seen = step_rows(path, the_run(path)["id"])
    running.kill()
    zombie = psutil.Process(running.pid)
    wait_until(lambda: zombie.status() == psutil.STATUS_ZOMBIE)
    store = Store.open(str(path))
    try:
        run = store.run(the_run(path)["id"])
        assert (run.status, run.host) == (RunStatus.RUNNING, socket.gethostname())
        now = {"monotonic": 1000.0}
        fresh = PulseReader(lambda: now["monotonic"], lambda: run.heartbeat_at + 1)
        assert fresh.status(run) is RunStatus.RUNNING  # it showed life a second ago
        now["monotonic"] += 28.9
        assert fresh.status(run) is RunStatus.RUNNING
        now["monotonic"] += 0.2
        assert fresh.status(run) is RunStatus.LOST
        late = PulseReader(lambda: 5.0, lambda: run.heartbeat_at + 31)
        assert late.status(run) is RunStatus.LOST  # at first sight: it is a zombie, and long silent
        ended(running)
        assert late.status(run) is RunStatus.LOST
        assert store.run(run.id).status is RunStatus.RUNNING  # derived on reading, never written
    finally:
        store.close()
    rows = step_rows(path, run.id)
    assert rows[: len(seen)] == seen
    assert [row["step"] for row in rows] == list(range(len(rows)))
    assert ask(path, "PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_a_failing_run_exits_1_and_keeps_its_traceback(own_home, monkeypatch, capsys):
    monkeypatch.setenv("ETALON_HOME", str(own_home))
    monkeypatch.delenv("ETALON_DB", raising=False)
    for weights in own_home.glob("warm_starts/*/model.safetensors"):
        weights.write_bytes(weights.read_bytes()[:1000])
    assert run_command(main, ["run", *SETTING, "--steps", "5", "--json"]) == 1
    out, err = capsys.readouterr()
    answer = the_object(out)
    assert (answer["status"], answer["steps"]) == ("failed", 0)
    nothing_is_missing_without_a_reason(answer)
    assert answer["outcome_reason"] in err
    run = the_run(own_home / "etalon.db")
    assert run["status"] == "failed"
    assert run["error"].startswith("Traceback (most recent call last):")
    assert "from_pretrained" in run["error"]
    assert str(PROJECT / "trainer" / "policy.py") in run["error"]
    events = ask(own_home / "etalon.db", "SELECT kind, level FROM events ORDER BY id")
    assert events[-1] == {"kind": "failure", "level": "error"}
