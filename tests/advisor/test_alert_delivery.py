"""Alerts reach real receivers: once, in each one's words, and whatever a receiver does."""

import json
import logging
import os
import re
import signal
import sys
import threading
import time
from multiprocessing import get_context

import pytest
from factories import a_run, fill
from processes import PATIENCE, wait_until
from receivers import receiving
from sqlalchemy import update

from advisor import serve
from advisor.__main__ import main
from advisor.alerts.courier import TOO_OLD_SECONDS, Courier
from advisor.alerts.episodes import Episodes
from advisor.alerts.payloads import MOST_CHARACTERS, alert_of, payload_of, text_of
from advisor.alerts.rules import Alerting
from advisor.alerts.sending import NotDelivered, send
from advisor.experiments.watch import Watcher
from storage.commandline import BadInput, run_command
from storage.models import alert_deliveries
from storage.records import AlertDelivery, DeliveryState, RunStatus
from storage.store import Store

HOSTILE = "<!channel> @everyone [x](http://evil.example) <http://evil.example|x>\nfake: line\u202e"
AT_ONCE = (0.0, 0.0)
PATIENT = {"seconds": 60}  # the most that is allowed
KINDS = ("slack", "discord", "json")


@pytest.fixture
def receiver():
    with receiving() as server:
        yield server


@pytest.fixture
def run(store):
    run = a_run(name="night")
    store.create_run(run)
    return run


def a_webhook(url, kind="json"):
    return {"webhook": url, "kind": kind}


def destinations(**given):
    return Alerting.model_validate({"destinations": given}).known_destinations


def raised(store, run, *names, subject="s", message="κ is 1.2"):
    words = {"rule": "limits", "subject": subject, "message": message, "step": 7}
    store.raise_alert(run_id=run.id, **words, destinations=names)


def sent(store, known, *, backoff=AT_ONCE, seconds=PATIENCE):
    """Deliver until nothing is due any more."""
    Courier(store, known, backoff).finish(seconds)
    return store.deliveries()


def states(deliveries):
    return {each.destination: (each.state, each.attempts, each.failure) for each in deliveries}


# -- what each is told ----------------------------------------------------------------------------


def a_hostile_alert(message="κ is 1.2"):
    about = {"rule": "limits", "subject": "s", "episode": 1, "destination": "d", "time": 1.0}
    delivery = AlertDelivery(run_id="r", **about, message=message, step=7)
    return alert_of(delivery, a_run(id="r", name=HOSTILE))


def test_each_kind_of_webhook_is_told_in_its_own_words(store, receiver):
    run = a_run(name=HOSTILE, group="g")
    store.create_run(run)
    raised(store, run, *KINDS)
    found = sent(store, destinations(**{k: a_webhook(f"{receiver.url}/{k}", k) for k in KINDS}))
    assert {each.state for each in found} == {DeliveryState.DELIVERED}
    told = {path.rpartition("/")[2]: payload for path, payload in receiver.received}
    assert len(receiver.received) == len(told) == 3
    assert told["slack"]["text"].startswith("limits: run &lt;!channel&gt; @everyone [x]")
    assert "<" not in told["slack"]["text"]
    assert told["slack"]["unfurl_links"] is False
    assert told["discord"]["content"].startswith(r"limits\: run \<!channel\> \@everyone \[x\]\(")
    assert told["discord"]["allowed_mentions"] == {"parse": []}
    for text in (told["slack"]["text"], told["discord"]["content"]):
        assert text.isprintable()
        assert "at step 7" in text
    expected = {"rule": "limits", "subject": "s", "episode": 1, "run_id": run.id, "run": HOSTILE}
    expected |= {"group": "g", "status": "queued", "step": 7, "message": "κ is 1.2"}
    assert told["json"].items() >= expected.items()


@pytest.mark.parametrize("letter", ["&", "<", "*", "@", "😀", "a"])
def test_no_text_is_longer_than_a_chat_takes_and_no_escape_is_cut(letter):
    alert = a_hostile_alert(message=letter * 5000)
    assert len(text_of(alert)) == MOST_CHARACTERS
    slack, discord = payload_of("slack", alert)["text"], payload_of("discord", alert)["content"]
    assert len(slack) <= 4000
    assert len(discord.encode("utf-16-le")) / 2 <= 2000
    assert slack.endswith("…")
    assert re.sub("&(amp|lt|gt);", "", slack).count("&") == 0


