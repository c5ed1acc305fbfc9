"""``python -m advisor guard``: a real run under the governor, and what is refused."""

import json
import shutil

import pytest
from factories import a_config
from probed import a_calibration, linear_holds

from advisor.__main__ import main
from advisor.experiments.study import runs_of
from storage.commandline import BadInput
from storage.errors import CalibrationNotFound, RunNotFound
from storage.records import RunStatus
from storage.store import Store
from trainer.__main__ import main as trainer

SETTING = {"steps": 8, "prompts": 4, "group_size": 4, "warmup_steps": 0, "evaluation_rollouts": 16}
EDGE = 4e-4
WORDS = [
    *("--workload", "arithmetic", "--max-staleness", "3", "--device", "cpu"),
    *(
        word
        for name, value in SETTING.items()
        for word in (f"--{name.replace('_', '-')}", f"{value}")
    ),
]


@pytest.fixture
def probed(tmp_path, etalon_home, monkeypatch):
    """A home with the warm start, and an archive with a probe of the setting."""
    shutil.copytree(etalon_home / "warm_starts", tmp_path / "warm_starts")
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    monkeypatch.delenv("ETALON_DB", raising=False)
    store = Store.open(None)
    holds = linear_holds([1e-4, 2e-4, 4e-4, 8e-4], EDGE)
    store.save_calibration(a_calibration(holds, a_config(device="cpu", **SETTING)))
    yield store
    store.close()


def guard(capsys, *words):
    code = main(["guard", *words, "--json"])
    return code, json.loads(capsys.readouterr().out)


def test_a_rate_beyond_what_the_probe_calls_safe_is_brought_down_and_every_action_told(
    probed, capsys
):
    code, answer = guard(capsys, *WORDS, "--learning-rate", "5e-3")
    assert code == 0
    assert answer["status"] == "finished"
    run = probed.run(answer["run_id"])
    [first, *_] = [event for event in probed.events(run.id) if event.kind == "governor"]
    rates = [row.learning_rate for row in probed.steps(run.id)]
    assert max(rates) < EDGE
    assert rates[0] == pytest.approx(first.data["factor"] * 5e-3)
    assert "not safe over 8 steps" in first.message
    [advice] = probed.recommendations(last=1)
    assert run.recommendation_id == advice.id
    assert rates[0] == pytest.approx(advice.answer["suggested_learning_rate"])
    assert answer["governor_events"] >= 1


def test_a_guarded_run_is_no_evidence_and_goes_on_under_the_same_bounds_only(probed, capsys):
    _, answer = guard(capsys, *WORDS, "--learning-rate", "5e-3")
    run_id = answer["run_id"]
    probed.update_run(run_id, status=RunStatus.STOPPED)
    with pytest.raises(BadInput, match="is kept by a governor"):
        trainer(["resume", run_id])
    for other in ("--learning-rate=1e-4", "--steps=900", "--loss=cispo", "--risk=0.5"):
        with pytest.raises(BadInput, match="not with --resume"):
            main(["guard", "--resume", run_id, other])
    probed.update_run(run_id, group="g")
    assert runs_of(probed, "g") == []
    assert (
        main(["recommend", "--run", run_id, "--max-staleness", "3", "--steps", "8", "--json"]) == 0
    )
    assert run_id not in json.loads(capsys.readouterr().out)["evidence"]


OTHER = ["--optimizer", "sgd", "--calibration", "20260101-120000-abcdef"]


@pytest.mark.parametrize(
    ("words", "fault"),
    [
        (["--risk", "2"], "risk: 2.0 is not allowed"),
        (["--risk", "much"], "risk: 'much' is not allowed"),
        (OTHER, "does not answer this"),
        (["--calibration", "nosuch"], "nosuch"),
    ],
)
def test_what_is_mistyped_is_refused_and_leaves_no_run(probed, words, fault):
    with pytest.raises((BadInput, CalibrationNotFound), match=fault):
        main(["guard", *WORDS, "--learning-rate", "5e-3", *words])
    assert probed.runs() == []


def test_a_run_that_is_not_there_does_not_go_on(probed):
    with pytest.raises(RunNotFound, match="nosuch"):
        main(["guard", "--resume", "nosuch"])
