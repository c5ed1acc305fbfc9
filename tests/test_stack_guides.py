"""The guides to the stacks: their own command lines are carried out on recorded logs."""

import json
import re
import shlex
from pathlib import Path

import pytest

from advisor import __main__ as advisor
from storage import __main__ as storage
from storage.commandline import run_command
from storage.importers.stacks import STACKS

ROOT = Path(__file__).parent.parent
GUIDES = {
    page.stem.replace("-", "_"): page.read_text(encoding="utf-8")
    for page in sorted((ROOT / "docs" / "stacks").glob("*.md"))
    if page.stem != "README"
}
LOGS = Path(__file__).parent / "storage" / "logs"
EXITS = {"staleness_limited": 3, "insufficient_data": 4}
MAINS = {"storage": storage.main, "advisor": advisor.main}


def test_every_stack_with_a_recorded_log_has_its_page():
    assert {*GUIDES} == {path.parent.name for path in LOGS.glob("*/expected.json")} - {"wandb"}
    shared = (ROOT / "docs" / "stacks" / "README.md").read_text(encoding="utf-8")
    assert all(f"({name.replace('_', '-')}.md)" in shared for name in GUIDES)


@pytest.mark.parametrize("name", GUIDES)
def test_a_guide_leads_from_a_log_to_a_diagnosis_and_settings(name, tmp_path, monkeypatch, capsys):
    if any("tfevents" in path.name for path in (LOGS / name).rglob("*")):
        pytest.importorskip("tensorboard", reason="no tensorboard")
    monkeypatch.chdir(LOGS / name)
    commands = re.findall(r"^    python -m (storage|advisor) (.*)$", GUIDES[name], re.M)
    assert [words.split()[0] for _, words in commands] == ["import", "diagnose", "recommend"]
    answers, run = [], "RUN"
    for package, words in commands:
        line = shlex.split(words.replace("RUN", run))
        status = run_command(MAINS[package], [*line, "--db", str(tmp_path / "a.db"), "--json"])
        shown = capsys.readouterr()
        assert shown.err == ""
        answers.append((status, json.loads(shown.out)))
        run = answers[0][1]["run_id"]
    (_, imported), (found, diagnosis), (_, advice) = answers
    expected = json.loads((LOGS / name / "expected.json").read_text())
    assert [status for status, _ in answers] == [0, EXITS[expected["regime"]], 0]
    assert (imported["stack"], imported["rows"]) == (expected["stack"], 40)
    assert diagnosis["regime"] == expected["regime"]
    assert found == EXITS[diagnosis["regime"]]
    stack = STACKS[name]
    if advice["max_learning_rate"] is None:  # the recorded run is far past the edge from its start
        assert name == "trl"
        assert "log a run at a lower learning rate" in advice["reason"]
        assert (advice["settings"], advice["settings_reason"]) == (None, "no rate is advised")
    else:
        assert f"{stack.title}: rate " in advice["settings"]
        assert stack.knob.rpartition(".")[2] in advice["settings"]
    keys = set(re.findall(r"`([\w/]+/[\w/]+)`", GUIDES[name]))
    logged = [*imported["mapped"], *imported["kept_against"]]
    assert any(each.startswith(tuple(keys)) for each in logged), "it speaks of its own keys"
