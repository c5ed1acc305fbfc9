"""``python -m advisor alerts``, and what ``watch`` delivers."""

import json
import time

import pytest
from alerting import a_webhook, destinations, raised, sent
from factories import a_run, fill

from advisor import serve
from advisor.__main__ import main
from advisor.experiments.watch import Watcher
from storage.commandline import BadInput, run_command
from storage.records import RunStatus


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
