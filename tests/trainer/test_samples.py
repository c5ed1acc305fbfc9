"""Kept rollouts say what the batch said, and keeping them changes nothing else."""

import math
from dataclasses import asdict, fields, replace

import pytest
import torch
from factories import a_config

from trainer.hooks import Hooks
from trainer.rollout import Rollouts
from trainer.samples import Learned, chosen_rows, samples_of, shortened

TIMES = {"time", "seconds_generate", "seconds_learn", "seconds_measure", "seconds_wait"}


def train(learner, **listened):
    silent = {field.name: lambda *_: None for field in fields(Hooks)}
    return learner.train(Hooks(**(silent | {"stop_requested": lambda: False} | listened)))


def a_batch(gold=None):
    """Three prompts of two completions, two tokens each, of which some rows end after one."""
    return Rollouts(
        prompts=["p0", "p1", "p2"],
        completions=[f"c{row}" for row in range(6)],
        prompt_ids_B_L=torch.zeros(6, 1, dtype=torch.long),
        prompt_mask_B_L=torch.ones(6, 1, dtype=torch.long),
        completion_ids_B_T=torch.zeros(6, 2, dtype=torch.long),
        mask_B_T=torch.tensor([[1.0, 1], [1, 0], [1, 1], [1, 1], [1, 1], [1, 1]]),
        behavior_log_probs_B_T=torch.zeros(6, 2),
        rewards_P_G=torch.tensor([[1.0, 0.0], [0.5, 0.5], [math.nan, 2.0]]),
        gold_P_G=gold,
    )


def learned(batch):
    log_ratio = torch.tensor(
        [[0.5, 0.25], [1.0, 0.0], [0, math.nan], [math.inf, 0], [-math.inf, 0], [0, 0]]
    )
    advantage = torch.tensor([1.0, -1, 0, 0, math.nan, 1])
    return Learned(step=7, staleness=3, batch=batch, advantage_B=advantage, log_ratio_B_T=log_ratio)


def test_a_sample_says_what_the_batch_said():
    rows = samples_of("r", learned(a_batch(gold=torch.arange(6.0).view(3, 2))), 6)
    assert [row.prompt for row in rows] == ["p0", "p0", "p1", "p1", "p2", "p2"]
    assert [(row.number, row.completion, row.gold) for row in rows] == [
        (n, f"c{n}", float(n)) for n in range(6)
    ]
    assert {(row.run_id, row.step, row.staleness) for row in rows} == {("r", 7, 3)}
    assert [row.advantage for row in rows[:2]] == [1.0, -1.0]
    assert rows[0].ratio == pytest.approx(math.exp(0.75))  # 0.5 + 0.25
    assert rows[1].ratio == pytest.approx(math.e)
    assert math.isnan(rows[2].ratio)
    assert [row.ratio for row in rows[3:]] == [math.inf, 0.0, 1.0]
    assert math.isnan(rows[4].reward)
    assert math.isnan(rows[4].advantage)


def test_a_batch_without_gold_has_samples_without():
    assert {row.gold for row in samples_of("r", learned(a_batch()), 6)} == {None}


@pytest.mark.parametrize(
    ("prompts", "group_size", "count", "rows"),
    [
        (16, 8, 8, [*range(8)]),
        (16, 8, 16, [*range(8), *range(64, 72)]),  # two whole groups, spread
        (16, 8, 10, [*range(8), 64, 65]),  # the second is cut
        (4, 2, 3, [0, 1, 4]),
        (2, 2, 64, [0, 1, 2, 3]),  # all there are
        (16, 128, 8, [*range(8)]),
    ],
)
def test_whole_groups_come_first_and_are_spread(prompts, group_size, count, rows):
    assert chosen_rows(prompts, group_size, count) == rows


def test_a_long_text_is_cut_and_says_so():
    assert shortened("x" * 2000) == "x" * 2000
    assert shortened("x" * 2001) == "x" * 1999 + "…"


@pytest.mark.parametrize(
    ("every", "steps", "interval"),
    [
        (None, 300, 50),
        (None, 2000, 50),
        (None, 100_000, 2500),  # 40 of them
        (0, 300, None),
        (1, 300, 1),
        (1, 100_000, 250),  # 400 of them
        (7, 300, 7),
    ],
)
def test_a_run_keeps_a_bounded_number_of_steps(every, steps, interval):
    assert a_config(steps=steps, sample_every=every).sample_interval == interval


def test_keeping_samples_changes_no_number(learner):
    rows = {}
    for every in (0, 1):
        told = rows[every] = []
        train(learner(steps=6, max_staleness=1, sample_every=every), on_step=told.append)
    with_samples, without = (
        [repr({k: v for k, v in asdict(row).items() if k not in TIMES}) for row in rows[every]]
        for every in (1, 0)
    )
    assert with_samples == without


def test_steps_that_are_due_and_the_last_are_kept_once_each(learner):
    told = []
    run = learner(steps=6, max_staleness=2, prompts=2, group_size=2, samples_kept=3, sample_every=2)
    train(run, on_samples=told.extend)
    assert [(row.step, row.number) for row in told] == [
        (step, n) for step in (0, 2, 4, 5) for n in (0, 1, 2)
    ]
    assert {row.step: row.staleness for row in told} == {0: 0, 2: 2, 4: 1, 5: 2}
    assert all(row.ratio == pytest.approx(1, abs=1e-4) for row in told if row.staleness == 0)
    assert any(row.ratio != 1 for row in told if row.staleness > 0)


def test_no_samples_at_all_when_none_are_asked_for(learner):
    told = []
    train(learner(steps=2, sample_every=0), on_samples=told.extend)
    assert told == []


def test_the_batch_at_which_a_collapse_is_confirmed_is_kept(learner):
    run = learner(steps=200, max_staleness=0, prompts=2, group_size=2, evaluate_every=1000)
    calls = 0

    def falls(prompts, completions):
        nonlocal calls
        calls += 1  # the first is the evaluation of the start
        level = 0.7 if calls < 40 else 0.0
        return [level + 0.2 * (i % 2) for i in range(len(completions))]

    run.task = replace(run.task, rewards=falls, chance_reward=0.0)
    told, rows = [], []
    outcome = train(run, on_samples=told.extend, on_step=rows.append)
    assert outcome.verdict == "collapsed"
    last = rows[-1].step
    confirmed = outcome.onset + 19  # the 20th batch that is down; on-policy, versions are batches
    assert confirmed not in (*range(0, 200, 50), last)
    assert sorted({row.step for row in told}) == sorted({*range(0, last, 50), confirmed, last})
