"""How an alert is told and sent: in the words of each webhook, and to a command."""

import json
import logging
import os
import re
import signal
import sys

import pytest
from alerting import (
    HOSTILE,
    PATIENT,
    a_hostile_alert,
    a_webhook,
    destinations,
    raised,
    sent,
    states,
)
from factories import a_run
from processes import wait_until

from advisor.alerts.payloads import MOST_CHARACTERS, payload_of, text_of
from advisor.alerts.sending import NotDelivered, send
from storage.records import DeliveryState

KINDS = ("slack", "discord", "json")


# -- what each is told ----------------------------------------------------------------------------


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
