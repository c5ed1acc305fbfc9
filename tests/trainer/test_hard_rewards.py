"""Rewards and policies that go wrong: each ends in a clear state, or training goes on."""

import json
import math

import pytest
import torch
from factories import a_config
from own_things import own_config, own_values
from processes import command

from storage.commandline import run_command
from storage.records import RunStatus
from trainer.__main__ import exit_code, main, result
from trainer.hooks import Hooks
from trainer.judging import RewardFailed
from trainer.launch import create_run
from trainer.lockstep import Lockstep
from trainer.objective import equal_rewards, group_advantages
from trainer.worker import Worker
from trainer.workloads.choice import task_and_start

SIGNATURE = "def judge(prompts, completions):\n"


def ignore(*words):
    pass


@pytest.fixture
def run_with(store, tmp_path, monkeypatch):
    """Carry out a run whose reward function has this body; return the run as it ended."""
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))

    def run(body, **changes):
        queued = create_run(store, own_config(tmp_path, f"{SIGNATURE}    {body}\n", **changes))
        try:
            return Worker(store, queued, ignore).run()
        except RewardFailed:
            return store.run(queued.id)

    return run


def a_learner(folder, body, **changes):
    config = own_config(folder, f"{SIGNATURE}    {body}\n", **changes)
    return Lockstep("a run", config, *task_and_start(config, folder, ignore))


def kept(stop=lambda: False):
    """Return hooks that keep what they are told, and the rows and evaluations they kept."""
    rows, evaluations = [], []
    hooks = Hooks(
        on_step=rows.append,
        on_evaluation=evaluations.append,
        stop_requested=stop,
        on_drift=ignore,
        on_bias=ignore,
        on_samples=ignore,
        on_rest=ignore,
    )
    return hooks, rows, evaluations


# -- a reward that is no number ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("raise KeyError('answer')", "the reward raised KeyError: 'answer'"),
        ("return [1 / 0]", "the reward raised ZeroDivisionError: division by zero"),
        ("return None", "the reward returned None (NoneType); it must return a list"),
        ("return 'good'", "the reward returned 'good' (str); it must return a list"),
        ("return 1.0", "the reward returned 1.0 (float); it must return a list"),
        ("return [1.0]", "the reward returned 1 values for 512 completions; it must return one"),
        ("return []", "the reward returned 0 values for 512 completions; it must return one"),
        (
            "return [1.0] * (len(completions) + 1)",
            "the reward returned 513 values for 512 completions; it must return one",
        ),
        ("return [None for _ in completions]", "the reward returned None (NoneType) for the com"),
        ("return ['1' for _ in completions]", "the reward returned '1' (str) for the completion"),
        ("return [[1] for _ in completions]", "the reward returned [1] (list) for the completion"),
    ],
)
def test_a_reward_that_is_no_number_per_completion_fails_the_run_in_one_line(
    run_with, store, body, words
):
    run = run_with(body)
    assert run.status is RunStatus.FAILED
    assert run.outcome_reason.startswith(f"RewardFailed: {words}")
    assert "\n" not in run.outcome_reason
    assert "Traceback" in run.error
    [failure] = [event for event in store.events(run.id) if event.level == "error"]
    assert failure.message == run.outcome_reason
    assert store.steps(run.id) == []
    assert exit_code(run.status) == 1


def test_a_reward_that_fails_later_keeps_every_step_before(run_with, store):
    body = "judge.n = getattr(judge, 'n', 0) + 1; return [0.5 / (judge.n < 4)] * len(completions)"
    run = run_with(body)  # one call for the start, then one per learner step
    assert run.status is RunStatus.FAILED
    assert run.outcome_reason.startswith("RewardFailed: the reward raised ZeroDivisionError: ")
    assert [row.step for row in store.steps(run.id)] == [0, 1]
    assert run.reward_first == 0.5


@pytest.mark.parametrize("kind", ["float", "int", "bool", "numpy.float32", "numpy.int64"])
def test_every_kind_of_number_is_a_reward(tmp_path, kind):
    body = f"import numpy; return [{kind}(len(c) > 1) for c in completions]"
    batch = a_learner(tmp_path, body)._sample(0).batch
    expected = [float(len(completion) > 1) for completion in batch.completions]
    assert batch.rewards_P_G.flatten().tolist() == expected


