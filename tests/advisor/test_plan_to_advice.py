"""From a plan over a stack's logs to an answer; the trainer stands in for the stack."""

import json
import re
import shlex
from contextlib import closing

import pytest
from factories import a_config
from stack_logs import write_log

from advisor.__main__ import main as advisor
from storage.__main__ import main as storage
from storage.commandline import run_command
from storage.store import Store
from trainer.launch import create_run
from trainer.worker import Worker

ASKED = "plan --max-staleness 3 --steps 300 --learning-rate 2e-4 --model-parameters 134000"
COMMANDS = {"advisor": advisor, "storage": storage}


@pytest.fixture(scope="module")
def trained(etalon_home, tmp_path_factory):
    """The steps of the planned runs, by rate and S: every stack plans the same three."""
    made = {}
    with (
        pytest.MonkeyPatch.context() as patch,
        closing(Store.open(str(tmp_path_factory.mktemp("own") / "own.db"))) as store,
    ):
        patch.setenv("ETALON_HOME", str(etalon_home))
        for rate, staleness in ((2e-4, 3), (6e-4, 3), (6e-4, 0)):
            setting = {"learning_rate": rate, "max_staleness": staleness, "steps": 60}
            run = create_run(store, a_config(**setting, bias_every=0, device="cpu"))
            Worker(store, run, lambda *_: None).run()
            made[rate, staleness] = store.steps(run.id)
    return made


def copied(capsys, line, *more):
    """Carry out a command as it was printed, in this process, and return its JSON."""
    python, _, package, *words = shlex.split(line)
    assert python == "python"
    code = run_command(COMMANDS[package], [*words, *more, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


OTHERS = [pytest.param(stack, marks=pytest.mark.long) for stack in ("trl", "trl_async", "prime_rl")]


@pytest.mark.parametrize("stack", ["verl", *OTHERS])
def test_the_logs_of_the_planned_runs_calibrate(stack, trained, tmp_path, capsys):
    planned = copied(capsys, f"python -m advisor {ASKED} --stack {stack}")
    db = f"sqlite:///{tmp_path / 'logs.db'}"
    for run in planned["runs"]:
        assert run["steps"] == 60
        rows = trained[run["learning_rate"], run["max_staleness"]]
        synced = re.search(r"parameter_sync_step=(\d+)", run["import"])
        log = write_log(
            tmp_path / f"{run['name']}.log", rows, stack, int(synced.group(1)) if synced else 1
        )
        copied(capsys, run["import"].replace("LOG", shlex.quote(str(log)), 1), "--db", db)
    answer = copied(capsys, planned["recommend"], "--learning-rate", "2e-4", "--db", db)
    assert answer["binding"] == "staleness"
    assert len(answer["evidence"]) == 3
    assert all("60 steps logged" in each for each in answer["evidence"])
    assert answer["low"] is not None
    assert "staleness" in answer["reason"]
    for name, value in answer.items():
        if value is None:
            assert answer[f"{name}_reason"], name
    # Of three seeds over 120 steps at S = 3 all are healthy at 4e-4 and all damaged at 8e-4.
    assert 2e-5 < answer["max_learning_rate"] < 8e-4
    if stack == "prime_rl":  # no clip fraction: the upper side is known only if a run was lost
        assert "M2" in answer["reason"]
        return
    assert answer["low"] < answer["edge"] < answer["high"]
    assert answer["high"] > 4e-4
    assert answer["unsafe_probability"] is not None
