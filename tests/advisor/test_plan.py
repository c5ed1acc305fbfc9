"""Which runs to make elsewhere, and that what is printed can be copied."""

import json
import shlex

import pytest
from factories import a_config

from advisor.__main__ import main
from advisor.literature import published_runs
from advisor.plan import plan
from storage.commandline import run_command
from storage.importers.stacks import STACKS
from storage.importers.wanted import WANTED, supported

ASKED = ["plan", "--max-staleness", "8", "--steps", "1000"]


def planned(rate=1e-6, *, staleness=8, steps=1000, ages_vary=False):
    setting = a_config(max_staleness=staleness, steps=steps)
    return plan(setting, own_rate=rate, ages_vary=ages_vary, published=published_runs())


def printed(capsys, *words):
    code = run_command(main, [*ASKED, *words, "--json"])
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return json.loads(out)


def test_two_rates_fresh_rollouts_and_less_staleness():
    runs = {run.name: run for run in planned().runs}
    assert list(runs) == ["gentle", "hard", "fresh", "less_stale"]
    assert (runs["gentle"].learning_rate, runs["hard"].learning_rate) == (1e-6, 3e-6)
    assert [run.max_staleness for run in runs.values()] == [8, 8, 0, 2]
    assert {runs[name].learning_rate for name in ("fresh", "less_stale")} == {3e-6}


@pytest.mark.parametrize(
    ("staleness", "ages_vary", "count"), [(0, False, 2), (1, False, 3), (4, False, 4), (4, True, 3)]
)
def test_no_run_is_planned_that_would_show_nothing(staleness, ages_vary, count):
    found = planned(staleness=staleness, ages_vary=ages_vary)
    assert len(found.runs) == count
    assert found.learner_steps == sum(run.steps for run in found.runs)


def test_a_run_sees_every_age_twice_and_is_never_longer_than_the_horizon():
    assert planned(staleness=63).runs[0].steps == 2 * 64 + 20
    assert {run.steps for run in planned(staleness=63, steps=50).runs} == {50}


def test_without_an_own_rate_the_published_bracket_gives_two_within_a_factor_of_four():
    found = planned(rate=None)
    gentle, hard = (run.learning_rate for run in found.runs[:2])
    assert 1.9 < hard / gentle < 4.3
    assert "published" in found.rates_from
    stale = planned(rate=None, staleness=64)
    assert stale.runs[0].learning_rate < gentle


@pytest.mark.parametrize("stack", supported())
def test_every_stack_is_told_in_its_own_names_and_its_logs_are_imported(stack, capsys):
    answer = printed(capsys, "--stack", stack.replace("_", "-"), "--model-parameters", "7e9")
    assert 2 <= len(answer["runs"]) <= 4
    for run in answer["runs"]:
        name = STACKS[stack].learning_rate.rpartition(".")[2]
        assert name in run["settings"]
        assert f"{run['learning_rate']:.15g}" in run["settings"]
        for option in WANTED[stack].settings:
            assert option in run["settings"]
        words = shlex.split(run["import"])
        assert words[:4] == ["python", "-m", "storage", "import"]
        assert f"max_staleness={run['max_staleness']}" in words
        assert "parameters=7000000000" in words
        assert run["max_staleness"] <= 8
    assert f"--group plan-{stack}" in answer["recommend"]
    assert answer["metrics"]["clip"] == list(WANTED[stack].clip)


@pytest.mark.parametrize("stack", sorted(set(STACKS) - set(supported())))
def test_a_stack_whose_logs_cannot_say_it_is_refused_with_the_reason(stack, capsys):
    assert run_command(main, [*ASKED, "--stack", stack]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert f"stack: {stack!r} is not allowed; allowed: trl | trl_async" in err
    assert WANTED[stack].lacks in err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stack", "nosuch"], "stack: 'nosuch' is not allowed; allowed: trl |"),
        ([], "stack: not given; say --stack"),
        (["--stack", "trl", "--learning-rate", "0"], "learning_rate: '0' is not allowed"),
        (["--stack", "trl", "--model-parameters", "big"], "model_parameters: 'big' is not allowed"),
        (["--stack", "trl", "--model-parameters", "nan"], "model_parameters: 'nan' is not allowed"),
        (["--stack", "trl", "--clip-epsilon", "1"], "clip_epsilon: '1' is not allowed"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(words, said, capsys):
    assert run_command(main, [*ASKED, *words]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    [line] = err.splitlines()
    assert said in line


def test_a_staleness_that_a_stack_cannot_express_is_refused_with_the_least(capsys):
    words = ["plan", "--stack", "slime", "--max-staleness", "1", "--steps", "100"]
    assert run_command(main, words) == 2
    assert "max_staleness: 1 is not allowed" in capsys.readouterr().err


def test_the_text_holds_each_run_and_every_command(capsys):
    answer = printed(capsys, "--stack", "trl")
    assert run_command(main, [*ASKED, "--stack", "trl"]) == 0
    text = capsys.readouterr().out
    for run in answer["runs"]:
        assert run["import"] in text
    assert answer["recommend"] in text
    assert answer["model_parameters"] is None
    assert answer["model_parameters_reason"]
    assert answer["metrics"]["drift_reason"]
