"""The files in docs/alerts.md are what they say: read, and carried out against real receivers."""

import re
import sys
import threading
import time
import tomllib
from contextlib import contextmanager

from factories import a_run, fill
from processes import PROJECT, wait_until
from receivers import receiving

from advisor.__main__ import main
from advisor.alerts.courier import BACKOFF
from advisor.alerts.episodes import CLEAR_SECONDS
from advisor.alerts.rules import CONDITIONS, DEFAULT_RULES, alerting
from storage.records import DeliveryState, RunStatus

GUIDE = (PROJECT / "docs" / "alerts.md").read_text(encoding="utf-8")
DEFAULTS, EXAMPLE = re.findall(r"```toml\n(.*?)```", GUIDE, re.S)


def test_the_rules_without_a_file_are_those_of_the_guide():
    assert tomllib.loads(DEFAULTS) == {"rules": DEFAULT_RULES}


def test_the_guide_tells_every_condition_and_the_numbers_of_the_program(tmp_path):
    (tmp_path / "alerts.toml").write_text(EXAMPLE)
    rules = alerting(str(tmp_path / "alerts.toml")).rules.values()
    assert {rule.condition for rule in rules} == set(CONDITIONS)
    assert all(f"| `{name}` |" in GUIDE for name in CONDITIONS)
    assert f"{len(BACKOFF) + 1} times in all, after 5 s, 15 s, 1, 5, 15 and 60 minutes" in GUIDE
    assert BACKOFF == (5, 15, 60, 5 * 60, 15 * 60, 60 * 60)
    assert CLEAR_SECONDS == 60


def test_the_example_alerts(store, tmp_path):
    """A live run beyond its limit, and one that failed a moment ago."""
    limited = a_run(name="one", group="night-1", status=RunStatus.RUNNING)
    fill(store, limited, steps=60, drift=50.0)
    ended = {"status": RunStatus.FAILED, "ended_at": time.time(), "error": "MemoryError"}
    failed = a_run(name="a large one", kind="sweep", **ended)
    store.create_run(failed)
    store.tag_run(failed.id, ["watched"])
    page = tmp_path / "page-me"
    page.write_text(f"#!{sys.executable}\nimport sys\nassert sys.argv[1:] == ['--urgent']\n")
    page.chmod(0o700)
    file = tmp_path / "alerts.toml"
    with receiving() as server:
        text = EXAMPLE.replace("/usr/local/bin/page-me", str(page))
        file.write_text(re.sub(r'https://[^"]+', server.url, text))
        file.chmod(0o600)
        assert main(["alerts", "--alerts", str(file), "--test", "page"]) == 0
        words = ["watch", "--alerts", str(file), "--every", "0.1", "--until-idle", "--db"]
        with _ending(store, limited.id):
            assert main([*words, store.url]) == 0
    found = {(d.rule, d.subject, d.destination, d.state) for d in store.deliveries()}
    arrived = DeliveryState.DELIVERED
    assert found == {
        ("limits", "staleness_limited", "team", arrived),
        ("close", "staleness", "log", arrived),
        ("close", "staleness", "night", arrived),
        ("over", "failed", "team", arrived),
    }
    assert sorted("content" in payload for payload in server.payloads) == [False, False, True]


@contextmanager
def _ending(store, run_id):
    """Let a run end well once its three alerts are there."""

    def end():
        wait_until(lambda: len(store.deliveries(run_id)) == 3)
        store.update_run(run_id, status=RunStatus.FINISHED, outcome="healthy")

    thread = threading.Thread(target=end)
    thread.start()
    yield
    thread.join()
