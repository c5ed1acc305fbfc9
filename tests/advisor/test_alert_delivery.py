"""Alerts reach real receivers once, whatever a receiver does, and no archive holds an address."""

import logging
import threading
import time
from multiprocessing import get_context

import pytest
from alerting import AT_ONCE, a_hostile_alert, a_webhook, destinations, raised, sent, states
from factories import a_run, fill
from processes import PATIENCE, wait_until
from receivers import receiving
from sqlalchemy import update

from advisor.__main__ import main
from advisor.alerts.courier import TOO_OLD_SECONDS, Courier
from advisor.alerts.episodes import Episodes
from advisor.alerts.rules import Alerting
from advisor.alerts.sending import NotDelivered, send
from advisor.experiments.watch import Watcher
from storage.models import alert_deliveries
from storage.records import DeliveryState, RunStatus
from storage.store import Store

# -- receivers that misbehave ---------------------------------------------------------------------


def test_a_receiver_that_fails_for_a_while_is_told_once(store, run, receiver):
    receiver.answers = [(500, {}), (503, {})]
    raised(store, run, "phone")
    found = states(sent(store, destinations(phone=a_webhook(receiver.url))))
    assert found == {"phone": (DeliveryState.DELIVERED, 3, None)}
    assert len(receiver.received) == 3


def test_one_that_fails_on_is_given_up_after_the_last_try(store, run, receiver, caplog):
    receiver.answers = [(500, {})] * 9
    raised(store, run, "phone")
    found = states(sent(store, destinations(phone=a_webhook(receiver.url))))
    assert found == {"phone": (DeliveryState.FAILED, 3, "HTTP 500")}
    assert len(receiver.received) == 3
    assert caplog.messages == [
        f"alert limits of run {run.id} did not reach phone in 3 tries: HTTP 500"
    ]


@pytest.mark.parametrize(
    ("status", "failure"),
    [
        (404, "HTTP 404"),
        (400, "HTTP 400"),
        (302, "HTTP 302, a redirect, and none is followed"),
        (307, "HTTP 307, a redirect, and none is followed"),
    ],
)
def test_what_would_come_again_is_final_and_no_redirect_is_followed(receiver, status, failure):
    receiver.answers = [(status, {"Location": f"{receiver.url}/elsewhere"})]
    with pytest.raises(NotDelivered) as failed:
        send(destinations(phone=a_webhook(receiver.url))["phone"], a_hostile_alert())
    assert (failed.value.reason, failed.value.final) == (failure, True)
    assert len(receiver.received) == 1


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("120.5", 120.5),
        ("999999999", 3600.0),
        ("Fri, 01 Jan 2100 00:00:00 GMT", 3600.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("nan", None),
        ("soon", None),
        ("-3", 0.0),
    ],
)
def test_one_that_asks_for_time_is_understood(receiver, header, seconds):
    receiver.answers = [(429, {"Retry-After": header})]
    with pytest.raises(NotDelivered, match="HTTP 429") as failed:
        send(destinations(phone=a_webhook(receiver.url))["phone"], a_hostile_alert())
    assert (failed.value.after, failed.value.final) == (seconds, False)


@pytest.mark.parametrize(("header", "seconds"), [("120", 120), ("0", 30)])
def test_one_that_asks_for_time_is_given_it_at_least(store, run, receiver, header, seconds):
    receiver.answers = [(429, {"Retry-After": header})]
    raised(store, run, "phone")
    courier = Courier(store, destinations(phone=a_webhook(receiver.url)), backoff=(30.0,))
    courier.send_due()
    courier.wait(PATIENCE)
    [found] = store.deliveries()
    assert (found.state, found.failure) == (DeliveryState.PENDING, "HTTP 429")
    assert store.deliveries_due_in()["phone"] == pytest.approx(seconds, abs=15)


def test_one_that_is_not_there_is_tried_again(store, run, receiver):
    url = receiver.url.replace(str(receiver.server_port), "9")  # discard, which nobody serves
    raised(store, run, "phone")
    found = states(sent(store, destinations(phone=a_webhook(url))))
    why = "it cannot be reached: Connection refused"
    assert found == {"phone": (DeliveryState.FAILED, 3, why)}


def test_one_that_hangs_holds_up_nobody_and_is_given_up(store, run, receiver):
    receiver.drips = True
    raised(store, run, "phone", "log")
    known = destinations(phone=a_webhook(receiver.url) | {"seconds": 2})
    courier = Courier(store, known, backoff=(999.0,))
    courier.send_due()
    wait_until(lambda: states(store.deliveries())["log"][0] is DeliveryState.DELIVERED)
    raised(store, run, "log", subject="other")
    courier.send_due()
    wait_until(lambda: len([d for d in store.deliveries() if d.settled_at is not None]) == 2)
    courier.wait(PATIENCE)
    found = {d.destination: d.failure for d in store.deliveries()}
    assert found["phone"] == "no answer within 2 s"


# -- once -----------------------------------------------------------------------------------------


