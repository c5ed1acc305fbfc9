"""The segments of a probe: what one says, and the edge that they bracket."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from factories import a_config, a_run, a_step, an_evaluation
from probed import EDGE, a_hold, a_ramp, linear_holds, travelled

from advisor import segments
from advisor.next_segment import next_segment
from advisor.segments import gains, segment_from, summarise
from storage.records import LagDrift


def crossing(holds):
    """Return the crossing of holds that are all of their probe."""
    return segments.crossing(holds, holds)


# -- what one says -----------------------------------------------------------------------------


def batches(rewards, **changes):
    return [
        a_step("a", t, learning_rate=1e-3 * (t + 1), reward_mean=r, sampled_at_step=t, **changes)
        for t, r in enumerate(rewards)
    ]


def summary(rewards, evaluations=(), drifts=(), outcome=None, start=0.5, rows=None, **changes):
    config = a_config(
        **{"steps": len(rewards), "prompts": 2, "group_size": 2, "max_staleness": 0} | changes
    )
    first = [] if start is None else [an_evaluation("a", 0, start)]
    rows = batches(rewards, reward_std=0.2) if rows is None else rows
    run = a_run(config, id="a", outcome=outcome)
    return summarise(run, config, rows, [*first, *evaluations], drifts)


def ramp_summary(rewards, start=0.8, **changes):
    return summary(rewards, start=start, ramp_from=1e-9, learning_rate=10, **changes)


def test_the_gain_compares_settled_batches_and_evaluations_with_the_start():
    later = [an_evaluation("a", 1, 0.0, rollouts=8), an_evaluation("a", 4, 0.9, rollouts=8)]
    found = summary([0.1, 0.2, 0.6, 0.8], later)
    # From step 2 on: batches of 4 at 0.6 and 0.8, 8 rollouts at 0.9: (2.4 + 3.2 + 7.2)/16 = 0.8.
    assert found.gain == pytest.approx(0.8 - 0.5)
    # Variance (0.04·8 + 0.16·8)/16 = 0.1, over 16; the start 0.16/512.
    assert found.gain_stderr == pytest.approx(math.sqrt(0.1 / 16 + 0.16 / 512))
    assert (found.start_reward, found.steps, found.diverged) == (0.5, 4, False)


def test_a_batch_counts_for_the_weights_that_sampled_it():
    rows = batches([0.1, 0.2, 0.3, 0.9])
    rows = [replace(row, sampled_at_step=0 if row.step == 2 else row.step) for row in rows]
    assert summary([0.0] * 4, rows=rows).gain == pytest.approx(0.9 - 0.5)


def test_gold_is_never_read():
    seen = summary([0.1, 0.2, 0.6, 0.8], [an_evaluation("a", 4, 0.9)])
    rows = batches([0.1, 0.2, 0.6, 0.8], reward_std=0.2, gold_reward_mean=0.0)
    gold = summary([0.0] * 4, [an_evaluation("a", 4, 0.9, gold=0.0)], rows=rows)
    assert gold == seen


def test_a_hold_that_diverged_on_the_way_lost_everything():
    found = summary([0.9] * 4, rows=batches([0.9] * 3), outcome="diverged")
    assert (found.gain, found.gain_stderr, found.diverged) == (-math.inf, None, True)


@pytest.mark.parametrize("start", [None, math.nan, math.inf])
def test_without_a_number_at_the_start_there_is_no_gain(start):
    found = summary([0.5] * 4, start=start)
    assert (found.gain, found.gain_stderr) == (None, None)


def test_weights_that_were_never_sampled_have_no_gain():
    rows = [replace(row, sampled_at_step=0) for row in batches([0.5] * 4)]
    assert summary([0.5] * 4, rows=rows).gain is None
    assert summary([0.5] * 4, rows=[replace(r, reward_mean=None) for r in rows]).gain is None


@pytest.mark.parametrize("start", [0.0, -3.0])
def test_a_start_of_zero_or_below_is_a_start_like_any_other_for_a_hold(start):
    assert summary([0.0, 0.0, 0.5, 0.5], start=start).gain == pytest.approx(0.5 - start)


def test_a_ramp_broke_at_the_step_before_the_reward_stays_low():
    # Below 0.4 for good from batch 4 on, which the weights of step 3 sampled.
    assert ramp_summary([0.8, 0.8, 0.3, 0.8, 0.39, 0.3]).broke_at == pytest.approx(4e-3)
    assert ramp_summary([0.3, 0.3, 0.3]).broke_at == pytest.approx(1e-3)


@pytest.mark.parametrize("rewards", [[0.8, 0.8, 0.8], [0.8, 0.1, 0.8], [0.8, 0.1, 0.4], []])
def test_a_ramp_whose_reward_came_back_never_broke(rewards):
    rows = batches(rewards)
    assert ramp_summary([0.0] * 3, rows=rows).broke_at is None


@pytest.mark.parametrize("start", [None, 0.0, -3.0, math.nan])
def test_where_half_of_the_start_means_nothing_a_ramp_tells_no_rate(start):
    assert ramp_summary([-9.0, -9.0, -9.0], start=start).broke_at is None


def test_a_hold_never_broke():
    assert summary([0.0] * 4).broke_at is None


def test_a_reward_that_is_not_a_number_is_broken():
    assert ramp_summary([0.8, 0.8, 0.3, math.nan]).broke_at == pytest.approx(2e-3)


def test_a_ramp_that_diverged_broke_at_its_last_rate_at_the_latest():
    found = ramp_summary([0.8] * 6, rows=batches([0.8] * 4), outcome="diverged")
    assert found.broke_at == pytest.approx(4e-3)


@pytest.mark.parametrize("last", [0.9, math.nan])
def test_a_gain_is_never_nan(last):
    found = summary([0.5, 0.5, 0.9, last], [an_evaluation("a", 4, math.nan)])
    assert found.gain is None or not math.isnan(found.gain)


def test_travel_is_read_where_both_distances_are_numbers():
    rows = [
        a_step("a", 0, learning_rate=0.1, kl_to_start=0.04, displacement=1.0),
        a_step("a", 1, learning_rate=0.2, kl_to_start=None, displacement=2.0),
        a_step("a", 2, learning_rate=0.3, kl_to_start=-1e-9, displacement=3.0),
        a_step("a", 3, learning_rate=0.4, kl_to_start=math.nan, displacement=4.0),
        a_step("a", 4, learning_rate=0.5, kl_to_start=1.0, displacement=math.inf),
    ]
    expected = [(0.1, 0.2, 1.0), (0.6, 0.0, 3.0)]
    found = summary([0.5] * 5, rows=rows).travel
    assert [tuple(p) for p in found] == [pytest.approx(p) for p in expected]


def test_effective_norms_are_medians_by_lag_of_what_is_a_number():
    pairs = [(1, 2.0, 1.0), (1, 4.0, 1.0), (1, 9.0, 1.0), (4, 3.0, 2.0)]
    pairs += [(4, math.nan, 1.0), (4, None, 1.0), (8, 1.0, 0.0)]
    drifts = [LagDrift(run_id="a", step=0, lag=k, norm=n, rate_sum=r) for k, n, r in pairs]
    assert summary([0.5] * 4, drifts=drifts).effective_norms == {"1": 4.0, "4": 1.5}


def test_clips_and_drifts_are_those_of_the_second_half():
    rows = [
        a_step("a", t, cycle_drift=float(t), clip_fraction_low=0.01 * t, clip_fraction_high=0.0)
        for t in range(40)
    ]
    found = summary([0.5] * 40, rows=rows)
    assert found.clip_fraction == pytest.approx(0.01 * (20 + 39) / 2)
    assert found.drift_p95 == 38  # 20…39: the 19th of twenty


def test_what_a_segment_costs_counts_evaluations_by_what_they_generate():
    found = summary([0.5] * 4, [an_evaluation("a", 4, 0.5, rollouts=1024)])
    assert found.cost_steps == pytest.approx(4 + 0.4 * (512 + 1024) / 4)


def test_a_run_without_a_step_says_nothing():
    found = summary([0.5] * 4, rows=[], start=None)
    assert (found.steps, found.gain, found.travel, found.effective_norms) == (0, None, (), {})
    assert (found.clip_fraction, found.drift_p95, found.radii) == (None, None, {})


def test_a_segment_survives_being_stored_as_json():
    for segment in (a_hold(1e-3), a_hold(1e-3, None, drift_p95=None), a_ramp(None)):
        assert segment_from(json.loads(json.dumps(segment.as_json()))) == segment
    assert a_ramp().is_ramp
    assert not a_hold(1e-3).is_ramp


# -- the edge ----------------------------------------------------------------------------------


@pytest.mark.parametrize("edge", [3e-6, 2e-3, 0.9, 1.0, 5.0])
@pytest.mark.parametrize("around", [(0.5, 1.7), (0.9, 1.1), (0.3, 0.6, 1.2, 2.4), (0.7, 1.5)])
def test_a_gain_linear_in_the_logarithm_crosses_where_it_is_zero(edge, around):
    found, error = crossing(linear_holds([edge * x for x in around], edge))
    assert found == pytest.approx(edge, rel=1e-6)
    width = math.log(min(x for x in around if x > 1) / max(x for x in around if x < 1))
    assert 0.2 * width * 0.999 <= error <= width * 1.001


def test_the_crossing_is_that_of_the_weighted_least_squares_line():
    measured = [(1e-3, 0.08, 0.01), (1.5e-3, 0.05, 0.04), (2e-3, -0.01, 0.02), (3e-3, -0.06, 0.03)]
    stale = [a_hold(rate, gain, gain_stderr=error) for rate, gain, error in measured]
    x, y, sd = np.array([(math.log(r), g, e) for r, g, e in measured]).T
    slope, height = np.polyfit(x, y, 1, w=1 / sd)
    at = math.exp(-height / slope)
    assert 1.5e-3 < at < 2e-3  # otherwise it would be held to the bracket
    assert crossing(stale)[0] == pytest.approx(at, rel=1e-6)


def test_the_order_of_the_holds_does_not_matter():
    holds = linear_holds([1e-3, 1.5e-3, 2.5e-3, 4e-3], EDGE)
    assert crossing(holds[::-1]) == pytest.approx(crossing(holds))


def test_the_line_begins_at_the_largest_gain():
    """Below it the gain still grows with the rate, which says nothing about where it falls."""
    holds = [a_hold(1e-3, 0.1), a_hold(1.2e-3, 0.11), a_hold(1.5e-3, 0.12), a_hold(2e-3, -0.001)]
    share = 0.12 / 0.121
    assert crossing(holds)[0] == pytest.approx(1.5e-3 * (2e-3 / 1.5e-3) ** share)


def test_the_crossing_lies_at_most_half_a_bracket_beyond_it():
    holds = [a_hold(1e-3, 0.001), a_hold(2e-3, -0.1), a_hold(2.1e-3, -0.1), a_hold(2.2e-3, 0.1)]
    assert 1e-3 / math.sqrt(2) * 0.999 <= crossing(holds)[0] <= 2e-3 * math.sqrt(2) * 1.001


def test_noisier_holds_place_the_edge_less_certainly():
    def error(stderr):
        return crossing(linear_holds([1.5e-3, 2.7e-3], EDGE, gain_stderr=stderr))[1]

    assert error(0.001) < error(0.02) < error(0.05)


@pytest.mark.parametrize(
    "holds",
    [
        [],
        [a_hold(1e-3)],
        [a_hold(1e-3), a_hold(2e-3)],
        [a_hold(1e-3, -0.1), a_hold(2e-3, -0.2)],
        [a_hold(1e-3, None), a_hold(2e-3, -0.2)],
        [a_hold(1e-3, None, start_reward=None)],
        [a_hold(1e-3, -math.inf)],
        [a_hold(1e-3, -0.1), a_hold(2e-3, 0.1)],
    ],
)
def test_without_a_gain_below_a_loss_there_is_no_crossing(holds):
    assert crossing(holds) is None


def test_a_hold_that_diverged_is_a_loss_within_the_bracket():
    diverged = a_hold(4e-3, -math.inf, gain_stderr=None, diverged=True)
    found, error = crossing([a_hold(1e-3, 0.1), diverged])
    assert 1e-3 < found < 4e-3
    assert 0 < error <= math.log(4) + 1e-9


def test_a_hold_that_diverged_far_above_hardly_moves_the_crossing():
    holds = linear_holds([1e-3, 1.8e-3, 2.6e-3], EDGE)
    diverged = a_hold(5e-3, -math.inf, gain_stderr=None, diverged=True)
    before, after = crossing(holds), crossing([*holds, diverged])
    assert abs(math.log(after[0] / before[0])) < before[1]


def test_gains_are_held_against_the_start_of_all_segments():
    low = a_hold(1e-3, 0.1, start_reward=0.4)  # ended at 0.5
    high = a_hold(2e-3, -0.3, start_reward=0.6)  # ended at 0.3
    ramp = a_ramp(start_reward=0.8)
    assert gains([high, low], [ramp, low, high]) == [
        (math.log(1e-3), pytest.approx(0.5 - 0.6), 0.02),
        (math.log(2e-3), pytest.approx(0.3 - 0.6), 0.02),
    ]
    assert gains([], [ramp]) == []
    assert gains([a_hold(1e-3, None)], [ramp]) == []
    assert gains([a_hold(1e-3, 0.1, start_reward=None)], [ramp]) == []


def test_a_start_that_is_not_a_number_is_not_pooled():
    holds = [a_hold(1e-3, 0.1), a_hold(4e-3, None, start_reward=math.nan)]
    assert [gain for _, gain, _ in gains(holds, holds)] == [pytest.approx(0.1)]


def test_a_hold_whose_gain_is_not_a_number_ends_no_probe():
    config = next_segment(a_config(), [a_ramp(), a_hold(1e-3, math.nan)], 300)
    assert config is None or config.learning_rate < 1e-3


def test_the_same_rate_is_not_held_again_and_again():
    """A hold has no gain where the reward of its start came out as no number."""
    first = next_segment(a_config(), [a_ramp()], 300)
    unjudged = a_hold(first.learning_rate, None)
    again = next_segment(a_config(), [a_ramp(), unjudged], 300)
    assert again is None or again.learning_rate != first.learning_rate


def test_noise_at_the_gentlest_hold_does_not_hide_the_bracket_above_it():
    """The lowest rate hardly learns: a start pooled a little higher turns its gain negative."""
    holds = [a_hold(1e-4, -0.001), a_hold(1e-3, 0.1), a_hold(2e-3, -0.1)]
    found = crossing(holds)
    assert found is not None
    assert 1e-3 < found[0] < 2e-3


def test_travel_of_the_synthetic_holds_is_the_power_law_it_claims():
    [point] = travelled(0.5, 1)
    assert point == pytest.approx((0.5, 4 * 0.5**0.65 * 0.5**0.1, 5 * 0.5**0.7))
