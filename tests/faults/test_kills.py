"""Kills −9 at random moments lose nothing; the long form is ``python -m benchmarks.kills``."""

import shutil

import pytest

from benchmarks.kills import Place, killed_imports, killed_learners, killed_sweeps


@pytest.fixture
def place(tmp_path, monkeypatch):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    return Place(tmp_path, seed=0)


@pytest.fixture
def warm_place(place, tmp_path, etalon_home):
    shutil.copytree(etalon_home / "warm_starts", tmp_path / "warm_starts")
    return place


def test_imports_that_are_killed_are_whole_or_not_there(place):
    tally = killed_imports(place, kills=6)
    assert tally.is_sound, tally


@pytest.mark.slow  # half of it is what a killed learner takes to come back
def test_learners_that_are_killed_lose_no_committed_step(warm_place):
    tally = killed_learners(warm_place, "lockstep", kills=3, steps=25)
    assert tally.is_sound, tally
    assert tally.committed > 0


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:resource_tracker")  # that process is killed too, and said to be
@pytest.mark.parametrize("schedule", ["lockstep", "queue"])
def test_learners_of_both_schedules(warm_place, schedule):
    tally = killed_learners(warm_place, schedule, kills=10)
    assert tally.is_sound, tally


@pytest.mark.long
def test_sweeps_that_are_killed_make_every_cell_once(warm_place):
    tally = killed_sweeps(warm_place, kills=5)
    assert tally.is_sound, tally