def test_two_watchers_and_one_that_starts_later_deliver_once(store, receiver):
    """Real looks at a real run, by watchers with a connection of their own, side by side."""
    fill(store, a_run(status=RunStatus.RUNNING), steps=60, drift=50.0)
    rules = Alerting.model_validate(
        {
            "rules": {"limits": {"regime": ["staleness_limited"], "to": ["phone", "log"]}},
            "destinations": {"phone": a_webhook(receiver.url)},
        }
    )

    def watch():
        own = Store.open(store.url)
        watcher, episodes = Watcher(own), Episodes(own, rules)
        courier = Courier(own, rules.known_destinations)
        for _ in range(4):
            watcher.look()
            episodes.follow(watcher.sights)
            courier.send_due()
        courier.finish(PATIENCE)
        own.close()

    for count in (3, 1):
        threads = [threading.Thread(target=watch) for _ in range(count)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
    assert len(receiver.received) == 1
    found = states(store.deliveries())
    assert found == dict.fromkeys(("phone", "log"), (DeliveryState.DELIVERED, 1, None))


def test_a_watcher_that_is_killed_leaves_what_it_did_not_record_to_the_next(
    store, receiver, tmp_path
):
    """The first alert is recorded, the second on its way when the process is killed."""
    fill(store, a_run(status=RunStatus.RUNNING), steps=60, drift=50.0)
    file = tmp_path / "alerts.toml"
    with receiving() as hanging:
        hanging.drips = True
        file.write_text(TWO_RULES.format(phone=receiver.url, page=hanging.url))
        words = ["watch", "--every", "0.2", "--db", store.url, "--alerts", str(file), "--json"]
        watch = get_context("fork").Process(target=main, args=(words,))
        watch.start()
        wait_until(lambda: _delivered(store) and hanging.received)
        watch.kill()
        watch.join()
    assert states(store.deliveries())["page"] == (DeliveryState.PENDING, 1, None)
    with store.writing() as connection:  # as if the claim had run out
        connection.execute(update(alert_deliveries).values(due_at=0.0))
    known = destinations(phone=a_webhook(receiver.url), page=a_webhook(receiver.url))
    found = states(sent(store, known))
    assert found["phone"] == (DeliveryState.DELIVERED, 1, None)
    assert found["page"] == (DeliveryState.DELIVERED, 2, None)
    assert [payload["rule"] for payload in receiver.payloads] == ["first", "second"]


TWO_RULES = """
[rules.first]
regime = ["staleness_limited"]
to = ["phone"]
[rules.second]
kappa_above = 1
kappa = ["staleness"]
to = ["page"]
[destinations.phone]
webhook = "{phone}"
kind = "json"
[destinations.page]
webhook = "{page}"
kind = "json"
seconds = 60
"""


def _delivered(store):
    return DeliveryState.DELIVERED in {each.state for each in store.deliveries()}


def test_what_kills_whoever_sends_it_is_not_sent_for_ever(store, run, receiver):
    raised(store, run, "phone")
    for _ in range(len(AT_ONCE) + 1):
        store.claim_delivery("phone", seconds=0)
    found = states(sent(store, destinations(phone=a_webhook(receiver.url))))
    assert found == {"phone": (DeliveryState.FAILED, 4, "whoever sent it ended meanwhile")}
    assert receiver.received == []


def test_yesterdays_alert_is_not_sent(store, run, receiver):
    raised(store, run, "phone")
    with store.writing() as connection:
        old = time.time() - TOO_OLD_SECONDS - 1
        connection.execute(update(alert_deliveries).values(time=old))
    found = states(sent(store, destinations(phone=a_webhook(receiver.url))))
    assert found["phone"][0] is DeliveryState.FAILED
    assert receiver.received == []


@pytest.mark.parametrize(
    ("overdue", "found"),
    [
        (TOO_OLD_SECONDS - 60, (DeliveryState.PENDING, 0, None)),
        (TOO_OLD_SECONDS, (DeliveryState.FAILED, 0, "the file names no such destination")),
    ],
)
def test_another_files_destinations_are_left_to_their_own_watcher_for_a_day(
    store, run, overdue, found
):
    raised(store, run, "elsewhere")
    with store.writing() as connection:
        connection.execute(update(alert_deliveries).values(due_at=time.time() - overdue))
    raised(store, run, "elsewhere", subject="new")
    for _ in range(2):
        kept = {each.subject: each for each in sent(store, destinations())}
        assert states([kept["s"]]) == {"elsewhere": found}
        assert states([kept["new"]]) == {"elsewhere": (DeliveryState.PENDING, 0, None)}


# -- secrets --------------------------------------------------------------------------------------


def test_no_address_is_in_the_archive_or_in_the_log(store, run, receiver, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    receiver.answers = [(500, {}), (302, {"Location": receiver.url})]
    gone = receiver.url.replace(str(receiver.server_port), "9")
    names = ("phone", "gone", "odd")
    raised(store, run, *names)
    known = destinations(
        phone=a_webhook(receiver.url),
        gone=a_webhook(gone),
        odd=a_webhook("https://no-such-host.invalid/services/SECRET"),
    )
    found = sent(store, known)
    assert {each.state for each in found} == {DeliveryState.FAILED}
    written = b"".join(file.read_bytes() for file in store.file.parent.glob("archive.db*"))
    assert run.id.encode() in written
    out, err = capfd.readouterr()
    for text in (written.decode("latin-1"), caplog.text, out, err):
        assert "SECRET" not in text
