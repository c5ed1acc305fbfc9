"""The process that judges live runs: every change is stored once, and no look changes a run."""

import json
import os
import socket
import subprocess
import sys
import threading
import time

import pytest
from factories import NOON, a_config, a_run, fill
from processes import PATIENCE, command, ended, start, wait_until

from advisor.__main__ import main
from advisor.alerts.rules import Alerting
from advisor.experiments.watch import NEWS_SECONDS, Watcher
from advisor.experiments.watch_command import Watching
from storage.records import RunStatus
from storage.store import Store

TOO_FAR = 50.0


@pytest.fixture
def limited(store):
    """Give a live run whose stale rollouts are far beyond the clipping radius."""
    run = a_run(id="20260101-120000-000000", status=RunStatus.RUNNING)
    fill(store, run, steps=60, drift=TOO_FAR)
    return run


def kinds(store: Store, run_id: str) -> list[str]:
    return [event.kind for event in store.events(run_id)]


def test_a_change_of_regime_is_stored_once_after_two_looks_agree(store, limited):
    watcher = Watcher(store)
    assert watcher.look()[1] == []
    _, [event] = watcher.look()
    assert (event.kind, event.level, event.step) == ("regime", "warning", 59)
    assert event.data == {"regime": "staleness_limited"}
    assert "to change: a learning rate of at most" in event.message
    for _ in range(3):
        assert watcher.look()[1] == []
    assert kinds(store, limited.id) == ["regime"]


def test_what_is_printed_tells_the_terminal_nothing(store, capsys):
    run = a_run(id="\x1b[2J\nfake: line\u202e", status=RunStatus.RUNNING)
    fill(store, run, steps=60, drift=TOO_FAR)
    watching = Watching(store, Alerting(), lambda: False, is_quiet=False)
    for _ in range(2):
        watching.look()
    [line] = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert line.startswith(" [2J fake: line  step 59: staleness_limited")


def test_a_second_watcher_repeats_nothing(store, limited):
    for _ in range(2):
        watcher = Watcher(store)
        for _ in range(3):
            watcher.look()
    assert kinds(store, limited.id) == ["regime"]


def test_a_red_flag_is_stored_once(store):
    run = a_run(a_config(max_staleness=60, loss="cispo"), status=RunStatus.RUNNING)
    fill(store, run, steps=60)  # the effective sample size falls by 3 % per step of age
    watcher = Watcher(store)
    watcher.look()
    watcher.look()
    flags = [event for event in store.events(run.id) if event.kind == "red flag"]
    assert [event.data for event in flags] == [{"flag": "few effective sequences"}]
    assert flags[0].level == "warning"


def test_too_little_data_is_no_event(store):
    run = a_run(status=RunStatus.RUNNING)
    fill(store, run, steps=3)
    watcher = Watcher(store)
    for _ in range(3):
        alive, events = watcher.look()
        assert [each.id for each in alive] == [run.id]
        assert events == []


def test_runs_that_ended_or_were_put_away_are_not_judged(store):
    long_over = {"status": RunStatus.FINISHED, "ended_at": NOON}
    here = {"host": socket.gethostname(), "pid": os.getpid()}  # a process may outlive its run
    for changes in (long_over, long_over | here, {"archived": True}):
        run = a_run(**{"status": RunStatus.RUNNING, **changes})
        fill(store, run, steps=60, drift=TOO_FAR)
    watcher = Watcher(store)
    for _ in range(3):
        assert watcher.look() == ([], [])
        assert watcher.sights == []


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--every", "0"], "every: '0' is not allowed; allowed: 0.1 <= every <= 3600"),
        (["--every", "nan"], "every: 'nan' is not allowed"),
        (["--every", "often"], "every: 'often' is not allowed"),
        (["--max-parallel", "0"], "max-parallel: '0' is not allowed; allowed: whole number, 1 <="),
        (["--beside", "me"], "beside: 'me' is not allowed; allowed: the id of a running process"),
        (["--beside", "99999999"], "beside: '99999999' is not allowed"),
    ],
)
def test_mistyped_options_are_refused_in_one_line(words, line):
    with pytest.raises(ValueError, match="^" + line.replace("(", r"\(")):
        main(["watch", *words])