def test_a_name_begins_no_line_of_its_own_in_the_log(store, caplog):
    run = a_run(name=HOSTILE)
    store.create_run(run)
    raised(store, run, "log")
    sent(store, destinations())
    [message] = caplog.messages
    assert message.splitlines() == [message]
    assert message.startswith("limits: run <!channel> @everyone")
    assert caplog.records[0].levelno == logging.WARNING


# -- commands -------------------------------------------------------------------------------------


def test_a_command_is_given_the_alert_on_its_input_and_no_shell_sees_it(store, tmp_path):
    run, file = a_run(name="$(touch trap); `touch trap`"), tmp_path / "given"
    store.create_run(run)
    code = "import sys; open(sys.argv[1], 'w').write(sys.stdin.read() + sys.argv[2])"
    given = {"command": [sys.executable, "-c", code, str(file), "; touch trap"]} | PATIENT
    raised(store, run, "page")
    assert states(sent(store, destinations(page=given)))["page"][0] is DeliveryState.DELIVERED
    told, end, _ = file.read_text().partition("; touch trap")
    assert end
    assert json.loads(told)["run"] == run.name
    assert not list(tmp_path.rglob("trap"))


@pytest.mark.parametrize(
    ("command", "failure"),
    [
        ([sys.executable, "-c", "raise SystemExit(3)"], "the command ended with 3"),
        (["/nowhere/page"], "the command does not start: No such file or directory"),
        (["a\0b"], "the command does not start: ValueError"),
    ],
)
def test_a_command_that_fails_says_how(command, failure):
    with pytest.raises(NotDelivered) as failed:
        send(destinations(page={"command": command} | PATIENT)["page"], a_hostile_alert())
    assert (failed.value.reason, failed.value.final) == (failure, False)


def test_a_command_that_takes_too_long_ends_with_all_that_it_started(tmp_path):
    file = tmp_path / "child"
    code = 'sleep 600 & echo $! > "$0"; wait'  # a shell begins in no time
    known = destinations(page={"command": ["sh", "-c", code, str(file)], "seconds": 3})
    with pytest.raises(NotDelivered, match="took longer than 3 s"):
        send(known["page"], a_hostile_alert())
    wait_until(lambda: _is_gone(int(file.read_text())))


def test_a_command_that_cannot_be_ended_is_waited_for_no_longer(monkeypatch):
    """As is one of another user, which a setuid program becomes."""
    begun = []

    def refused(group, signal):
        begun.append(group)
        raise PermissionError

    known = destinations(page={"command": ["sleep", "600"], "seconds": 1})
    with monkeypatch.context() as patch:
        patch.setattr(os, "killpg", refused)
        with pytest.raises(NotDelivered, match="took longer than 1 s, and cannot be ended"):
            send(known["page"], a_hostile_alert())
    os.kill(begun[0], signal.SIGKILL)


def test_a_command_is_given_no_password_of_the_environment(tmp_path, monkeypatch):
    file = tmp_path / "given"
    monkeypatch.setenv("ETALON_DB", "postgresql+psycopg://me@h/etalon")
    monkeypatch.setenv("PGPASSWORD", "s3cret")
    monkeypatch.setenv("HTTPS_PROXY", "http://me:s3cret@proxy:3128")
    monkeypatch.setenv("OTHER", "postgresql://h/x?user=me&password=s3cret")
    monkeypatch.setenv("KEPT", "https://example.org:8080/page")
    code = "import json, os, sys; json.dump(dict(os.environ), open(sys.argv[1], 'w'))"
    known = destinations(page={"command": [sys.executable, "-c", code, str(file)]} | PATIENT)
    send(known["page"], a_hostile_alert())
    given = json.loads(file.read_text())
    assert {"PATH", "KEPT"} <= given.keys()
    assert "ETALON_DB" not in given
    assert "s3cret" not in str(given)


def _is_gone(pid):
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123  # a zombie has nobody to wait for it
        return stat.read().rpartition(")")[2].split()[0] == "Z"


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


# -- commands of the advisor ----------------------------------------------------------------------


