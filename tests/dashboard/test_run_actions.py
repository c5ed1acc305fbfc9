"""What the Runs page does to runs that are selected, and the import of a log by upload."""

import json
import math
import socket
import time

import psutil
import pytest
from factories import fill
from pages import press
from states import collapsed, healthy, live

from advisor.dashboard.archive import pulse_reader
from storage.engine import checkpoint_folder
from storage.errors import RunTakenOver
from storage.records import RunStatus
from storage.removal import remove_run
from storage.words import moment

ROWS = [
    {
        "step": step,
        "data": {
            "actor/lr": 1e-6,
            "critic/score/mean": math.nan if step == 3 else 0.1 * step,
            "rollout_corr/k3_kl": 0.002,
            "my/own": 7.0,
        },
    }
    for step in range(1, 6)
]


def as_file(rows=ROWS):
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


def to_import(visit):
    """Open the fold of the import form, as a person does; AppTest has no click for it."""
    page = visit("runs")
    assert not page.get("file_uploader")
    page.session_state["import-fold"] = True
    return page.run()


def imported(page, content, name="log.jsonl"):
    page.file_uploader(key="import-files").upload(name, content, "application/json")
    return press(page, "Import")


def selected(page, *names):
    """Select rows as a person does by their boxes, and return the page as it is then."""
    table = page.dataframe[0]
    rows = [list(table.value["name"]).index(name) for name in names]
    state = page._tree.get_widget_states()  # AppTest has no click for a row
    event = state.widgets.add()
    event.id = table.proto.id
    event.string_value = json.dumps({"selection": {"rows": rows, "columns": [], "cells": []}})
    return page._run(state)


# -- import -----------------------------------------------------------------------------------


def test_an_uploaded_log_becomes_a_run_and_the_same_again_renews_it(archive, visit):
    page = imported(to_import(visit), as_file())
    assert not page.exception
    assert "5 learner steps, 5 of them new" in page.success[0].value
    (run,) = archive.runs()
    assert (run.kind, run.name, run.source["stack"]) == ("imported", "log", "verl")
    series = archive.series(run.id, ["step", "reward_mean", "approx_kl"])
    assert series["step"] == [1, 2, 3, 4, 5]
    assert math.isnan(series["reward_mean"][2])
    said = " ".join(each.value for each in page.caption).replace("\\", "")
    assert "not understood: my/own" in said

    again = imported(to_import(visit), as_file([*ROWS, {"step": 6, "data": {"actor/lr": 1e-6}}]))
    assert "6 learner steps, 1 of them new" in again.success[0].value
    assert [each.id for each in archive.runs()] == [run.id]


def test_what_the_log_does_not_say_can_be_told(archive, visit):
    page = to_import(visit)
    page.text_input(key="import-name").set_value("mine")
    page.text_input(key="import-max_staleness").set_value("7")
    page.text_input(key="import-learning_rate").set_value("1e-6")
    imported(page, as_file())
    (run,) = archive.runs()
    assert (run.name, run.config["max_staleness"]) == ("mine", 7)
    assert run.config["learning_rate"] == 1e-6


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty"),
        (b"not a log\n", "log"),
        (b'{"loss": 1.0}\n', "step"),
        (b"\xff\xfe\x00", ""),
    ],
)
def test_a_file_that_is_no_log_is_told_in_one_line_and_leaves_nothing(
    archive, visit, content, said
):
    page = imported(to_import(visit), content)
    assert not page.exception
    assert len(page.error) == 1
    assert said in page.error[0].value
    assert archive.runs() == []


def test_without_a_file_or_with_a_mistyped_setting_nothing_is_imported(archive, visit):
    page = press(to_import(visit), "Import")
    assert page.error[0].value == "log: no file was chosen; choose one"
    page = to_import(visit)
    page.text_input(key="import-learning_rate").set_value("a lot")
    page = imported(page, as_file())
    assert "a lot" in page.error[0].value
    assert archive.runs() == []


# -- selected runs ----------------------------------------------------------------------------


def buttons(page):
    return {each.label for each in page.button}


def test_what_makes_sense_for_the_selected_runs_is_offered(archive, visit):
    fill(archive, healthy("one"), steps=21)
    fill(archive, live(), steps=21)
    page = selected(visit("runs"), "one")
    assert {"Archive", "Delete"} <= buttons(page)
    assert not {"Stop", "Resume"} & buttons(page)
    page = selected(visit("runs"), "alive")
    assert "Stop" in buttons(page)


def test_several_runs_are_put_away_and_brought_back_at_once(archive, visit):
    for name in ("one", "two", "three"):
        fill(archive, healthy(name), steps=21)
    press(selected(visit("runs"), "one", "two"), "Archive 2")
    assert {run.name for run in archive.runs(archived=True)} == {"one", "two"}
    page = visit("runs", archived="true")
    press(selected(page, "one", "two"), "Bring back 2")
    assert archive.runs(archived=True) == []


