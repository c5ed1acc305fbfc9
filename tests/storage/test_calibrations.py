"""What a probe found out goes into the archive and comes out as it was."""

import json
import math

import pytest
from factories import a_config
from probed import a_calibration, a_hold, a_ramp

from advisor.segments import segment_from
from storage.commandline import run_command
from storage.errors import CalibrationNotFound
from storage.store import Store

FACTS = [a_ramp(None), a_hold(1e-3, -math.inf, gain_stderr=None, diverged=True), a_hold(5e-4)]


def plain(found):
    """Return a calibration as JSON knows it: tuples are lists there."""
    return json.loads(json.dumps([found.id, found.setting, found.segments, found.run_ids]))


def test_a_calibration_comes_back_as_it_went_in(store):
    setting = a_config(optimizer="sgd", clip_epsilon_high=0.4)
    saved = a_calibration(FACTS, setting, learner_steps=126, cost_steps=301.25, seconds=0.5)
    store.save_calibration(saved)
    back = store.calibration(saved.id)
    assert plain(back) == plain(saved)
    assert (back.time, back.learner_steps, back.cost_steps, back.seconds) == (
        saved.time,
        126,
        301.25,
        0.5,
    )
    assert isinstance(back.segments, tuple)
    assert isinstance(back.run_ids, tuple)
    assert [segment_from(each) for each in back.segments] == FACTS


def test_a_loss_without_end_and_what_was_not_measured_stay_apart(store):
    holds = [a_hold(1e-3, gain) for gain in (-math.inf, None, 0.0)]
    store.save_calibration(a_calibration(holds))
    [back] = store.calibrations()
    assert [each["gain"] for each in back.segments] == [-math.inf, None, 0.0]


def test_an_empty_calibration_is_one_too(store):
    saved = a_calibration([])
    store.save_calibration(saved)
    assert store.calibrations() == [saved]


def test_calibrations_are_listed_newest_first(store):
    for name, moment in (("b", 2.0), ("d", 1.0), ("a", 3.0), ("c", 2.0)):
        store.save_calibration(a_calibration([], id=name, time=moment))
    assert [found.id for found in store.calibrations()] == ["a", "c", "b", "d"]
    assert store.calibration("d").time == 1.0


def test_a_calibration_is_there_when_the_archive_is_opened_again(tmp_path):
    path = str(tmp_path / "archive.db")
    first = Store.open(path)
    first.save_calibration(a_calibration(FACTS))
    first.close()
    again = Store.open(path, create=False)
    assert [plain(found) for found in again.calibrations()] == [plain(a_calibration(FACTS))]
    again.close()


@pytest.mark.parametrize("unknown", ["nosuch", "", "20260101-120000-abcde", "%"])
def test_an_unknown_calibration_is_refused_and_names_the_command_that_makes_one(store, unknown):
    store.save_calibration(a_calibration([]))
    with pytest.raises(CalibrationNotFound) as found:
        store.calibration(unknown)
    assert isinstance(found.value, KeyError)
    assert str(found.value) == (
        f"calibration: {unknown!r} is not in the archive; python -m advisor probe makes one"
    )


def test_an_empty_archive_has_no_calibrations(store):
    assert store.calibrations() == []


def test_an_unknown_calibration_is_told_in_one_line_of_a_command(store, capsys):
    assert run_command(lambda _: store.calibration("nosuch"), []) == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
