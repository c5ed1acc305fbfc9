"""The clipping radius read off a small drift, against walking along the line and counting."""

import math

import numpy as np
import pytest
import torch
from factories import a_config

from trainer.clip_criterion import critical_drifts
from trainer.clipping import ClippingPool, batch_metrics
from trainer.lockstep import Lockstep
from trainer.objective import group_advantages
from trainer.randomness import generator
from trainer.rollout import sample_rollouts, score
from trainer.workloads.arithmetic import arithmetic

CRITERION = 0.02
EPSILON = 0.2
PROMPTS, GROUP = 900, 8
SMALL_STEPS = 4


@pytest.fixture(scope="module")
def line(etalon_home):
    """Give a run that went up to four small steps from φ, with 7 200 rollouts of φ."""
    config = a_config(learning_rate=1e-4, max_staleness=0, steps=40)
    task, start = arithmetic(config, etalon_home, print)
    run = Lockstep("line", config, task, start)
    run.evaluate(0, 512)
    for step in range(20):
        run.learner_step(step)
    behavior = run.weights.snapshot()
    for step in range(20, 20 + SMALL_STEPS):
        run.learner_step(step)
    run.behavior_weights.load(behavior)
    prompts = task.sample_prompts(PROMPTS, generator(run.device, 5))
    batch = sample_rollouts(
        run.behavior_policy, run.tokenizer, task, prompts, GROUP, generator(run.device, 6)
    )
    policy = run.weights.snapshot()
    while active_clip_fraction((run, behavior, policy, batch), 1.0) >= CRITERION / 2:
        policy = torch.lerp(behavior, policy, 0.7)  # how far four steps go depends on the machine
    return run, behavior, policy, batch


@torch.no_grad()
def along(line, scale):
    """Return log-ratios of φ + scale·(θ − φ) on the rollouts of φ, with advantages and mask."""
    run, behavior, policy, batch = line
    run.weights.load(torch.lerp(behavior, policy, scale))
    log_prob, _ = score(run.policy, batch)
    advantage = group_advantages(batch.rewards_P_G).reshape(-1)
    return log_prob - batch.behavior_log_probs_B_T, log_prob, advantage, batch.mask_B_T


def active_clip_fraction(line, scale):
    found = batch_metrics(*along(line, scale), EPSILON, EPSILON)
    return float(found["clip_fraction_low"] + found["clip_fraction_high"])


@pytest.fixture(scope="module")
def walked_radius(line):
    """Bisect the line for the drift at which the counted active-clip fraction is 2 %."""
    _, behavior, policy, _ = line
    low, high = 0.0, 1.0
    while active_clip_fraction(line, high) < CRITERION:
        low, high = high, 2 * high
    for _ in range(9):
        middle = (low + high) / 2
        low, high = (
            (middle, high) if active_clip_fraction(line, middle) < CRITERION else (low, middle)
        )
    return high * float((policy - behavior).norm())


def test_the_radius_predicted_from_a_small_drift_is_where_the_line_probe_finds_it(
    line, walked_radius
):
    _, behavior, policy, _ = line
    log_ratio, _, advantage, mask = along(line, 1.0)
    chosen = mask.bool()
    assert int(chosen.sum()) >= 20_000
    drift = float((policy - behavior).norm())
    advantage_N = advantage.unsqueeze(1).expand_as(chosen)[chosen]
    critical = critical_drifts(log_ratio[chosen], advantage_N, drift, EPSILON, EPSILON)
    predicted = float(np.quantile(critical.cpu().numpy(), CRITERION))
    assert active_clip_fraction(line, 1.0) < CRITERION, "the prediction looks ahead"
    assert math.isfinite(predicted)
    assert predicted == pytest.approx(walked_radius, rel=0.15)


def test_the_pool_brackets_what_the_line_probe_finds(line, walked_radius):
    _, behavior, policy, _ = line
    log_ratio, _, advantage, mask = along(line, 1.0)
    chosen = mask.bool()
    advantage_N = advantage.unsqueeze(1).expand_as(chosen)[chosen]
    pool = ClippingPool()
    drift = float((policy - behavior).norm())
    pool.add(critical_drifts(log_ratio[chosen], advantage_N, drift, EPSILON, EPSILON), advantage_N)
    radii = pool.radii()
    assert radii["0.01"] < walked_radius < radii["0.03"]
