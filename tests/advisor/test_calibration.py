"""From the facts of runs to constants: the clip criterion, κ of staleness, and three radii."""

import math
from dataclasses import replace

import pytest
from factories import EARLY, RADII, a_config, some_facts

from advisor.calibration import (
    batch_radius,
    clip_criterion,
    collapse_cause,
    critical_radius,
    slide_radius,
    staleness_kappa,
    step_radius,
)
from advisor.regime import Estimate, unknown

# -- the clip criterion and R_batch -----------------------------------------------------------


@pytest.mark.parametrize(
    ("parameters", "high"),
    [(134_000, 0.1), (9_999_999, 0.1), (10_000_000, 0.01), (7_000_000_000, 0.01), (None, 0.01)],
)
def test_without_a_run_the_literature_brackets_the_criterion(parameters, high):
    low, found, source = clip_criterion([], parameters)
    assert (low, found) == (0.0005, high)
    assert "literature" in source


def test_survivors_raise_the_lower_end_to_what_they_bore():
    runs = [some_facts(clip_p95=p) for p in (0.002, 0.004, None)]
    low, high, source = clip_criterion(runs, 134_000)
    assert (low, high) == (0.004, 0.1)
    assert "survived" in source


def test_what_a_lost_or_an_open_run_bore_proves_nothing():
    runs = [some_facts(clip_p95=0.05, unsafe=unsafe) for unsafe in (True, None)]
    assert clip_criterion(runs, 134_000)[:2] == (0.0005, 0.1)


def test_bearing_less_than_the_literature_lowers_nothing_and_more_lifts_both_ends():
    assert clip_criterion([some_facts(clip_p95=0.0001)], 134_000)[:2] == (0.0005, 0.1)
    assert clip_criterion([some_facts(clip_p95=0.3)], 134_000)[:2] == (0.3, 0.3)


def test_the_radius_lies_between_those_at_both_ends_of_the_criterion():
    found = batch_radius(RADII, (0.0005, 0.1, "a test"))
    assert (found.low, found.high) == (0.008, 0.7)
    assert found.value == pytest.approx(math.sqrt(0.008 * 0.7))
    assert not found.is_bound
    assert found.reason == "a test"


@pytest.mark.parametrize(
    ("p", "radius"),
    [(0.001, 0.011), (0.0010001, 0.011), (0.002999, 0.011), (0.003, 0.015)],
)
def test_a_criterion_that_was_not_kept_takes_the_next_one_below(p, radius):
    found = batch_radius(RADII, (p, p, "a test"))
    assert found.low == found.high == radius


def test_what_survivors_bore_beyond_every_kept_criterion_leaves_the_upper_end_open():
    found = batch_radius(RADII, (0.01, 0.13, "a test"))
    assert (found.value, found.low, found.high) == (None, 0.029, None)
    assert found.is_bound


def test_an_end_for_which_too_few_tokens_are_pooled_stays_unknown():
    few = RADII | {"0.0005": None, "0.001": None}
    found = batch_radius(few, (0.0005, 0.1, "a test"))
    assert (found.value, found.low, found.high) == (None, None, 0.7)
    assert found.is_bound
    assert "too few tokens" in found.reason


@pytest.mark.parametrize("radii", [{}, dict.fromkeys(RADII)])
def test_no_radius_at_all_is_unknown_with_its_reason(radii):
    found = batch_radius(radii, (0.0005, 0.1, "a test"))
    assert (found.value, found.low, found.high) == (None, None, None)
    assert "no clipping radius" in found.reason


def test_a_criterion_below_every_kept_one_is_unknown():
    found = batch_radius(RADII, (0.0004, 0.1, "a test"))
    assert (found.low, found.high) == (None, 0.7)


def test_a_clip_that_is_never_reached_bounds_the_radius_from_below():
    found = batch_radius(RADII | {"0.1": math.inf}, (0.0005, 0.1, "a test"))
    assert (found.value, found.low, found.high) == (None, 0.008, math.inf)
    assert found.is_bound


# -- κ_staleness ------------------------------------------------------------------------------


def test_kappa_staleness_is_drift_over_radius_with_its_ends_swapped():
    found = staleness_kappa(some_facts(drift_p95=0.4), Estimate(value=0.4, low=0.2, high=0.8))
    assert (found.low, found.value, found.high) == (0.5, 1.0, 2.0)


def test_fresh_rollouts_have_no_staleness_limit_whatever_else_is_unknown():
    fresh = some_facts(a_config(max_staleness=0), drift_p95=None)
    found = staleness_kappa(fresh, unknown("nothing"))
    assert (found.low, found.value, found.high) == (0.0, 0.0, 0.0)
    assert "S = 0" in found.reason


def test_a_drift_that_was_not_measured_leaves_kappa_unknown():
    found = staleness_kappa(some_facts(drift_p95=None), Estimate(value=1.0, low=1.0, high=1.0))
    assert (found.low, found.value, found.high) == (None, None, None)


# -- what a collapse was due to ---------------------------------------------------------------


def lost(onset, **changes):
    return some_facts(verdict="collapsed", unsafe=True, onset=onset, **changes)


PASSED, BELOW = Estimate(low=1.0, high=3.0), Estimate(low=0.2, high=0.999)


def test_a_collapse_before_warm_up_and_momentum_are_full_is_the_local_steps():
    assert collapse_cause(lost(EARLY - 1), PASSED) == "local_step"
    assert collapse_cause(lost(EARLY), PASSED) == "staleness"
    assert collapse_cause(lost(EARLY), BELOW) == "horizon"
    no_memory = a_config(warmup_steps=0, adam_beta1=0.0)
    assert collapse_cause(lost(1, config=no_memory), BELOW) == "local_step"
    assert collapse_cause(lost(2, config=no_memory), BELOW) == "horizon"


