"""``python -m storage delete|tag|note|migrate``: the archive is kept in order; nothing is lost."""

import io
import json
import os
import socket

import psutil
import pytest
from factories import a_run, a_step
from sqlalchemy import delete, func, select

from storage.__main__ import main
from storage.commandline import run_command
from storage.models import rollups
from storage.records import RunStatus

FINISHED, COLLAPSED = "20231114-221320-000001", "20231114-221320-000002"


def outcome(capsys, *words):
    code = run_command(main, words)
    return code, *capsys.readouterr()


class Terminal(io.StringIO):
    def isatty(self):
        return True


# -- delete -----------------------------------------------------------------------------------


def test_deleted_runs_are_gone_with_their_rows(seeded, capsys):
    words = ("delete", FINISHED, COLLAPSED, FINISHED, "--yes", "--json", "--db", seeded.url)
    code, out, err = outcome(capsys, *words)
    assert (code, err) == (0, "")
    assert json.loads(out) == {"deleted": [FINISHED, COLLAPSED], "steps": 80}
    assert (seeded.runs(), seeded.step_counts()) == ([], {})


def test_without_a_terminal_yes_must_be_said(seeded, monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n"))
    code, out, err = outcome(capsys, "delete", FINISHED, "--db", seeded.url)
    assert (code, out) == (2, "")
    assert "add --yes to delete 1 run with 40 steps for good" in err
    assert len(seeded.runs()) == 2


@pytest.mark.parametrize(("answer", "left"), [("y\n", 1), ("Yes\n", 1), ("\n", 2), ("n\n", 2)])
def test_on_a_terminal_it_is_asked(seeded, monkeypatch, capsys, answer, left):
    monkeypatch.setattr("sys.stdin", Terminal(answer))
    code, _, err = outcome(capsys, "delete", FINISHED, "--db", seeded.url)
    assert code == 0
    assert "delete 1 run with 40 steps for good? [y/N]" in err
    assert len(seeded.runs()) == left


def test_a_run_that_is_alive_is_not_deleted_nor_is_any_beside_it(seeded, capsys):
    here = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "pid_started": psutil.Process().create_time(),
    }
    alive = a_run(status=RunStatus.RUNNING, **here)
    seeded.create_run(alive)
    code, out, err = outcome(capsys, "delete", FINISHED, alive.id, "--yes", "--db", seeded.url)
    assert (code, out) == (2, "")
    assert err == (
        f"run: {alive.id} is running; stop it first: python -m trainer stop {alive.id}\n"
    )
    assert len(seeded.runs()) == 3


def test_an_imported_log_that_grew_can_be_deleted(store, capsys):
    run = a_run(kind="imported", status=RunStatus.RUNNING)
    store.create_run(run)
    assert outcome(capsys, "delete", run.id, "--yes", "--db", store.url)[0] == 0
    assert store.runs() == []


def test_an_unknown_run_beside_a_known_one_leaves_both(seeded, capsys):
    code, _, err = outcome(capsys, "delete", FINISHED, "nobody", "--yes", "--db", seeded.url)
    assert code == 2
    assert err.startswith("run: 'nobody' is not in the archive")
    assert len(seeded.runs()) == 2


# -- tag, note --------------------------------------------------------------------------------


def test_tags_are_given_replaced_shown_and_taken_away(seeded, capsys):
    for words, wanted in ((["b", " a ", "b"], ["a", "b"]), (["c"], ["c"]), ([], [])):
        code, out, _ = outcome(capsys, "tag", FINISHED, *words, "--json", "--db", seeded.url)
        assert code == 0
        assert sorted(json.loads(out)["tags"]) == wanted
        shown = json.loads(outcome(capsys, "show", FINISHED, "--json", "--db", seeded.url)[1])
        assert shown["tags"] == wanted


@pytest.mark.parametrize("word", ["", " ", "x" * 65])
def test_a_tag_that_is_none_is_refused(seeded, capsys, word):
    code, _, err = outcome(capsys, "tag", FINISHED, "good", word, "--db", seeded.url)
    assert code == 2
    assert err.endswith("is not allowed; allowed: 1 to 64 characters\n")
    assert seeded.tags() == {}


def test_a_note_is_written_and_taken_away(seeded, capsys):
    for text, kept in (("seems good", "seems good"), ("", None)):
        code, out, _ = outcome(capsys, "note", FINISHED, text, "--json", "--db", seeded.url)
        assert (code, json.loads(out)["notes"]) == (0, kept)
        assert seeded.run(FINISHED).notes == kept
    assert outcome(capsys, "note", FINISHED, "x" * 20_001, "--db", seeded.url)[0] == 2
    for name in ("note", "tag"):
        code, _, err = outcome(capsys, name, "nobody", "x", "--db", seeded.url)
        assert (code, "'nobody' is not in the archive" in err) == (2, True)


# -- migrate ----------------------------------------------------------------------------------


def test_migrating_gives_old_runs_their_outlines(store, capsys):
    run = a_run()
    store.create_run(run)
    store.append_steps([a_step(run.id, t, loss=1.0) for t in range(1100)])
    count = select(func.count()).select_from(rollups)
    with store.writing() as connection:
        before = connection.execute(count).scalar()
        connection.execute(delete(rollups))
    assert outcome(capsys, "migrate", "--db", store.url)[0] == 0
    with store.reading() as connection:
        assert connection.execute(count).scalar() == before == 4
