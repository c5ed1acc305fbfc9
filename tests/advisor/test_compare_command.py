import json
import math

import pytest
from factories import a_config, a_run, a_step
from processes import command

from advisor.__main__ import main
from storage.commandline import run_command
from storage.records import RunStatus
from storage.store import Store


@pytest.fixture
def home(tmp_path):
    """Give a home with a healthy run, a collapsed one, and one whose reward was never measured."""
    store = Store.open(str(tmp_path / "etalon.db"))
    ends = {
        "one": (2e-4, RunStatus.FINISHED, "healthy", None),
        "two": (4e-3, RunStatus.COLLAPSED, "collapsed", 2),
        "three": (2e-4, RunStatus.FINISHED, None, None),
    }
    for name, (rate, status, outcome, onset) in ends.items():
        run = a_run(
            a_config(learning_rate=rate),
            id=name,
            name=name,
            status=status,
            outcome=outcome,
            collapse_step=onset,
        )
        store.create_run(run)
        for step, reward in enumerate((0.5, 0.8, 0.25, math.nan if name == "two" else 0.75)):
            measured = {"reward_mean": None if name == "three" else reward, "approx_kl": 0.01}
            store.append_step(a_step(name, step, **measured))
    store.close()
    return tmp_path


@pytest.fixture
def compare(home, monkeypatch, capsys):
    """Run the command in this process; return its exit code and what it printed."""
    monkeypatch.setenv("ETALON_HOME", str(home))
    monkeypatch.delenv("ETALON_DB", raising=False)

    def run(*words):
        return run_command(main, ["compare", *words]), *capsys.readouterr()

    return run


@pytest.fixture
def compared(compare):
    """Compare, and return the answer's runs by id."""

    def run(*words):
        code, out, err = compare(*words, "--json")
        assert code == 0, err
        return {run["run_id"]: run for run in json.loads(out)["runs"]}

    return run


def test_runs_are_told_apart_by_what_differs_and_by_how_their_metrics_went(compared):
    runs = compared("one", "two", "--baseline", "one")
    assert [run["setting"] for run in runs.values()] == [
        {"learning_rate": 2e-4},
        {"learning_rate": 4e-3},
    ]
    one, two = (run["metrics"]["reward_mean"] for run in runs.values())
    assert (one["best"], one["last"], one["at_collapse"]) == (0.8, 0.75, None)
    assert one["at_collapse_reason"] == "the run did not collapse"
    assert two["at_collapse"] == 0.25
    assert (two["best_difference"], two["last"], two["last_reason"]) == (0.0, None, "computed nan")
    assert two["last_difference_reason"] == "one of the two is not known"


def test_every_null_of_the_answer_has_its_reason(compared):
    def nulls(value):
        if isinstance(value, dict):
            for key, item in value.items():
                if item is None:
                    assert value[f"{key}_reason"], key
                nulls(item)
        elif isinstance(value, list):
            for item in value:
                nulls(item)

    runs = compared("one", "two", "three")
    for run in runs.values():
        nulls({key: item for key, item in run.items() if key != "setting"})
    assert runs["three"]["metrics"]["reward_mean"]["best_reason"] == "not measured"


def test_a_table_shows_the_same_to_a_person(home):
    done = command("-m", "advisor", "compare", "one", "two", "--baseline", "one", home=home)
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert ["learning", "rate", "0.0002", "0.004"] in lines
    assert ["batch", "reward,", "best", "0.8", "0.8", "(+0)"] in lines


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["one"], "run: two different runs are needed to compare; see python -m storage list"),
        (["one", "one"], "run: two different runs are needed to compare"),
        (["one", "ones"], "run: 'ones' is not in the archive; nearest: one"),
        (
            ["one", "two", "--baseline", "x"],
            "baseline: 'x' is not allowed; allowed: one of one, two",
        ),
    ],
)
def test_a_comparison_that_cannot_be_made_is_one_line(compare, words, said):
    code, out, err = compare(*words)
    assert (code, out) == (2, "")
    [line] = err.splitlines()
    assert said in line
