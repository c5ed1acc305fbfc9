"""Outcomes of runs move a probe's limits the way they should, and no further than they can."""

import math
from itertools import pairwise

import pytest

from advisor.limits import RateLimit, rate_at, unsafe_probability
from advisor.posterior import SEED_LOG_SD, Outcome, shift_of

EDGE = 4e-4


def a_limit(**changes):
    given = {"binding": "staleness", "median": EDGE, "log_sd": 0.4, "reason": "measured"}
    return RateLimit(**given | changes)


def after(outcomes, limits=None):
    """The limits once runs at (rate, unsafe) are known."""
    limits = limits or [a_limit()]
    known = [Outcome(learning_rate=r, limits=limits, unsafe=unsafe) for r, unsafe in outcomes]
    shift = shift_of(limits, known)
    return limits if shift is None else [shift.applied(limit) for limit in limits]


def test_without_outcomes_nothing_is_learned():
    assert shift_of([a_limit()], []) is None
    assert shift_of([], [Outcome(learning_rate=EDGE, limits=[], unsafe=False)]) is None


def test_runs_that_survive_beyond_the_edge_raise_it_and_lost_ones_below_lower_it():
    assert after([(6e-4, False)] * 3)[0].median > 1.2 * EDGE
    assert after([(2.5e-4, True)] * 3)[0].median < 0.85 * EDGE


@pytest.mark.parametrize(("rate", "unsafe"), [(4e-5, False), (4e-3, True)])
def test_what_was_certain_anyway_moves_next_to_nothing(rate, unsafe):
    (limit,) = after([(rate, unsafe)] * 5)
    assert limit.median == pytest.approx(EDGE, rel=0.02)
    assert limit.log_sd == pytest.approx(0.4, rel=0.05)


def test_each_further_run_moves_it_less_and_the_spread_only_shrinks():
    medians = [after([(6e-4, False)] * n)[0].median for n in range(1, 6)]
    steps = [math.log(b / a) for a, b in zip([EDGE, *medians], medians, strict=False)]
    assert all(a > b > 0 for a, b in pairwise(steps))
    spreads = [after([(EDGE * 1.1, True), (EDGE * 0.9, False)] * n)[0].log_sd for n in range(4)]
    assert spreads == sorted(spreads, reverse=True)
    assert spreads[-1] > SEED_LOG_SD


def test_a_single_accident_is_no_proof():
    # One collapse at a quarter of the edge, where four others lived, hardly moves it.
    (limit,) = after([(1e-4, True), *[(1e-4, False)] * 4, (3.8e-4, False)])
    assert limit.median > 0.75 * EDGE


def test_runs_on_both_sides_bring_a_wrong_probe_to_the_truth():
    truth = 2 * EDGE
    rates = [EDGE, 1.3 * EDGE, 1.6 * EDGE, 2.4 * EDGE, 2.8 * EDGE]
    (limit,) = after([(rate, rate > truth) for rate in rates for _ in range(3)])
    assert abs(math.log(limit.median / truth)) < 0.3
    assert limit.log_sd < 0.25


def test_an_edge_of_which_one_side_was_seen_is_known_once_a_run_saw_the_other():
    low = a_limit(bound="low", log_sd=0.7)
    assert after([(2e-3, True)], [low])[0].bound is None
    assert after([(5e-4, False)], [low])[0].bound == "low"
    high = a_limit(bound="high", log_sd=0.7)
    assert after([(1e-4, False)], [high])[0].bound is None


def test_all_limits_move_by_one_factor_and_the_advice_with_them():
    limits = [a_limit(), a_limit(binding="local_step", median=9e-4, log_sd=0.3)]
    moved = after([(7e-4, False)] * 4, limits)
    assert moved[0].median / EDGE == pytest.approx(moved[1].median / 9e-4)
    assert rate_at(moved, 0.05) > rate_at(limits, 0.05)
    assert unsafe_probability(moved, 5e-4) < unsafe_probability(limits, 5e-4)
    assert "outcomes of 4 archived runs raise it by " in moved[0].reason
