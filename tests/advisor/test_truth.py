"""The true largest safe rate of a cell, by outcomes written out by hand."""

import math

import pytest
from factories import a_run

from advisor.truth import (
    MOST_RATES,
    RateOutcome,
    best_index,
    decisive_final,
    grid_rate,
    largest_safe_index,
    next_rates,
    rate_outcome,
)


def rate(unsafe=0, reward=0.8, runs=3):
    return RateOutcome(runs=runs, collapsed=unsafe, diverged=0, damaged=0, reward=reward)


def found(first, *outcomes):
    return dict(enumerate(outcomes, first))


SAFE, ONE_FAILED, ALL_FAILED = rate(), rate(1), rate(3, reward=0.1)


def test_the_grid_doubles_every_second_rate_and_has_three_digits():
    assert [grid_rate(i) for i in (-2, -1, 0, 1, 2, 20)] == [
        5e-5,
        7.07e-5,
        1e-4,
        1.41e-4,
        2e-4,
        0.102,
    ]


@pytest.mark.parametrize("index", range(-10, 30))
def test_neighbors_on_the_grid_differ_by_the_root_of_two(index):
    assert grid_rate(index + 1) / grid_rate(index) == pytest.approx(math.sqrt(2), rel=0.01)


def test_outcomes_are_counted_by_what_happened_and_rewards_averaged():
    runs = [
        a_run(outcome="healthy", reward_final=0.9),
        a_run(outcome="damaged", reward_final=0.3),
        a_run(outcome="collapsed", reward_final=0.0),
        a_run(outcome="diverged"),
    ]
    assert rate_outcome(runs) == RateOutcome(
        runs=4, collapsed=1, diverged=1, damaged=1, reward=pytest.approx(0.4)
    )
    assert rate_outcome(runs).unsafe == 3


def test_a_rate_of_which_no_run_was_evaluated_has_no_reward():
    assert rate_outcome([a_run(outcome="diverged")]).reward is None
    assert rate_outcome([]) == RateOutcome(runs=0, collapsed=0, diverged=0, damaged=0, reward=None)


@pytest.mark.parametrize("gold", [0.0, 0.2])
def test_gold_decides_where_there_is_one(gold):
    assert decisive_final(a_run(reward_final=0.9, gold_reward_final=gold)) == gold
    assert decisive_final(a_run(reward_final=0.9)) == 0.9
    assert decisive_final(a_run()) is None


# -- which rates to run ------------------------------------------------------------------------


def test_the_search_begins_with_two_rates_and_closes_the_gap_between_them():
    assert next_rates({}, 4) == [4, 6]
    assert next_rates({4: SAFE, 6: SAFE}, 4) == [5]
    assert next_rates({4: SAFE, 8: SAFE}, 4) == [5, 6, 7]


@pytest.mark.parametrize(
    ("outcomes", "wanted"),
    [
        # rewards rise with the rate, so the lowest two are below the best; the top decides
        ((rate(reward=0.5), rate(reward=0.6), rate(reward=0.9), SAFE), [4]),
        ((rate(reward=0.5), rate(reward=0.6), rate(reward=0.9), ALL_FAILED), [4]),
        ((rate(reward=0.5), rate(reward=0.6), rate(reward=0.9), ONE_FAILED, ALL_FAILED), [5]),
        ((rate(reward=0.5), rate(reward=0.6), rate(reward=0.9), ALL_FAILED, ALL_FAILED), []),
        # the best is among the lowest two, or a low one is unsafe: go down
        ((rate(reward=0.9), rate(reward=0.6), rate(reward=0.7), ALL_FAILED, ALL_FAILED), [-1]),
        ((rate(reward=0.6), rate(reward=0.9), rate(reward=0.7), ALL_FAILED, ALL_FAILED), [-1]),
        ((ONE_FAILED, rate(reward=0.6), rate(reward=0.9), ALL_FAILED, ALL_FAILED), [-1]),
        ((rate(reward=None), rate(reward=0.6), SAFE, ALL_FAILED, ALL_FAILED), [-1]),
        # neither end is known
        ((ALL_FAILED,), [1, -1]),
        ((SAFE,), [1, -1]),
        ((ALL_FAILED, ALL_FAILED), [-1]),
    ],
)
def test_the_grid_goes_on_at_the_end_that_is_not_known(outcomes, wanted):
    assert next_rates(found(0, *outcomes), 0) == wanted