@pytest.mark.parametrize(
    ("low", "high", "cause"),
    [
        (1.0, 1.0, "staleness"),
        (0.999, 1.0, "unknown"),
        (0.999, 0.999, "horizon"),
        (None, 0.999, "horizon"),
        (1.0, None, "staleness"),
        (0.999, None, "unknown"),
        (None, 1.0, "unknown"),
        (None, None, "unknown"),
    ],
)
def test_a_cause_is_named_only_where_kappa_decides(low, high, cause):
    assert collapse_cause(lost(100), Estimate(low=low, high=high)) == cause


# -- R_crit -----------------------------------------------------------------------------------


def horizon_events(*displacements):
    runs = [lost(100, displacement_at_onset=d) for d in displacements]
    return runs, {run.run_id: "horizon" for run in runs}


def test_without_an_ended_run_nothing_is_known_of_the_horizon():
    found = critical_radius([some_facts(unsafe=None, displacement=5.0)], {})
    assert (found.value, found.low, found.high) == (None, None, None)
    assert "no run of this setting has survived" in found.reason


def test_survivors_only_bound_it_from_below():
    runs = [some_facts(displacement=d) for d in (1.0, 3.0, 2.0)]
    found = critical_radius([*runs, some_facts(displacement=9.0, unsafe=None)], {})
    assert (found.value, found.low, found.high) == (None, 3.0, None)
    assert found.is_bound
    assert "3 runs survived displacements up to 3" in found.reason


@pytest.mark.parametrize("cause", ["staleness", "local_step", "unknown"])
def test_a_collapse_of_another_cause_is_no_event_of_the_horizon(cause):
    run = lost(100, displacement_at_onset=0.5)
    found = critical_radius([some_facts(displacement=1.0), run], {run.run_id: cause})
    assert (found.value, found.low) == (None, 1.0)


def test_a_fall_is_an_event_of_its_own_radius_and_needs_the_same_cause():
    runs = [lost(100, displacement_at_onset=4.0, displacement_at_slide=d) for d in (1.0, 2.0)]
    other = lost(100, displacement_at_slide=0.1)
    causes = {run.run_id: "horizon" for run in runs} | {other.run_id: "local_step"}
    found = slide_radius([*runs, other, some_facts(displacement=9.0)], causes)
    assert found == replace(
        critical_radius(*horizon_events(1.0, 2.0)), reason="2 falls of this setting"
    )
    assert critical_radius(runs, causes).value == pytest.approx(4.0)
    nothing = slide_radius([some_facts(displacement=9.0)], {})
    assert (nothing.value, nothing.low, nothing.high) == (None, None, None)
    assert "begun to fall" in nothing.reason


def test_one_horizon_collapse_gives_a_wide_interval_around_it():
    # spread = 0.48; half = t(4)·0.48·√2 with t(4) = 2.1318: 1.4471, a factor of 4.251 each way.
    found = critical_radius(*horizon_events(2.0))
    assert found.value == pytest.approx(2.0)
    assert found.low == pytest.approx(2.0 / 4.251, rel=1e-3)
    assert found.high == pytest.approx(2.0 * 4.251, rel=1e-3)
    assert not found.is_bound
    assert found.reason == "1 horizon collapse of this setting"


def test_the_spread_of_the_events_widens_the_interval():
    # log 1 = 0 and log e² = 2: centre 1, squares 2; spread² = (4·0.48² + 2)/(4 + 1) = 0.58432;
    # half = t(5)·0.76441·√1.5 with t(5) = 2.0150: 1.8865.
    found = critical_radius(*horizon_events(1.0, math.e**2))
    assert found.value == pytest.approx(math.e)
    assert math.log(found.high) == pytest.approx(1 + 1.8865, abs=1e-3)
    assert math.log(found.low) == pytest.approx(1 - 1.8865, abs=1e-3)


def test_events_that_agree_narrow_it():
    widths = [
        found.high / found.low
        for found in (critical_radius(*horizon_events(*[2.0] * n)) for n in (1, 2, 5, 20))
    ]
    assert widths == sorted(widths, reverse=True)
    assert len(set(widths)) == 4


def test_an_event_of_unknown_displacement_is_no_event():
    found = critical_radius(*horizon_events(None))
    assert found.value is None


# -- R_step -----------------------------------------------------------------------------------


def first_steps(borne, broke):
    runs = [some_facts(largest_step=size) for size in borne]
    runs += [lost(5, largest_step=size) for size in broke]
    return step_radius(runs, {run.run_id: "local_step" for run in runs if run.unsafe})


def test_the_breaking_step_lies_between_the_largest_borne_and_the_smallest_that_broke():
    found = first_steps([0.01, 0.02], [0.08, 0.16])
    assert (found.low, found.high) == (0.02, 0.08)
    assert found.value == pytest.approx(0.04)  # √(0.02·0.08)
    assert "2 runs survived and 2 broke" in found.reason


def test_evidence_that_contradicts_itself_gives_the_whole_range():
    found = first_steps([0.1], [0.05])
    assert (found.low, found.high) == (0.05, 0.1)


def test_one_side_alone_is_a_bound():
    borne, broke = first_steps([0.02], []), first_steps([], [0.08])
    assert (borne.value, borne.low, borne.high) == (None, 0.02, None)
    assert (broke.value, broke.low, broke.high) == (None, None, 0.08)
    assert borne.is_bound
    assert broke.is_bound


def test_a_collapse_of_another_cause_broke_at_no_first_step():
    run = lost(100, largest_step=0.5)
    assert step_radius([run], {run.run_id: "horizon"}).high is None
    assert (
        step_radius([], {}).reason
        == "no run of this setting has survived, nor broken at its first steps"
    )