@pytest.mark.parametrize("library", ["numpy.array", "torch.tensor"])
def test_an_array_of_rewards_is_as_good_as_a_list(tmp_path, library):
    module = library.split(".", maxsplit=1)[0]
    body = f"import {module}; return {library}([float(len(c)) for c in completions])"
    batch = a_learner(tmp_path, body)._sample(0).batch
    assert batch.rewards_P_G.flatten().tolist() == [float(len(c)) for c in batch.completions]


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_reward_that_is_not_finite_from_the_start_is_a_divergence(run_with, store, value):
    run = run_with(f"return [float('{value}')] * len(completions)")
    assert (run.status, run.outcome) == (RunStatus.DIVERGED, "diverged")
    assert run.outcome_reason == f"the reward of the start is {value}"
    assert run.error is None
    answer = result(store, run)
    assert (answer["steps"], answer["reward_first"]) == (0, None)
    assert answer["reward_first_reason"] == "no learner step was taken"
    assert exit_code(run.status) == 1


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_one_reward_of_a_batch_that_is_not_finite_is_a_divergence(run_with, store, value):
    body = (
        "judge.n = getattr(judge, 'n', 0) + 1; values = [float(len(c)) for c in completions]; "
        f"values[0] = float('{value}') if judge.n == 3 else 0.0; return values"
    )
    run = run_with(body)
    assert run.outcome == "diverged"
    assert run.outcome_reason == f"a non-finite reward, {value}, at batch 1"
    rows = store.steps(run.id)
    assert [row.step for row in rows] == [0, 1]
    assert repr(rows[1].reward_mean) == value
    assert math.isfinite(rows[0].loss)


# -- a policy that is no numbers ---------------------------------------------------------------


def test_a_loss_that_is_not_finite_is_a_divergence_and_ends_the_run(tmp_path):
    learner = a_learner(tmp_path, "return [float(len(c)) for c in completions]", steps=9)
    hooks, rows, evaluations = kept()

    def poison(row):
        rows.append(row)
        if row.step == 1:  # the learner's weights only: the behavior policy still samples
            learner.weights.vector[0] = math.nan

    outcome = learner.train(Hooks(**{**_fields(hooks), "on_step": poison}))
    assert (outcome.verdict, outcome.reason) == (
        "diverged",
        "a non-finite loss, gradient or weight at batch 2",
    )
    assert [row.step for row in rows] == [0, 1, 2]
    assert math.isnan(rows[2].loss)
    assert [e.step for e in evaluations] == [0]  # nobody evaluates what is no policy


def test_a_policy_that_cannot_be_sampled_is_a_divergence_and_no_crash(tmp_path):
    learner = a_learner(
        tmp_path, "return [float(len(c)) for c in completions]", steps=9, max_staleness=0
    )
    hooks, rows, _ = kept()

    def poison(row):
        rows.append(row)
        if row.step == 1:  # φ = θ: the next rollouts come from these weights
            learner.weights.vector.fill_(math.inf)

    outcome = learner.train(Hooks(**{**_fields(hooks), "on_step": poison}))
    assert outcome.verdict == "diverged"
    assert outcome.reason == "the policy's probabilities are not numbers at batch 2"
    assert [row.step for row in rows] == [0, 1]


def _fields(hooks):
    return {name: getattr(hooks, name) for name in Hooks.__dataclass_fields__}


@pytest.mark.slow  # starts Python, which takes seconds to import torch
def test_the_command_line_tells_a_failed_reward_in_one_line_and_a_divergence_in_its_json(
    tmp_path, monkeypatch, capsys
):
    def words(body):
        values = own_values(tmp_path, f"{SIGNATURE}    {body}\n")
        named = ("workload", "model", "prompts_file", "reward", "steps")
        options = [w for n in named for w in (f"--{n.replace('_', '-')}", str(values[n]))]
        return ["run", "--learning-rate", "1e-4", "--max-staleness", "0", *options, "--json"]

    failed = command("-m", "trainer", *words("return None"), home=tmp_path)
    assert failed.returncode == 1
    assert json.loads(failed.stdout)["status"] == "failed"
    told = [line for line in failed.stderr.splitlines() if line.startswith("the run failed: ")]
    assert len(told) == 1
    assert "Traceback" not in failed.stderr
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    monkeypatch.delenv("ETALON_DB", raising=False)
    diverging = words("return [float('nan')] * len(completions)")
    capsys.readouterr()  # saving a model says so
    code = run_command(main, diverging)
    answer = json.loads(capsys.readouterr().out)
    assert (code, answer["status"]) == (1, "diverged")
    assert answer["outcome_reason"] == "the reward of the start is nan"


