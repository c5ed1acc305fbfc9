"""Without ``stop_on_collapse`` a run takes exactly the planned steps, whatever its reward does."""

import pytest
from own_things import own_config

from trainer.hooks import Hooks
from trainer.lockstep import Lockstep
from trainer.workloads.choice import task_and_start

STEPS = 160
REWARD = """calls = 0


def judge(prompts, completions, **keys):
    global calls
    calls += 1
    level = 0.7 if calls < {falls} else 0.0
    return [level + 0.2 * (i % 2) for i in range(len(completions))]
"""
FALLS_EARLY, FALLS_LATE = REWARD.format(falls=20), REWARD.format(falls=STEPS - 3)
"""Rewards of 0.8 ± 0.1 that fall to 0.1 ± 0.1 at the 20th batch, or with the last few."""


def ignore(*words):
    pass


def trained(folder, reward, **changes):
    """Train with a reward that falls; return the outcome and the steps."""
    config = own_config(
        folder,
        reward,
        **{
            "steps": STEPS,
            "max_staleness": 0,
            "prompts": 2,
            "group_size": 2,
            "max_new_tokens": 1,
            "evaluate_every": 100_000,
            "bias_every": 0,
        },
        **changes,
    )
    task, start = task_and_start(config, folder, ignore)
    rows = []
    hooks = Hooks(
        on_step=rows.append,
        on_evaluation=ignore,
        stop_requested=lambda: False,
        on_drift=ignore,
        on_bias=ignore,
        on_samples=ignore,
        on_rest=ignore,
    )
    return Lockstep("a run", config, task, start).train(hooks), rows


@pytest.mark.parametrize("reward", [FALLS_EARLY, FALLS_LATE], ids=["collapses", "is down late"])
def test_a_run_that_shall_not_stop_takes_the_planned_steps(tmp_path, reward):
    outcome, rows = trained(tmp_path, reward, stop_on_collapse=False)
    assert [row.step for row in rows] == list(range(STEPS))
    assert outcome.verdict != "healthy"


def test_otherwise_a_collapse_ends_it_early(tmp_path):
    outcome, rows = trained(tmp_path, FALLS_EARLY)
    assert outcome.verdict == "collapsed"
    assert len(rows) < STEPS


def test_otherwise_a_reward_that_is_down_at_the_end_extends_it(tmp_path):
    _, rows = trained(tmp_path, FALLS_LATE)
    assert STEPS < len(rows) <= STEPS + 20


def test_a_ramp_is_what_the_optimizer_was_told(tmp_path):
    _, rows = trained(
        tmp_path,
        FALLS_EARLY,
        ramp_from=1e-8,
        learning_rate=1e-4,
        warmup_steps=0,
        stop_on_collapse=False,
    )
    rates = [row.learning_rate for row in rows]
    assert (rates[0], rates[-1]) == (pytest.approx(1e-8), pytest.approx(1e-4))
    assert rates[1] / rates[0] == pytest.approx(1e4 ** (1 / (STEPS - 1)))
