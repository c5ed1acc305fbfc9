"""An episode alerts once: while it lasts, after a short pause, and whoever looks."""

import sqlite3
from contextlib import closing
from dataclasses import replace

import pytest
from sights import a_diagnosis, a_sight

from advisor.alerts.episodes import CLEAR_SECONDS, Episodes
from advisor.alerts.rules import Alerting
from advisor.regime import Regime
from storage.errors import ArchiveUnavailable
from storage.records import RunStatus
from storage.store import Store

RULES = Alerting.model_validate(
    {
        "rules": {
            "limits": {"regime": ["staleness_limited"], "to": ["log", "phone"]},
            "ended": {"ended": ["failed"]},
        },
        "destinations": {"phone": {"command": ["true"]}},
    }
)
LIMITED, STABLE = a_diagnosis(Regime.STALENESS_LIMITED), a_diagnosis()
NOTHING = a_diagnosis(Regime.INSUFFICIENT_DATA)


class Looks:
    """Looks of one watcher at a run, a second apart, and what each raised."""

    def __init__(self, store, run):
        self.now, self.run = 0.0, run
        self.episodes = Episodes(store, RULES, monotonic=lambda: self.now)

    def __call__(self, *diagnoses, after=1.0, **changes):
        raised = []
        for each in diagnoses:
            self.now += after
            sight = replace(a_sight(each, **changes), run=self.run)
            raised.append(self.episodes.follow([sight]))
        return raised


@pytest.fixture
def run(store):
    run = a_sight().run
    store.create_run(run)
    return run


@pytest.fixture
def look(store, run):
    return Looks(store, run)


def episodes(store):
    return sorted((d.episode, d.destination) for d in store.deliveries())


def test_two_looks_that_agree_raise_it_for_each_destination_and_no_more(store, look):
    assert look(LIMITED, STABLE, LIMITED) == [0, 0, 0]
    assert look(LIMITED, LIMITED, LIMITED) == [2, 0, 0]
    assert episodes(store) == [(1, "log"), (1, "phone")]
    first = store.deliveries()[0]
    assert (first.rule, first.subject, first.step) == ("limits", "staleness_limited", 99)


def test_what_comes_and_goes_within_a_minute_is_one_episode(store, look):
    look(LIMITED, LIMITED)
    for _ in range(5):
        assert look(STABLE, STABLE, after=CLEAR_SECONDS / 3) == [0, 0]
        assert look(LIMITED, LIMITED) == [0, 0]
    assert episodes(store) == [(1, "log"), (1, "phone")]


def test_what_was_gone_for_a_minute_and_comes_back_is_another(store, look):
    look(LIMITED, LIMITED)
    look(STABLE, STABLE, after=CLEAR_SECONDS)
    assert look(LIMITED, LIMITED, LIMITED) == [0, 2, 0]
    assert {episode for episode, _ in episodes(store)} == {1, 2}


def test_what_nobody_knows_neither_raises_nor_ends(store, look):
    assert look(NOTHING, NOTHING, NOTHING) == [0, 0, 0]
    look(LIMITED, LIMITED)
    look(NOTHING, NOTHING, NOTHING, after=CLEAR_SECONDS)
    assert look(LIMITED, LIMITED) == [0, 0]
    assert len(episodes(store)) == 2


def test_that_a_run_ended_needs_one_look(store, look, run):
    look(STABLE)
    look.run = replace(run, status=RunStatus.FAILED)
    assert look(None, None, status=RunStatus.FAILED) == [1, 0]


def test_a_second_watcher_and_one_that_starts_anew_go_on_with_the_same_episode(store, run):
    one, other = Looks(store, run), Looks(store, run)
    assert one(LIMITED, LIMITED) + other(LIMITED, LIMITED) == [0, 2, 0, 0]
    anew = Looks(store, run)
    assert anew(LIMITED, LIMITED, LIMITED) == [0, 0, 0]
    anew(STABLE, STABLE, after=CLEAR_SECONDS)
    other(STABLE, STABLE, after=CLEAR_SECONDS)
    assert anew(LIMITED, LIMITED) + other(LIMITED, LIMITED) == [0, 2, 0, 0]


def test_a_watcher_that_did_not_see_it_begin_ends_it(store, run):
    Looks(store, run)(LIMITED, LIMITED)
    Looks(store, run)(STABLE, STABLE, after=CLEAR_SECONDS)
    assert all(each.cleared_at is not None for each in store.deliveries())


def test_a_run_that_was_deleted_meanwhile_raises_nothing(store, look, run):
    look(LIMITED)
    store.delete_run(run.id)
    assert look(LIMITED, LIMITED) == [0, 0]


def test_a_write_that_the_archive_did_not_take_is_made_again(store, run):
    hurried = Store.open(store.url, patience=0.1)
    look = Looks(hurried, run)
    look(LIMITED)
    with closing(sqlite3.connect(store.file)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ArchiveUnavailable):
            look(LIMITED)
    assert look(LIMITED, LIMITED) == [2, 0]
    hurried.close()