# -- rewards that teach nothing, or much -------------------------------------------------------


def test_groups_of_equal_rewards_leave_the_policy_where_it_is(run_with, store):
    run = run_with("return [0.1] * len(completions)")
    assert run.status is RunStatus.FINISHED
    for row in store.steps(run.id):
        assert row.zero_variance_groups == 4
        assert (row.displacement, row.grad_norm) == (0, 0)
        assert row.gradient_cosine is None
        assert "equal rewards" in row.reasons["gradient_cosine"]


def test_empty_completions_are_rewarded_and_learned_from(tmp_path):
    """An untrained policy ends at once in about one of sixteen completions."""
    learner = a_learner(
        tmp_path,
        "return [float(c == '') for c in completions]",
        learning_rate=1e-2,
        steps=30,
        max_staleness=0,
        warmup_steps=0,
    )
    before = learner.evaluate(0, 512).reward
    assert 0.02 < before < 0.12
    for step in range(30):
        assert math.isfinite(learner.learner_step(step).loss)
    assert learner.evaluate(30, 512).reward > before + 0.5


@pytest.mark.parametrize(("scale", "shift"), [(1e6, 0), (1, -1000), (-1e6, 5e6), (1e-6, 0)])
def test_training_depends_on_neither_scale_nor_zero_of_the_reward(tmp_path, scale, shift):
    """Advantages are centred and divided by their deviation: a·r + b teaches as sign(a)·r."""

    def weights(scale, shift):
        body = f"return [{scale} * len(c) + {shift} for c in completions]"
        learner = a_learner(tmp_path, body)
        learner.evaluate(0, 16)
        for step in range(3):
            learner.learner_step(step)
        return learner.weights.vector

    expected = weights(math.copysign(1, scale), 0)
    assert torch.allclose(weights(scale, shift), expected, atol=2e-5)
    assert not torch.allclose(weights(0, 0), expected, atol=2e-5)


def test_negative_rewards_are_trained_on_and_judged(run_with):
    run = run_with("return [-3.0 - len(c) for c in completions]", steps=30)
    assert run.status is RunStatus.FINISHED
    assert run.outcome in ("healthy", "finished")
    assert run.reward_first < -3
    assert run.collapse_step is None


@pytest.mark.parametrize("value", [0.1, 1e6, 1234567.1, -1e6 / 3, 1e-9, 0.0, 3e30])
@pytest.mark.parametrize("group_size", [2, 3, 7, 8, 64])
def test_equal_rewards_of_any_size_are_equal(value, group_size):
    """The mean of seven times 1234567.1 is not 1234567.125 in fp32: rounding is no lesson."""
    rewards = torch.full((2, group_size), value)
    assert equal_rewards(rewards).all()
    assert group_advantages(rewards).abs().max() == 0


def test_a_difference_of_one_part_in_ten_thousand_is_a_lesson_at_any_scale():
    for scale in (1e-9, 1.0, 1e6, 1e30):
        rewards = torch.tensor([[1.0, 1.0001]]) * scale
        assert group_advantages(rewards)[0].tolist() == pytest.approx([-1, 1], rel=1e-2)


def test_a_reward_beyond_single_precision_is_not_finite(run_with):
    run = run_with("return [1e39] * len(completions)")
    assert run.outcome_reason == "the reward of the start is inf"


def test_a_config_with_one_prompt_and_the_smallest_group_trains(store, tmp_path, monkeypatch):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    values = own_values(tmp_path, prompts=1, group_size=2, evaluation_rollouts=2)
    run = Worker(store, create_run(store, a_config(**values)), ignore).run()
    assert run.status is RunStatus.FINISHED