def test_tags_of_several_runs_are_added_to_what_each_has(archive, visit):
    one, two = healthy("one"), healthy("two")
    for run in (one, two):
        fill(archive, run, steps=21)
    archive.tag_run(one.id, ["mine"])
    page = selected(visit("runs"), "one", "two")
    next(each for each in page.text_input if each.label == "tags").set_value("edge, 7b")
    press(page, "Save")
    assert archive.tags() == {one.id: ("7b", "edge", "mine"), two.id: ("7b", "edge")}


def test_a_note_is_kept_and_a_tag_that_is_too_long_is_not(archive, visit):
    run = healthy("one")
    fill(archive, run, steps=21)
    page = selected(visit("runs"), "one")
    next(each for each in page.text_input if each.label == "note").set_value("the <b>best</b>")
    page = press(page, "Save")
    assert archive.run(run.id).notes == "the <b>best</b>"
    page = selected(visit("runs"), "one")
    next(each for each in page.text_input if each.label == "tags").set_value("x" * 65)
    page = press(page, "Save")
    assert "allowed: 1 to 64 characters" in page.error[0].value.replace("\\", "")
    assert archive.tags() == {}


def test_deleting_asks_first_and_says_what_goes(archive, visit):
    run, other = collapsed(), healthy("one")
    for each in (run, other):
        fill(archive, each, steps=21)
    page = press(selected(visit("runs"), run.name), "Delete")
    said = " ".join(each.value for each in page.markdown)
    assert "1 run with 21 stored steps in all" in said
    assert f"{run.name} · {run.id}" in said
    assert {each.id for each in archive.runs()} == {run.id, other.id}, "not before it is confirmed"


def test_a_removed_run_takes_its_checkpoints_along(archive):
    run = collapsed()
    fill(archive, run, steps=21)
    folder = checkpoint_folder(run.id) / "20"
    folder.mkdir(parents=True)
    remove_run(archive, run.id)
    assert archive.runs() == []
    assert not folder.parent.exists()


@pytest.fixture
def silent(archive):
    """A run whose process is on another host, and by the clocks has been silent for long."""
    process = {"host": "else*where*", "pid": 7, "process_mark": "its boot 1"}
    run = live(heartbeat_at=time.time() - 400, heartbeat_count=5, **process)
    fill(archive, run, steps=21)
    checkpoint_folder(run.id).joinpath("20").mkdir(parents=True)
    return run


def pass_by(seconds):
    """Let so many seconds pass on the monotonic clock of the server."""
    pulse, now = pulse_reader(), time.monotonic()
    pulse._monotonic = lambda: now + seconds


def warned(page):
    return page.warning[0].value.replace("\\", "")


def test_the_page_says_what_comes_of_stopping_a_run_that_is_silent_on_another_host(
    archive, silent, visit
):
    page = press(selected(visit("runs"), "alive"), "Stop")
    assert warned(page).startswith(
        f"The process of alive on else*where* is silent since {moment(silent.heartbeat_at)}. "
        "*Stop* only asks it. If it stays silent, *Stop* ends the run"
    )
    assert warned(page).endswith(f"in a terminal: python -m trainer stop {silent.id}.")
    assert page.toast[0].value.replace("\\", "").endswith("step, once else*where* hears it.")
    asked = archive.run(silent.id)
    assert (asked.status, asked.stop_requested) == (RunStatus.RUNNING, True)


def test_a_run_that_the_page_has_watched_to_be_silent_is_ended_by_stop(archive, silent, visit):
    selected(visit("runs"), "alive")
    pass_by(31)
    page = selected(visit("runs"), "alive")
    assert "*Stop* ends the run, and *Resume* lets it go on here." in warned(page)
    page = press(page, "Stop")
    assert not page.exception
    ended = archive.run(silent.id)
    assert (ended.status, ended.ended_at) == (RunStatus.STOPPED, silent.heartbeat_at)
    assert "on else*where* gave no sign of life since" in ended.outcome_reason
    with pytest.raises(RunTakenOver):
        archive.heartbeat(silent.id, time.time(), host="else*where*", process_mark="its boot 1")


def test_a_run_of_another_host_goes_on_here_only_when_it_has_been_silent_for_long(
    archive, silent, visit
):
    archive.update_run(silent.id, heartbeat_at=time.time())
    selected(visit("runs"), "alive")
    pass_by(31)  # lost, and silent for too short a time
    page = press(selected(visit("runs"), "alive"), "Resume")
    assert "is running on else*where*; allowed" in page.error[0].value.replace("\\", "")
    archive.heartbeat(silent.id, time.time() - 400, host="else*where*")
    page = press(page, "Stop")  # which lives, whatever the clocks say
    assert archive.run(silent.id).status is RunStatus.RUNNING
    page = selected(visit("runs"), "alive")
    pass_by(62)
    press(selected(visit("runs"), "alive"), "Resume")
    process = psutil.Process(archive.run(silent.id).pid)
    process.kill()
    assert archive.run(silent.id).host == socket.gethostname()


def test_a_run_that_is_alive_is_not_deleted(archive, visit):
    fill(archive, live(), steps=21)
    page = press(selected(visit("runs"), "alive"), "Delete")
    assert "Still running" in page.error[0].value
    assert len(archive.runs()) == 1