def test_it_ends_when_nothing_is_alive_and_prints_one_object(limited, store, capsys):
    def end():
        wait_until(lambda: store.events(limited.id))
        store.update_run(limited.id, status=RunStatus.FINISHED, outcome="healthy")

    ending = threading.Thread(target=end)
    ending.start()
    code = main(["watch", "--db", store.url, "--every", "0.2", "--until-idle", "--json"])
    ending.join()
    assert code == 0
    assert json.loads(capsys.readouterr().out) == {"events": 1, "alerts": 0}


def test_it_ends_with_the_process_that_it_stands_beside(limited, store):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    watching = subprocess.Popen(
        [sys.executable, "-m", "advisor", "watch", "--every", "0.2", "--beside", str(other.pid)],
        env={**os.environ, "ETALON_DB": store.url},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    assert watching.stdout is not None
    assert watching.stdout.readline().startswith(limited.id), "it has begun"
    with pytest.raises(subprocess.TimeoutExpired):
        watching.wait(timeout=1)
    other.communicate(b"\n")
    assert watching.wait(timeout=PATIENCE) == 0


def test_a_lost_run_is_not_judged_and_keeps_no_watcher_waiting(store):
    gone = {"pid": 2**22 + 1, "host": socket.gethostname(), "heartbeat_at": NOON}
    store.create_run(a_run(status=RunStatus.RUNNING, **gone))
    assert Watcher(store).look() == ([], [])


@pytest.mark.parametrize(("days", "seen"), [(0.9, True), (30, False)])
def test_a_run_of_another_host_that_was_last_heard_of_long_ago_is_no_news(store, days, seen):
    elsewhere = {"pid": 5, "host": "elsewhere", "heartbeat_at": time.time() - days * NEWS_SECONDS}
    run = a_run(status=RunStatus.RUNNING, **elsewhere)
    fill(store, run, steps=60, drift=TOO_FAR)
    watcher = Watcher(store)
    for _ in range(2):
        alive, events = watcher.look()
        assert [each.id for each in alive] == [run.id], "nobody here knows that it is not"
    assert (len(watcher.sights), len(events)) == (seen, seen)


def test_a_run_that_is_deleted_while_it_is_looked_at_is_left_out(store, limited, monkeypatch):
    other = a_run(status=RunStatus.RUNNING)
    fill(store, other, steps=3)

    def tags():  # read when the runs are listed and not judged yet
        store.delete_run(limited.id)
        return {}

    monkeypatch.setattr(store, "tags", tags)
    watcher = Watcher(store)
    alive, _ = watcher.look()
    assert [each.id for each in alive] == [sight.run.id for sight in watcher.sights] == [other.id]


@pytest.mark.long
def test_two_watchers_start_every_run_that_waits_once(store, etalon_home):
    """The processes of three runs, started by two watchers that may have one at a time."""
    words = "-m trainer run --learning-rate 2e-4 --max-staleness 1 --steps 3 --later --db"
    for _ in range(3):
        assert command(*words.split(), store.url, home=etalon_home).returncode == 0
    assert {run.status for run in store.runs()} == {RunStatus.QUEUED}
    watch = "-m advisor watch --max-parallel 1 --every 0.2 --until-idle --db"
    both = [start(*watch.split(), store.url, home=etalon_home) for _ in range(2)]
    said = "".join(ended(each).stdout for each in both)
    assert sorted(line.split()[0] for line in said.splitlines() if "is starting" in line) == sorted(
        run.id for run in store.runs()
    )
    for run in store.runs():
        assert (run.status, len(store.steps(run.id))) == (RunStatus.FINISHED, 3)
        assert [event.kind for event in store.events(run.id)].count("start") == 1
