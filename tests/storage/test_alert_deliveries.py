"""An alert is raised once, and of all who would deliver it one does, on either database."""

from concurrent.futures import ThreadPoolExecutor

import pytest
from factories import a_run

from storage.errors import RunNotFound
from storage.records import DeliveryState
from storage.store import Store

WORDS = {"rule": "limits", "subject": "staleness", "message": "κ is 1.2", "step": 7}


@pytest.fixture
def run_id(store):
    run = a_run()
    store.create_run(run)
    return run.id


def raised(store, run_id, *destinations, **changes):
    return store.raise_alert(run_id=run_id, **{**WORDS, **changes}, destinations=destinations)


def at_once(url, work, times=4):
    """Do the work side by side, each through a connection of its own."""
    stores = [Store.open(url) for _ in range(times)]
    try:
        with ThreadPoolExecutor(times) as pool:
            return list(pool.map(work, stores))
    finally:
        for each in stores:
            each.close()


def test_an_episode_is_raised_once_and_the_next_when_it_was_cleared(store, run_id):
    assert raised(store, run_id, "log", "phone", "log") == 2
    assert raised(store, run_id, "log", "phone") == 0
    assert raised(store, run_id, "log", "page") == 1, "a destination that came later"
    store.clear_alerts(run_id, [("limits", "horizon"), ("other", "staleness")])
    assert raised(store, run_id, "log") == 0, "others were cleared"
    store.clear_alerts(run_id, [("limits", "staleness")])
    assert raised(store, run_id, "log") == 1
    assert raised(store, run_id, "log", subject="horizon") == 1
    found = {
        (d.subject, d.episode, d.destination, d.cleared_at is None) for d in store.deliveries()
    }
    assert found == {
        ("staleness", 1, "log", False),
        ("staleness", 1, "phone", False),
        ("staleness", 1, "page", False),
        ("staleness", 2, "log", True),
        ("horizon", 1, "log", True),
    }


def test_of_watchers_that_raise_at_once_one_does(store, run_id):
    new = at_once(store.url, lambda each: raised(each, run_id, "log", "phone"))
    assert sorted(new) == [0, 0, 0, 2]


def test_of_watchers_that_claim_at_once_each_gets_another_delivery(store, run_id):
    raised(store, run_id, "log")
    raised(store, run_id, "log", subject="horizon")
    claimed = at_once(store.url, lambda each: each.claim_delivery("log", seconds=3600))
    got = [each.subject for each in claimed if each is not None]
    assert sorted(got) == ["horizon", "staleness"]


def test_a_delivery_comes_back_as_it_was_raised_and_goes_when_the_run_does(store, run_id):
    raised(store, run_id, "phone")
    [found] = store.deliveries(run_id)
    assert {name: getattr(found, name) for name in WORDS} == WORDS
    assert (found.state, found.attempts, found.failure) == (DeliveryState.PENDING, 0, None)
    assert store.deliveries("another") == []
    store.delete_run(run_id)
    assert store.deliveries() == []
    with pytest.raises(RunNotFound):
        raised(store, run_id, "phone")


def test_what_was_delivered_is_nobodys_to_deliver(store, run_id):
    raised(store, run_id, "phone")
    claimed = store.claim_delivery("phone", seconds=0)
    store.settle_delivery(claimed)
    assert store.claim_delivery("phone", seconds=0) is None
    assert store.deliveries_due_in() == {}
    [found] = store.deliveries()
    assert (found.state, found.attempts, found.due_at) == (DeliveryState.DELIVERED, 1, None)
    assert found.settled_at is not None


def test_a_claim_keeps_others_away_until_it_runs_out(store, run_id):
    raised(store, run_id, "phone")
    assert store.claim_delivery("elsewhere", seconds=3600) is None
    assert store.claim_delivery("phone", seconds=3600) is not None
    assert store.claim_delivery("phone", seconds=3600) is None
    assert 3000 < store.deliveries_due_in()["phone"] <= 3600


def test_who_was_too_slow_to_fail_changes_nothing_and_to_succeed_does(store, run_id):
    raised(store, run_id, "phone")
    slow = store.claim_delivery("phone", seconds=0)
    store.claim_delivery("phone", seconds=3600)
    store.postpone_delivery(slow, seconds=0, failure="HTTP 500")
    store.settle_delivery(slow, "HTTP 404")
    assert store.claim_delivery("phone", seconds=3600) is None, "the second claim holds"
    store.settle_delivery(slow)
    [found] = store.deliveries()
    assert (found.state, found.attempts) == (DeliveryState.DELIVERED, 2)


def test_what_did_not_succeed_is_tried_again_and_given_up_for_a_reason(store, run_id):
    raised(store, run_id, "phone")
    first = store.claim_delivery("phone", seconds=3600)
    store.postpone_delivery(first, seconds=0, failure="HTTP 500")
    second = store.claim_delivery("phone", seconds=3600)
    assert (second.attempts, second.failure) == (2, "HTTP 500")
    store.settle_delivery(second, "HTTP 404")
    [found] = store.deliveries()
    assert (found.state, found.failure) == (DeliveryState.FAILED, "HTTP 404")
    assert store.claim_delivery("phone", seconds=0) is None


def test_what_nobody_claims_for_too_long_is_given_up_and_nothing_else_is(store, run_id):
    raised(store, run_id, "phone", "page")
    store.claim_delivery("page", seconds=3600)
    assert store.give_up_deliveries("phone", overdue=3600, failure="gone") == 0
    assert store.give_up_deliveries("page", overdue=0, failure="gone") == 0, "it is claimed"
    assert store.give_up_deliveries("phone", overdue=0, failure="gone") == 1
    found = {each.destination: (each.state, each.failure) for each in store.deliveries()}
    assert found == {"phone": (DeliveryState.FAILED, "gone"), "page": (DeliveryState.PENDING, None)}
    assert "phone" not in store.deliveries_due_in()
