"""Which run of a probe to make next, from what those before it said.

Pure. First a *ramp* with fresh rollouts, which finds the scale; then *holds* at the asked
staleness, which bracket the rate at which the policy no longer gains on its start; last a hold with
fresh rollouts, just above that rate, which tells whether it was staleness that set it. A ramp alone
says the same at every S. Where the reward is a learned model's, three holds go as far from the
start as gold is usually lost.
"""

import math
from collections.abc import Sequence
from typing import Any

from trainer.config import TrainerConfig

from .segments import (
    FRESH_ABOVE,
    Segment,
    bracket,
    crossing,
    gains,
    is_learned_reward,
    pooled_start,
)

RAMP_STEPS = 26
RAMP = (1e-8, 10.0)
"""The learning rates that a ramp spans, a factor of 2.3 each step: any optimizer, any model."""
HOLD_STEPS = 50
AFTER_THE_FIRST_CYCLE = 16
LONGEST_HOLD = 120
MOST_RATE = RAMP[1]
RAMP_TO_EDGE = 0.15
"""First guess of edge / rate at which a ramp of this steepness breaks."""
GUESS_PER_STALENESS = 0.2
"""The first guess falls with this power of S + 1."""
STEP_OUT = 2.0
STEP_DOWN_AFTER_A_BREAK = 3.0
LARGE_LOSS = 0.25
"""Share of the start's reward; a hold that lost more than this was far above the edge."""
CLOSE_ENOUGH = 1.3
"""A bracket whose ends differ by at most this factor is not split further."""
AIMED_SQRT_KL = 0.65
"""Where the holds of a learned reward shall end: just beyond where gold is usually lost."""
LEARNED_HOLDS = 3
NEAR_ENOUGH = 1.15
TRAVEL_PER_SQRT_KL, LATER_TRAVEL_PER_SQRT_KL = 3.0, 2.5
"""√KL grows at first with about the third root of Σ η, later faster."""
MOST_FURTHER = 10.0
EVALUATE_EVERY = 10
EVALUATION_ROLLOUTS = 128


def next_segment(
    setting: TrainerConfig, done: Sequence[Segment], steps_left: int
) -> TrainerConfig | None:
    """Return the next probe run, or None when enough is known or the budget does not suffice.

    Args:
        setting: what is probed; its learning rate is ignored.
        done: the segments so far.
        steps_left: learner steps that may still be spent.
    """
    ramp = next((s for s in done if s.is_ramp), None)
    if ramp is None:
        if steps_left < RAMP_STEPS:
            return None
        low, high = RAMP
        return _segment(
            setting, done, high, 0, RAMP_STEPS, ramp_from=low, warmup_steps=0, kl_to_start_every=1
        )
    stale = [s for s in done if not s.is_ramp and s.max_staleness == setting.max_staleness]
    length = hold_steps(setting)
    if is_learned_reward(setting):
        return _next_travel(setting, ramp, stale, done, length, steps_left)
    rate = _next_rate(setting, ramp, stale, done)
    if rate is not None:
        return _hold(setting, done, rate, setting.max_staleness, length, steps_left)
    return _fresh_hold(setting, stale, done, steps_left)


def _fresh_hold(
    setting: TrainerConfig, stale: Sequence[Segment], done: Sequence[Segment], steps_left: int
) -> TrainerConfig | None:
    """Hold once with fresh rollouts just above the edge, unless that was done."""
    edge = crossing(stale, done)
    if edge is None or any(not s.is_ramp and s.max_staleness == 0 for s in done):
        return None
    return _hold(setting, done, FRESH_ABOVE * edge[0], 0, HOLD_STEPS, steps_left)


def hold_steps(setting: TrainerConfig) -> int:
    """Return the length of a hold: long enough to see weights that stale rollouts have made."""
    return min(
        setting.steps,
        max(HOLD_STEPS, min(LONGEST_HOLD, setting.max_staleness + 1 + AFTER_THE_FIRST_CYCLE)),
    )