def test_a_search_that_began_too_far_away_ends_with_the_most_rates_it_may_take():
    assert next_rates(found(0, *[SAFE] * (MOST_RATES - 1)), 0) != []
    assert next_rates(found(0, *[SAFE] * MOST_RATES), 0) == []


@pytest.mark.parametrize("edge", [-7, 0, 3, 4, 9])
@pytest.mark.parametrize("first", [-2, 4])
def test_the_search_finds_the_edge_of_a_cell_from_either_side(edge, first):
    """Rates up to the edge are safe, and the reward is best four rates below it."""

    def run(index):
        below = 0.9 - 0.02 * abs(index - (edge - 4))
        return rate(reward=below) if index <= edge else ALL_FAILED

    outcomes = {}
    for _ in range(40):
        wanted = next_rates(outcomes, first)
        if not wanted:
            break
        outcomes |= {index: run(index) for index in wanted}
    assert next_rates(outcomes, first) == []
    assert largest_safe_index(outcomes) == edge
    assert best_index(outcomes) == edge - 4
    assert max(outcomes) - edge <= 4 or max(outcomes) == first + 2


# -- the truth ---------------------------------------------------------------------------------


def test_the_largest_safe_rate_lies_below_the_first_with_an_unsafe_seed():
    assert largest_safe_index(found(3, SAFE, SAFE, ONE_FAILED, SAFE, ALL_FAILED)) == 4
    assert largest_safe_index(found(3, ONE_FAILED, SAFE)) is None
    assert largest_safe_index(found(3, SAFE, SAFE)) == 4
    assert largest_safe_index({}) is None
    assert largest_safe_index({5: ONE_FAILED, 3: SAFE, 4: SAFE}) == 4


@pytest.mark.parametrize("kind", ["collapsed", "diverged", "damaged"])
def test_every_way_to_fail_is_unsafe(kind):
    counts = {"collapsed": 0, "diverged": 0, "damaged": 0} | {kind: 1}
    failed = RateOutcome(**counts, runs=3, reward=0.9)
    assert largest_safe_index({0: SAFE, 1: failed}) == 0


def test_the_best_rate_is_the_one_that_ends_best():
    assert best_index(found(0, rate(reward=0.3), rate(reward=0.9), rate(reward=None))) == 1
    assert best_index(found(0, rate(reward=None))) is None
    assert best_index({}) is None


def test_a_reward_that_is_not_a_number_is_never_the_best():
    assert best_index(found(0, rate(reward=math.nan), rate(reward=0.9), rate(reward=0.3))) == 1


def test_a_rate_at_which_no_run_was_decided_is_neither_safe_nor_failing():
    undecided = rate(runs=0, reward=None)
    low = (rate(reward=0.5), rate(reward=0.6), rate(reward=0.9))
    assert next_rates(found(0, *low, undecided, undecided), 0) == [5]
    assert largest_safe_index(found(0, *low, undecided, ALL_FAILED)) == 2


def test_the_search_for_the_best_ends_a_factor_of_eight_below_the_largest_safe_rate():
    """The gentler the better, as far as the grid goes: noise decides where it is flat."""
    ever_better = [rate(reward=0.9 - 0.01 * i) for i in range(8)]
    for shown, wanted in ((6, [-1]), (7, [])):  # six steps of √2 are a factor of 8
        grid = found(0, *ever_better[:shown], ALL_FAILED, ALL_FAILED)
        assert next_rates(grid, 0) == wanted
