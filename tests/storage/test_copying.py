"""An archive is copied to either database row by row, wholly or not at all."""

import json
import math
import os
import shlex
import shutil
import signal
import socket
import sqlite3
import sys
import time
from itertools import pairwise
from multiprocessing import get_context

import psutil
import pytest
from factories import a_run, a_step, seed
from older_archives import on_sqlite, rows_of
from processes import PATIENCE
from sqlalchemy import select

from storage import copy_command, copying
from storage.__main__ import main
from storage.check import inconsistencies
from storage.commandline import run_command
from storage.copying import copy_archive, is_empty, refuse_living
from storage.engine import journal_file
from storage.errors import CopyRefused
from storage.journal import Journal
from storage.liveness import PulseReader
from storage.models import metadata, steps
from storage.records import Calibration, Event, RunStatus, Sample
from storage.rollups import BLOCK
from storage.store import Store

NAN = math.nan


@pytest.fixture
def places(postgres_server, tmp_path):
    """Give the URLs of a new file, an empty database and another new file."""
    with postgres_server.nothing() as url:
        yield [f"sqlite:///{tmp_path / 'one.db'}", url, f"sqlite:///{tmp_path / 'two.db'}"]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A file with rows in every table: what older code wrote, migrated, and more of today."""
    path = tmp_path_factory.mktemp("written") / "full.db"
    assert main(["migrate", "--db", on_sqlite(path, "0004")]) == 0
    store = seed(Store.open(str(path)))
    run = a_run(status=RunStatus.FINISHED, ended_at=1.0, parameters=7 * 10**10, reward_first=NAN)
    store.create_run(run)
    store.append_steps([a_step(run.id, t, loss=math.sin(t) / 3) for t in range(BLOCK + 9)])
    store.append_step(a_step(run.id, BLOCK + 9, tokens=2**40, loss=math.inf, grad_norm=NAN))
    store.tag_run(run.id, ["b", "a", "B", "-a", "ß", "ä"])
    alert = {"run_id": run.id, "rule": "r", "subject": "ß", "message": "m", "step": None}
    store.raise_alert(**alert, destinations=["b", "a", "B"])
    store.save_calibration(
        Calibration(
            id="K",
            time=1.5,
            setting={"x": NAN},
            segments=({"y": -math.inf},),
            run_ids=(run.id,),
            learner_steps=1,
            cost_steps=0.1,
            seconds=1e-300,
        )
    )
    store.close()
    return path


@pytest.fixture
def full(written, tmp_path):
    """The archive of that file, to be used up."""
    store = Store.open(shutil.copy(written, tmp_path))
    yield store
    store.close()


def copied(capsys, *words):
    """Copy, and return the exit code, standard output and standard error."""
    code = run_command(main, ["copy", *words])
    out, err = capsys.readouterr()
    return code, out, err


def test_a_copy_of_a_copy_on_the_other_database_is_the_archive(full, places, capsys):
    chain = [full.url, *places]
    for old, new in pairwise(chain):
        code, out, err = copied(capsys, old, new, "--json")
        assert (code, err) == (0, "")
        said = json.loads(out)
        assert said["altered_rows"] == 0
        assert set(said["rows"]) == set(metadata.tables)
        assert all(said["rows"].values()), "no table is left untried"
    first, last = (Store.open(url) for url in (chain[0], chain[-1]))
    query = select(steps).order_by(steps.c.run_id, steps.c.step)
    with first.reading() as one, last.reading() as other:
        assert repr(one.execute(query).all()) == repr(other.execute(query).all())
    assert rows_of(first.url) == rows_of(last.url)
    assert repr(first.runs()) == repr(last.runs())
    assert inconsistencies(last) == inconsistencies(first) == []
    for store in (first, last):
        store.close()


def test_numbers_go_on_after_the_highest_on_both(full, places, capsys):
    highest = max(event.id for event in full.events())
    run = full.runs()[0]
    for place in places[:2]:
        assert copied(capsys, full.url, place)[0] == 0
        store = Store.open(place)
        assert store.append_event(Event(run_id=run.id, time=1.0, kind="k", message="m")) > highest
        store.close()


def test_a_nul_is_told_where_the_database_cannot_hold_it(places, tmp_path, capsys):
    store = Store.open(str(tmp_path / "archive.db"))
    run = a_run(status=RunStatus.FINISHED)
    store.create_run(run)
    store.append_samples(
        [
            Sample(run_id=run.id, step=0, number=n, prompt=p, completion="c")
            for n, p in ((0, "\0"), (1, "a"))
        ]
    )
    code, out, _ = copied(capsys, store.url, places[1])
    assert (code, "1 row with a NUL" in out) == (0, True)
    assert copied(capsys, store.url, places[2])[1].count("\n") == 1
    store.close()


# -- refused ------------------------------------------------------------------------------------


def test_an_archive_that_holds_something_is_left_as_it_is(full, places, capsys):
    for place in places[:2]:
        store = Store.open(place)
        store.save_recommendation(full.recommendations()[0])
        store.close()
        before = rows_of(place)
        code, out, err = copied(capsys, full.url, place)
        assert (code, out) == (2, "")
        assert "holds rows already (recommendations); give a new file or an empty" in err
        assert rows_of(place) == before
    code, _, err = copied(capsys, full.url, full.url)
    assert (code, err.startswith(f"to: {full.url} holds rows already (")) == (2, True)


@pytest.mark.parametrize("status", [RunStatus.RUNNING, RunStatus.QUEUED])
def test_a_run_that_has_a_process_is_named_and_nothing_is_made(full, tmp_path, capsys, status):
    here = {"host": socket.gethostname(), "pid": os.getpid()}
    here["pid_started"] = psutil.Process().create_time()
    alive = a_run(status=status, **here)
    full.create_run(alive)
    code, out, err = copied(capsys, full.url, str(tmp_path / "one.db"))
    assert (code, out) == (2, "")
    assert err == f"run: {alive.id} is {status}; stop it first: python -m trainer stop {alive.id}\n"
    assert not (tmp_path / "one.db").exists()
    full.update_run(alive.id, pid=2**22 - 1)
    assert copied(capsys, full.url, str(tmp_path / "one.db"))[0] == 0


def test_an_archive_that_was_not_sent_everything_is_refused_until_it_was(
    full, tmp_path, capsys, monkeypatch
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "home"))
    run = full.runs()[0]
    for run_id in (run.id, "elsewhere"):
        Journal(journal_file(run_id)).append(a_step(run_id, 0))
    words = [full.url, str(tmp_path / "one.db")]
    code, out, err = copied(capsys, *words)
    assert (code, out) == (2, "")
    assert err.startswith(f"from: not all of run {run.id} was sent to it; run: python -m storage")
    assert not (tmp_path / "one.db").exists()
    assert main(shlex.split(err.split("run: ")[-1])[3:]) == 0
    assert copied(capsys, *words)[0] == 0


def test_a_run_of_another_host_is_watched_until_its_heart_has_stood_still(store):
    run = a_run(status=RunStatus.RUNNING, host="elsewhere", pid=1)
    store.create_run(run)
    now, beats = [0.0], [True]

    def sleep(seconds):
        now[0] += seconds
        if beats[0]:
            store.heartbeat(run.id, time.time())

    with pytest.raises(CopyRefused, match=run.id):
        refuse_living(store, PulseReader(monotonic=lambda: now[0]), sleep)
    beats[0] = False
    refuse_living(store, PulseReader(monotonic=lambda: now[0]), sleep)


def test_an_older_archive_and_none_at_all_are_refused(tmp_path, capsys):
    url = on_sqlite(tmp_path / "older.db", "0002")
    new = tmp_path / "new.db"
    code, _, err = copied(capsys, url, str(new))
    assert (code, "run: python -m storage migrate --db" in err) == (2, True)
    code, _, err = copied(capsys, str(tmp_path / "none.db"), str(new))
    assert (code, err.startswith("db: there is no archive at")) == (2, True)
    assert not new.exists()


def test_rows_of_no_run_are_named_and_nothing_is_made(full, tmp_path, capsys):
    connection = sqlite3.connect(tmp_path / "full.db")
    connection.execute("INSERT INTO tags VALUES ('nobody', 'x')")
    connection.commit()
    connection.close()
    code, _, err = copied(capsys, full.url, str(tmp_path / "new.db"))
    assert (code, err) == (2, "tags: 1 rows are of no run; see storage check\n")
    assert not (tmp_path / "new.db").exists()


def test_what_the_other_database_does_not_take_is_named(full, places, tmp_path, capsys):
    connection = sqlite3.connect(tmp_path / "full.db")
    connection.execute("UPDATE evaluations SET rollouts = 3000000000 WHERE step = 0")
    connection.commit()
    connection.close()
    code, _, err = copied(capsys, full.url, places[1])
    assert code == 2
    assert err.startswith("evaluations of run ")
    assert "does not take it: integer out of range" in err
    store = Store.open(places[1])
    assert store.runs() == []
    store.close()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("UPDATE evaluations SET rollouts = 7 WHERE step = 1", "became 7; nothing is copied"),
        ("DELETE FROM evaluations WHERE step = 0", "the copy has not as many rows"),
    ],
)
def test_a_copy_that_came_out_otherwise_is_refused_and_not_kept(
    full, tmp_path, capsys, change, words
):
    place = tmp_path / "new.db"
    Store.open(str(place)).close()
    connection = sqlite3.connect(place)
    connection.execute(f"CREATE TRIGGER t AFTER INSERT ON evaluations BEGIN {change}; END")
    connection.close()
    code, out, err = copied(capsys, full.url, str(place))
    assert (code, out) == (2, "")
    assert err.startswith("evaluations of run ")
    assert words in err
    assert rows_of(str(place))[1]["runs"] == []


# -- cut short ----------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 1], ids=["sqlite", "postgresql"])
def test_a_copy_that_is_cut_short_leaves_nothing_and_can_be_made_again(
    full, places, place, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(copying, "PORTION", 50)
    new = places[place]
    for share in (0.0, 0.3, 0.8, 1.0):
        assert cut_short(monkeypatch, full.url, new, share, signal.SIGKILL) == -signal.SIGKILL
        store = Store.open(new)
        with store.reading() as connection:
            assert all(is_empty(connection, table) for table in metadata.sorted_tables)
        store.close()
    if place == 0:
        (tmp_path / "one.db").unlink()
    assert cut_short(monkeypatch, full.url, new, 0.7, signal.SIGINT) == 130
    assert not (tmp_path / "one.db").exists()
    monkeypatch.undo()
    assert copied(capsys, full.url, new)[0] == 0


def cut_short(monkeypatch, old, new, share, how):
    """Copy in a process that gets a signal once this share of the work is done; its exit code."""

    def watched(source, target, pulse, progress):
        def told(done, total):
            progress(done, total)
            if done >= share * total:
                os.kill(os.getpid(), how)

        return copy_archive(source, target, pulse, told)

    monkeypatch.setattr(copy_command, "copy_archive", watched)
    process = get_context("fork").Process(
        target=lambda: sys.exit(run_command(main, ["copy", old, new]))
    )
    process.start()
    process.join(PATIENCE)
    return process.exitcode