def _hold(
    setting: TrainerConfig,
    done: Sequence[Segment],
    rate: float,
    max_staleness: int,
    length: int,
    steps_left: int,
) -> TrainerConfig | None:
    if steps_left < length:
        return None
    return _segment(setting, done, min(rate, MOST_RATE), max_staleness, length, kl_to_start_every=2)


def _segment(
    setting: TrainerConfig,
    done: Sequence[Segment],
    rate: float,
    max_staleness: int,
    steps: int,
    **changes: Any,
) -> TrainerConfig:
    own = {
        "learning_rate": float(f"{rate:.4g}"),
        "max_staleness": max_staleness,
        "steps": steps,
        "seed": (1000 * (setting.seed + 1) + len(done)) % 2**31,
        "evaluate_every": EVALUATE_EVERY,
        "evaluation_rollouts": EVALUATION_ROLLOUTS,
        "bias_study": None,
        "bias_every": 0,
        "stop_on_collapse": False,
        "name": None,
    }
    return TrainerConfig.model_validate({**setting.model_dump(), **own, **changes})


def _next_rate(
    setting: TrainerConfig, ramp: Segment, stale: Sequence[Segment], done: Sequence[Segment]
) -> float | None:
    """Bracket the rate at which the gain is lost, then halve the bracket in logarithms."""
    points = gains(stale, done)
    if not points:
        if stale:  # what was held could not be judged, so another rate would not be either
            return None
        scale = ramp.broke_at if ramp.broke_at is not None else ramp.learning_rate
        return RAMP_TO_EDGE * scale * math.pow(setting.max_staleness + 1, -GUESS_PER_STALENESS)
    found = bracket(points)
    if found is not None:
        low, high = points[found - 1][0], points[found][0]
        return None if high - low <= math.log(CLOSE_ENOUGH) else math.exp((low + high) / 2)
    gained = [x for x, gain, _ in points if gain > 0]
    if gained:
        highest = max(gained)
        return None if highest >= math.log(MOST_RATE) else math.exp(highest) * STEP_OUT
    lost, loss, _ = points[0]
    broke = -loss > LARGE_LOSS * abs(pooled_start(done) or 1.0)
    return math.exp(lost) / (STEP_DOWN_AFTER_A_BREAK if broke else STEP_OUT)


def _next_travel(
    setting: TrainerConfig,
    ramp: Segment,
    stale: Sequence[Segment],
    done: Sequence[Segment],
    length: int,
    steps_left: int,
) -> TrainerConfig | None:
    """Aim at √KL = 0.65 by a short and a longer hold; then go on, or there at half the rate."""
    if len(stale) >= LEARNED_HOLDS:
        return None
    if not stale:
        reached = [x for x, kl, _ in ramp.travel if kl <= AIMED_SQRT_KL]
        rate = (reached[-1] if reached else ramp.learning_rate) / length
        return _hold(setting, done, rate, setting.max_staleness, length, steps_left)
    longer = min(setting.steps, steps_left // (LEARNED_HOLDS - len(stale)))
    if longer < length and longer < setting.steps:
        return None
    last = stale[-1]
    if len(stale) == 1:
        miss = AIMED_SQRT_KL / _end(last) if _end(last) else 1.0
        further = min(MOST_FURTHER, max(1 / MOST_FURTHER, miss**TRAVEL_PER_SQRT_KL))
        rate = last.learning_rate * further * last.steps / longer
    else:
        miss = AIMED_SQRT_KL / _end(last) if _end(last) else MOST_FURTHER
        further = min(MOST_FURTHER, miss**LATER_TRAVEL_PER_SQRT_KL) if miss > NEAR_ENOUGH else 0.5
        rate = last.learning_rate * further
    return _hold(setting, done, rate, setting.max_staleness, longer, steps_left)


def _end(segment: Segment) -> float:
    """Return √KL where a segment ended, 0 if it was never measured."""
    return segment.travel[-1][1] if segment.travel else 0.0
