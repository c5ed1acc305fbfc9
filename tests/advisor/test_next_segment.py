"""Which segment of a probe comes next, on runs with a known edge and on learned rewards."""

import math

import pytest
from factories import a_config
from probed import EDGE, a_hold, a_ramp, linear_holds

from advisor.next_segment import (
    AFTER_THE_FIRST_CYCLE,
    CLOSE_ENOUGH,
    GUESS_PER_STALENESS,
    RAMP_STEPS,
    RAMP_TO_EDGE,
    STEP_DOWN_AFTER_A_BREAK,
    hold_steps,
    next_segment,
)
from advisor.segments import crossing, is_learned_reward

LEARNED = {"workload": "preference"}
FIRST_GUESS = RAMP_TO_EDGE * 4**-GUESS_PER_STALENESS  # at S = 3
BREAK = 1e-3 / STEP_DOWN_AFTER_A_BREAK


@pytest.mark.parametrize(
    ("max_staleness", "steps", "expected"),
    [
        (0, 300, 50),
        (49 - AFTER_THE_FIRST_CYCLE, 300, 50),
        (50 - AFTER_THE_FIRST_CYCLE, 300, 51),
        (63, 300, 64 + AFTER_THE_FIRST_CYCLE),
        (4096, 300, 120),
        (3, 10, 10),  # never longer than the run that is asked about
    ],
)
def test_a_hold_sees_weights_that_stale_rollouts_have_made(max_staleness, steps, expected):
    assert hold_steps(a_config(max_staleness=max_staleness, steps=steps)) == expected


def test_a_probe_begins_with_a_ramp_on_fresh_rollouts_over_every_scale():
    config = next_segment(a_config(max_staleness=15, seed=2), [], RAMP_STEPS)
    rates = [config.learning_rate_at(t) for t in range(config.steps)]
    assert (config.max_staleness, config.steps, config.seed) == (0, 26, 3000)
    assert (rates[0], rates[-1]) == (pytest.approx(1e-8), pytest.approx(10.0))
    assert rates[1] / rates[0] == pytest.approx(10 ** (9 / 25))
    assert config.kl_to_start_every == 1
    assert next_segment(a_config(), [], RAMP_STEPS - 1) is None


def test_a_probe_run_takes_its_steps_whatever_happens_and_measures_no_bias():
    setting = a_config(bias_study="0,1", name="mine", clip_epsilon=0.3, evaluate_every=100)
    for config in (next_segment(setting, [], 300), next_segment(setting, [a_ramp()], 300)):
        assert not config.stop_on_collapse
        assert (config.bias_study, config.bias_every, config.name) == (None, 0, None)
        assert (config.evaluate_every, config.evaluation_rollouts) == (10, 128)
        assert config.clip_epsilon == 0.3


@pytest.mark.parametrize(
    ("done", "rate"),
    [
        ([a_ramp(1e-2)], FIRST_GUESS * 1e-2),  # a share of where the ramp broke
        ([a_ramp(None)], FIRST_GUESS * 10),  # it never broke: the same of its last rate
        ([a_ramp(), a_hold(1e-3, 0.1)], 2e-3),
        ([a_ramp(), a_hold(1e-3, 0.1), a_hold(2e-3, 0.1)], 4e-3),
        ([a_ramp(), a_hold(1e-3, -0.1)], 5e-4),
        ([a_ramp(), a_hold(1e-3, 0.0)], 5e-4),
        ([a_ramp(), a_hold(1e-3, -0.2)], BREAK),  # more than a quarter of the start is gone
        ([a_ramp(), a_hold(1e-3, -math.inf)], BREAK),
        ([a_ramp(start_reward=-0.5), a_hold(1e-3, -0.2, start_reward=-0.5)], BREAK),
        ([a_ramp(), a_hold(1e-3, -0.1), a_hold(5e-4, 0.1)], 1e-3 / math.sqrt(2)),
        ([a_ramp(), a_hold(1e-3, 0.1), a_hold(4e-3, -0.1)], 2e-3),  # the middle in logarithms
        ([a_ramp(), a_hold(8.0, 0.1)], 10.0),  # the largest rate that is allowed
    ],
)
def test_holds_bracket_the_rate_at_which_the_gain_is_lost(done, rate):
    config = next_segment(a_config(), done, 300)
    assert config.learning_rate == pytest.approx(rate, rel=1e-3)
    assert (config.max_staleness, config.steps, config.ramp_from) == (3, 50, None)


def test_a_close_bracket_is_followed_by_one_hold_with_fresh_rollouts_above_the_edge():
    done = [a_ramp(), *linear_holds([1.8e-3, 2.2e-3], EDGE)]
    config = next_segment(a_config(), done, 300)
    assert (config.max_staleness, config.steps) == (0, 50)
    assert config.learning_rate == pytest.approx(1.4 * EDGE, rel=0.01)
    fresh = a_hold(config.learning_rate, -0.1, max_staleness=0)
    assert next_segment(a_config(), [*done, fresh], 300) is None


