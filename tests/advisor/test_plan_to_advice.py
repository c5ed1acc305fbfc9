"""From a plan over a stack's logs to an answer; the trainer stands in for the stack."""

import json
import shlex

import pytest
from processes import command
from stack_logs import write_log

from storage.store import Store


def told(*words, home):
    done = command(*words, "--json", home=home)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize("stack", ["trl", "trl_async", "verl", "prime_rl"])
def test_the_logs_of_the_planned_runs_calibrate(stack, etalon_home, tmp_path):
    asked = "--max-staleness 3 --steps 300 --learning-rate 2e-4 --model-parameters 134000"
    words = f"-m advisor plan --stack {stack} {asked}".split()
    planned = told(*words, home=etalon_home)
    db = f"sqlite:///{tmp_path / 'logs.db'}"
    for run in planned["runs"]:
        rows = trained(run, etalon_home, tmp_path)
        log = write_log(tmp_path / f"{run['name']}.log", rows, stack)
        words = [str(log) if word == "LOG" else word for word in shlex.split(run["import"])[1:]]
        told(*words, "--db", db, home=etalon_home)
    words = shlex.split(planned["recommend"])[1:]
    answer = told(*words, "--learning-rate", "2e-4", "--db", db, home=etalon_home)
    assert answer["binding"] == "staleness"
    assert len(answer["evidence"]) == len(planned["runs"])
    assert all("steps logged" in each for each in answer["evidence"])
    assert 0 < answer["max_learning_rate"] <= 2 * max(r["learning_rate"] for r in planned["runs"])
    assert answer["low"] is not None
    assert "staleness" in answer["reason"]
    for name, value in answer.items():
        if value is None:
            assert answer[f"{name}_reason"], name
    if stack != "prime_rl":  # where a clip fraction is logged, the edge has two sides
        # Runs of 120 steps at S = 3 are healthy at 4e-4 and damaged at 8e-4.
        assert answer["low"] < answer["edge"] < answer["high"]
        assert answer["low"] < 8e-4
        assert answer["max_learning_rate"] < 8e-4


def trained(run, home, folder):
    """Make a planned run with the trainer and return its steps."""
    db = f"sqlite:///{folder / 'own.db'}"
    setting = (
        f"--workload arithmetic --learning-rate {run['learning_rate']} --max-staleness "
        f"{run['max_staleness']} --steps {run['steps']} --seed 5 --bias-every 0"
    )
    done = command(*f"-m trainer run {setting} --db {db} --json".split(), home=home)
    with_run = json.loads(done.stdout)
    opened = Store.open(db, create=False)
    try:
        return opened.steps(with_run["run_id"])
    finally:
        opened.close()