@pytest.fixture
def file(tmp_path, receiver):
    path = tmp_path / "alerts.toml"
    path.write_text(
        f'[destinations.phone]\nwebhook = "{receiver.url}"\nkind = "slack"\n'
        '[rules.ended]\nended = ["failed", "finished"]\nto = ["phone"]\n'
    )
    path.chmod(0o600)
    return str(path)


def test_watch_delivers_how_the_last_run_ended_before_it_ends_itself(
    store, receiver, file, capsys, monkeypatch
):
    run = a_run(status=RunStatus.RUNNING)
    fill(store, run, steps=3)
    end = {"status": RunStatus.FAILED, "error": "MemoryError: no memory", "ended_at": time.time()}
    look = Watcher.look

    def then_it_ends(watcher):
        found = look(watcher)
        store.update_run(run.id, **end)
        return found

    monkeypatch.setattr(Watcher, "look", then_it_ends)
    words = ["--every", "0.2", "--until-idle", "--alerts", file, "--json"]
    assert main(["watch", "--db", store.url, *words]) == 0
    assert json.loads(capsys.readouterr().out) == {"events": 0, "alerts": 1}
    [payload] = receiver.payloads
    assert payload["text"].endswith("at step 2: the run ended failed: MemoryError: no memory")
    assert main(["watch", "--db", store.url, *words]) == 0
    assert json.loads(capsys.readouterr().out) == {"events": 0, "alerts": 0}
    assert len(receiver.received) == 1


def test_deliveries_are_listed_and_missing_values_have_a_reason(store, run, receiver, capsys):
    receiver.answers = [(404, {})]
    raised(store, run, "phone")
    sent(store, destinations(phone=a_webhook(receiver.url)))
    raised(store, run, "log")
    assert main(["alerts", "--db", store.url, "--run", run.id, "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)["deliveries"]
    by_destination = {each["destination"]: each for each in listed}
    assert by_destination["phone"]["failure"] == "HTTP 404"
    assert by_destination["phone"]["due_at_reason"] == "it is settled"
    assert by_destination["log"]["failure_reason"] == "no try has failed"
    assert by_destination["log"]["settled_at_reason"] == "it is pending"
    assert main(["alerts", "--db", store.url]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [("failed" in line, "(HTTP 404)" in line) for line in lines].count((True, True)) == 1
    assert run_command(main, ["alerts", "--db", store.url, "--run", "nosuch"]) == 2
    assert capsys.readouterr().out == ""


def test_a_message_that_is_listed_tells_the_terminal_nothing(store, run, capsys):
    raised(store, run, "log", message="\x1b[2J gone\nfake: line\u202e")
    assert main(["alerts", "--db", store.url]) == 0
    [line] = capsys.readouterr().out.splitlines()
    assert line.isprintable()
    assert line.endswith("limits:  [2J gone fake: line ")


def test_without_alerts_the_list_says_who_raises_them(store, capsys):
    assert main(["alerts", "--db", store.url]) == 0
    assert capsys.readouterr().out == "no alerts yet; python -m advisor watch raises them\n"


def test_a_destination_can_be_tested(receiver, file, capsys):
    receiver.answers = [(200, {}), (403, {})]
    words = ["alerts", "--alerts", file, "--test"]
    assert main([*words, "phone"]) == 0
    assert receiver.payloads[0]["text"] == "test: run none: a test; alerts arrive here"
    assert main([*words, "phone", "--json"]) == 1
    said = json.loads(capsys.readouterr().out.splitlines()[1])
    failed = {"destination": "phone", "delivered": False, "delivered_reason": "HTTP 403"}
    assert said == failed
    with pytest.raises(BadInput, match="test: there is no destination 'fax'; allowed: log, phone"):
        main([*words, "fax"])


@pytest.mark.parametrize("words", [["watch"], ["alerts", "--test", "log"]])
def test_a_bad_file_ends_a_command_in_one_line_and_makes_no_archive(
    tmp_path, monkeypatch, capsys, words
):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    monkeypatch.delenv("ETALON_DB", raising=False)
    (tmp_path / "alerts.toml").write_text("[rules.a]\nkappa_above = -1\n")
    assert run_command(main, words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert len(err.splitlines()) == 1
    assert "alerts.toml: rules.a.kappa_above: -1 is not allowed" in err
    assert run_command(serve.main, ["--no-demo"]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["alerts.toml"]