def test_fresh_rollouts_need_no_second_hold_to_tell_them_apart():
    done = [a_ramp(), *linear_holds([1.8e-3, 2.2e-3], EDGE, max_staleness=0)]
    assert next_segment(a_config(max_staleness=0), done, 300) is None


def test_nothing_is_begun_that_the_budget_does_not_cover():
    assert next_segment(a_config(), [a_ramp()], 50) is not None
    assert next_segment(a_config(), [a_ramp()], 49) is None
    done = [a_ramp(), *linear_holds([1.8e-3, 2.2e-3], EDGE)]
    assert next_segment(a_config(), done, 49) is None


@pytest.mark.parametrize("edge", [3e-5, 1e-3, 7e-3, 0.4])
@pytest.mark.parametrize("max_staleness", [0, 3])
def test_a_probe_closes_in_on_the_edge_wherever_it_is(edge, max_staleness):
    setting = a_config(max_staleness=max_staleness)
    done = [a_ramp(5 * edge)]
    while (config := next_segment(setting, done, 1000)) is not None:
        gain = 0.1 * math.log(edge / config.learning_rate)
        done.append(a_hold(config.learning_rate, gain, max_staleness=config.max_staleness))
    stale = [s for s in done[1:] if s.max_staleness == max_staleness]
    gained = [s.learning_rate for s in stale if s.gain > 0]
    lost = [s.learning_rate for s in stale if s.gain <= 0]
    assert 1 < min(lost) / max(gained) <= CLOSE_ENOUGH
    assert crossing(stale, stale)[0] == pytest.approx(edge, rel=1e-3)
    assert len(done) <= 8


def test_every_segment_has_a_seed_of_its_own():
    done, seeds = [], []
    for segment in (a_ramp(), a_hold(1e-3), a_hold(2e-3), a_hold(4e-3)):
        seeds.append(next_segment(a_config(seed=7), done, 300).seed)
        done.append(segment)
    assert seeds == [8000, 8001, 8002, 8003]
    assert next_segment(a_config(seed=2**31 - 1), [], 300).seed < 2**31


# -- a learned reward, which may rise while what was wanted falls -------------------------------


def test_a_reward_is_learned_when_a_model_gives_it(tmp_path):
    assert is_learned_reward(a_config(**LEARNED))
    assert not is_learned_reward(a_config())


def ends_at(sqrt_kl, rate=1e-3, steps=50):
    return a_hold(rate, steps=steps, travel=((rate * steps, sqrt_kl, 1.0),))


def test_the_first_hold_on_a_learned_reward_travels_as_far_as_the_ramp_did_within_reach():
    travel = ((0.01, 0.2, 1.0), (0.05, 0.64, 2.0), (0.3, 1.5, 3.0))
    config = next_segment(a_config(**LEARNED), [a_ramp(travel=travel)], 300)
    assert config.learning_rate == pytest.approx(0.05 / 50)  # Σ η at the last √KL below 0.65
    far = a_ramp(travel=((0.3, 1.5, 3.0),))
    assert next_segment(a_config(**LEARNED), [far], 300).learning_rate == pytest.approx(10 / 50)


@pytest.mark.parametrize(
    ("sqrt_kl", "further"),
    [
        (0.65, 1.0),
        (0.325, 8.0),  # half of what was aimed at: (0.65/0.325)³
        (1.3, 1 / 8),
        (0.1, 10.0),  # held to a factor of ten
        (8.0, 0.1),
        (0.0, 1.0),  # nothing was measured
    ],
)
def test_the_second_hold_on_a_learned_reward_is_longer_and_aims_better(sqrt_kl, further):
    config = next_segment(a_config(**LEARNED), [a_ramp(), ends_at(sqrt_kl)], 200)
    assert config.steps == 100  # half of what is left
    assert config.learning_rate == pytest.approx(1e-3 * further * 50 / 100, rel=1e-3)


@pytest.mark.parametrize(
    ("sqrt_kl", "rate"),
    [(0.6, 5e-4), (0.325, 1e-3 * 2**2.5), (0.01, 1e-2)],
    ids=["arrived: at half the rate", "short by half: on to it", "far short: at most ten times"],
)
def test_the_third_hold_goes_on_or_there_at_half_the_rate_and_is_the_last(sqrt_kl, rate):
    done = [a_ramp(), ends_at(0.3), ends_at(sqrt_kl)]
    config = next_segment(a_config(**LEARNED), done, 60)
    assert (config.steps, config.learning_rate) == (60, pytest.approx(rate, rel=1e-3))
    assert next_segment(a_config(**LEARNED), [*done, ends_at(0.9)], 300) is None


def test_a_second_hold_that_could_not_be_longer_is_left_out():
    assert next_segment(a_config(**LEARNED), [a_ramp(), ends_at(0.4)], 99) is None
    short = a_config(**LEARNED, steps=20)
    assert next_segment(short, [a_ramp(), ends_at(0.4, steps=20)], 40).steps == 20
