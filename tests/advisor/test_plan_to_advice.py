"""From a plan over a stack's logs to an answer; the trainer stands in for the stack."""

import json
import shlex

import pytest
from processes import ended, start
from stack_logs import write_log

from advisor.__main__ import main as advisor
from storage.__main__ import main as storage
from storage.commandline import run_command
from storage.store import Store

ASKED = "plan --max-staleness 3 --steps 300 --learning-rate 2e-4 --model-parameters 134000"
COMMANDS = {"advisor": advisor, "storage": storage}


@pytest.fixture(scope="module")
def trained(etalon_home, tmp_path_factory):
    """The steps of the planned runs, by rate and S: every stack plans the same three."""
    url = f"sqlite:///{tmp_path_factory.mktemp('own') / 'own.db'}"
    Store.open(url).close()
    settings = [(2e-4, 3), (6e-4, 3), (6e-4, 0)]
    processes = {
        (rate, staleness): start(
            *f"-m trainer run --workload arithmetic --learning-rate {rate} --max-staleness "
            f"{staleness} --steps 60 --seed 5 --bias-every 0 --db {url} --json".split(),
            home=etalon_home,
        )
        for rate, staleness in settings
    }
    ids = {key: json.loads(ended(each).stdout)["run_id"] for key, each in processes.items()}
    opened = Store.open(url, create=False)
    yield {key: opened.steps(run_id) for key, run_id in ids.items()}
    opened.close()


def copied(capsys, line, *more):
    """Carry out a command as it was printed, in this process, and return its JSON."""
    python, _, package, *words = shlex.split(line)
    assert python == "python"
    code = run_command(COMMANDS[package], [*words, *more, "--json"])
    out, err = capsys.readouterr()
    assert code == 0, err
    return json.loads(out)


@pytest.mark.parametrize("stack", ["trl", "trl_async", "verl", "prime_rl"])
def test_the_logs_of_the_planned_runs_calibrate(stack, trained, tmp_path, capsys):
    planned = copied(capsys, f"python -m advisor {ASKED} --stack {stack}")
    db = f"sqlite:///{tmp_path / 'logs.db'}"
    for run in planned["runs"]:
        assert run["steps"] == 60
        rows = trained[run["learning_rate"], run["max_staleness"]]
        log = write_log(tmp_path / f"{run['name']}.log", rows, stack)
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
    if stack == "prime_rl":
        assert "M2" in answer["edge_reason"]
        return
    assert answer["low"] < answer["edge"] < answer["high"]
    assert answer["high"] > 4e-4
    assert answer["unsafe_probability"] is not None
