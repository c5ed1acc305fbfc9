"""What ``check`` names ``check --repair`` mends, after it has kept a copy; the rest it names."""

import json
import os
import time
from contextlib import closing
from dataclasses import replace

import pytest
from damage import COLLAPSED, FINISHED, plant
from factories import NOON, a_run, a_step, seed

from storage.__main__ import main
from storage.check import inconsistencies
from storage.engine import journal_file
from storage.errors import JournalDamaged
from storage.journal import Journal, RunChange, send_journal
from storage.records import Event, RunStatus
from storage.repair import repair
from storage.store import Store
from trainer.launch import process_columns


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "home"))


def gone_run(store, run_id, **changes):
    """Add a run whose process is gone: its id is that of this one, its mark is not."""
    columns = {**process_columns(os.getpid()), "process_mark": "another boot 1"}
    store.create_run(a_run(id=run_id, status=RunStatus.RUNNING, **columns, **changes))


def test_a_sound_archive_is_left_alone(store, tmp_path):
    found = repair(seed(store))
    assert (found.copy, found.done, found.left) == (None, (), ())
    assert list(tmp_path.glob("**/*before-repair*")) == []


def test_everything_that_can_be_mended_is_and_the_rest_is_named(store):
    seed(store).append_steps([a_step(FINISHED, t, loss=0.5) for t in range(512)])
    gone_run(store, "gone")
    gone_run(store, "ended")
    journal = Journal(journal_file("ended"))
    journal.append(a_step("ended", 0))
    journal.append(RunChange(run_id="ended", changes={"status": "finished", "ended_at": NOON}))
    plant(
        store,
        "UPDATE rollups SET high = 9 WHERE metric = 'loss'",
        f"UPDATE runs SET ended_at = NULL WHERE id = '{FINISHED}'",
        f"DELETE FROM steps WHERE run_id = '{COLLAPSED}' AND step = 7",
        "INSERT INTO steps (run_id, step, time) VALUES ('nobody', 0, 1)",
        *[
            "INSERT INTO events (run_id, time, level, kind, message) VALUES "
            f"('{FINISHED}', 1, 'info', 'k', 'm')"
        ]
        * 3,
    )
    before = inconsistencies(store)
    assert [line.split(":")[0] for line in before] == [
        *("journal", "steps", "steps", "events", "rollups", "runs", "runs", "runs")
    ]
    found = repair(store)
    gap = f"steps: run {COLLAPSED} has 39 rows between step 0 and 39"
    assert found.left == (gap,)
    assert inconsistencies(store) == [gap]
    with closing(Store.open(str(found.copy), create=False)) as copy:
        assert inconsistencies(copy) == before[1:]  # the journal was sent
        assert repr(copy.steps(COLLAPSED)) == repr(store.steps(COLLAPSED))
    again = repair(store)
    assert again.copy != found.copy
    gone, ended = store.run("gone"), store.run("ended")
    assert (gone.status, gone.outcome_reason) == (RunStatus.STOPPED, "its process was gone")
    assert gone.ended_at == gone.created_at
    assert (ended.status, len(store.steps("ended"))) == (RunStatus.FINISHED, 1)
    assert len(store.events(FINISHED)) == 1
    assert not journal_file("ended").exists()


def test_a_journal_of_a_run_that_lives_or_of_another_archive_is_none_of_ours(store):
    me = process_columns(os.getpid())
    store.create_run(a_run(id="alive", status=RunStatus.RUNNING, **me))
    for run_id in ("alive", "elsewhere"):
        Journal(journal_file(run_id)).append(a_step(run_id, 0))
    assert inconsistencies(store) == []


def test_a_journal_of_a_run_that_is_silent_on_another_host_is_named_and_left_to_that_host(store):
    elsewhere = {"host": "elsewhere", "pid": 1, "status": RunStatus.RUNNING}
    store.create_run(a_run(id="silent", heartbeat_at=NOON, **elsewhere))
    store.create_run(a_run(id="heard", heartbeat_at=time.time(), **elsewhere))
    for run_id in ("silent", "heard"):
        Journal(journal_file(run_id)).append(a_step(run_id, 0))
    [line] = repair(store).left
    assert line.startswith("journal: 1 write of run silent never sent: it ran on elsewhere, ")
    assert line.endswith("python -m trainer stop silent")
    assert store.steps("silent") == store.steps("heard") == []
    assert journal_file("silent").exists()


def damaged_in_line_two(run_id, line):
    journal = Journal(journal_file(run_id))
    for step in range(2):
        journal.append(a_step(run_id, step))
    first, second = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(first + line + b"\n" + second)
    return first + second


@pytest.mark.parametrize(
    "line",
    [b"\0\0", b"\xff", b"[]", b'{"No": {}}', b'{"StepMetrics": 1}', b'{"RunChange": {}}'],
)
def test_a_line_that_is_no_write_is_named(line):
    damaged_in_line_two("a", line)
    with pytest.raises(JournalDamaged, match=r"a.jsonl, line 2 is damaged.* remove that line"):
        Journal(journal_file("a")).next(9)


def test_a_damaged_journal_is_named_and_the_others_are_sent(store, capsys):
    for run_id in ("damaged", "sound"):
        store.create_run(a_run(id=run_id, status=RunStatus.STOPPED, ended_at=NOON))
    mended = damaged_in_line_two("damaged", b"\0")
    Journal(journal_file("sound")).append(a_step("sound", 0))
    assert main(["check", "--repair", "--db", store.url]) == 1
    named = f"not mended: journal: {journal_file('damaged')}, line 2 is damaged"
    assert named in capsys.readouterr().out
    assert len(store.steps("sound")) == 1
    journal_file("damaged").write_bytes(mended)
    assert send_journal(store, "damaged") == 2


def test_an_event_that_is_sent_twice_is_there_once(store):
    store.create_run(a_run(id="a"))
    event = Event(run_id="a", time=1.0, kind="k", message="m")
    assert store.append_event(event) == store.append_event(event)
    assert store.append_event(replace(event, time=2.0)) != store.append_event(event)
    assert len(store.events("a")) == 2


def test_the_command_names_the_copy_and_each_thing_it_did(tmp_path, capsys):
    path = tmp_path / "archive.db"
    with closing(Store.open(str(path))) as store:
        seed(store)
        plant(store, f"UPDATE runs SET ended_at = NULL WHERE id = '{FINISHED}'")
    assert main(["check", "--db", str(path)]) == 1
    capsys.readouterr()
    assert main(["check", "--repair", "--json", "--db", str(path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["done"] == [f"run {FINISHED} ended when it gave its last sign of life"]
    assert answer["inconsistencies"] == []
    with closing(Store.open(answer["copy"], create=False)) as copy:
        assert copy.run(FINISHED).ended_at is None
    assert main(["check", "--repair", "--db", str(path)]) == 0
    assert capsys.readouterr().out == "no inconsistency found\n"
