"""How advice is scored, against numbers worked out by hand."""

import math

import pytest

from advisor.scores import Advised, best_constant, closeness, regret, share


def advised(true_rate, rate):
    return Advised(cell="a", workload="arithmetic", true_rate=true_rate, rate=rate)


@pytest.mark.parametrize(
    ("k", "n", "low", "high"),
    [
        # Of none, the upper end solves (1 − p)^n = 0.025; of all, the lower one p^n = 0.025.
        (0, 10, 0.0, 1 - 0.025**0.1),
        (10, 10, 0.025**0.1, 1.0),
        (0, 1, 0.0, 0.975),
        (0, 0, 0.0, 1.0),
    ],
)
def test_the_interval_of_a_share_is_exact(k, n, low, high):
    found = share(k, n)
    assert (found.k, found.n) == (k, n)
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))


def test_each_end_of_an_interval_leaves_two_and_a_half_percent_outside():
    def at_most(k, n, p):
        return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k + 1))

    found = share(3, 20)
    assert at_most(3, 20, found.high) == pytest.approx(0.025)
    assert 1 - at_most(2, 20, found.low) == pytest.approx(0.025)


def test_a_share_of_nothing_has_no_value():
    assert share(1, 4).value == 0.25
    assert share(0, 3).value == 0
    assert share(0, 0).value is None


def test_closeness_is_of_true_over_advised():
    found = closeness([advised(2e-4, 1e-4), advised(4e-4, 4e-4), advised(1e-3, 4e-3)])
    # true / advised: 2, 1, 1/4; |log2|: 1, 0, 2.
    assert (found.cells, found.missing) == (3, 0)
    assert (found.median, found.worst) == (pytest.approx(1.0), pytest.approx(2.0))
    assert (found.above.k, found.above.n) == (1, 3)
    assert found.mean_log2 == pytest.approx(1.0)
    assert found.spearman == pytest.approx(1.0)


def test_advice_that_is_missing_counts_as_infinitely_far_below():
    found = closeness([advised(2e-4, 1e-4), advised(1e-4, None), advised(1e-4, None)])
    assert (found.cells, found.missing) == (3, 2)
    assert (found.median, found.worst) == (math.inf, math.inf)
    assert (found.above.k, found.above.n) == (0, 3)
    assert found.mean_log2 == pytest.approx(1.0)


def test_cells_without_a_true_rate_are_left_out():
    assert closeness([advised(None, 1.0), advised(2e-4, 1e-4)]) == closeness([advised(2e-4, 1e-4)])


def test_nothing_scores_as_nothing():
    found = closeness([])
    assert (found.cells, found.missing, found.above.n) == (0, 0, 0)
    assert math.isnan(found.median)
    assert math.isnan(found.worst)
    assert (found.spearman, found.mean_log2) == (None, None)
    assert closeness([advised(1e-4, None)]).mean_log2 is None


@pytest.mark.parametrize(
    ("rates", "correlation"),
    [((1.0, 2.0, 3.0), 1.0), ((3.0, 2.0, 1.0), -1.0), ((2.0, 1.0, 3.0), 0.5), ((2, 2, 2), None)],
)
def test_the_rank_correlation_is_of_the_order_alone(rates, correlation):
    # (2, 1, 3): ranks differ by 1, 1, 0, so 1 − 6·2/(3·8) = 0.5.
    truths = (1e-5, 1e-4, 1.0)
    found = closeness([advised(t, r) for t, r in zip(truths, rates, strict=True)])
    assert found.spearman == (None if correlation is None else pytest.approx(correlation))


def test_advice_at_the_truth_is_not_above_it():
    assert closeness([advised(1e-4, 1e-4)]).above.k == 0


def test_the_best_constant_is_the_median_in_logarithms():
    assert best_constant([1e-4, 1e-3, 1.0]) == pytest.approx(1e-3)
    assert best_constant([1e-4, 1e-2]) == pytest.approx(1e-3)


def test_no_other_constant_is_nearer_in_factors_of_two():
    truths = [1e-4, 3e-4, 5e-3, 2e-2, 0.3]

    def far(constant):
        return sum(abs(math.log2(t / constant)) for t in truths)

    best = best_constant(truths)
    assert all(far(best) <= far(best * 1.1**i) + 1e-9 for i in range(-60, 61))


@pytest.mark.parametrize(
    ("best", "got", "start", "expected"),
    [
        (0.9, 0.9, 0.5, 0.0),
        (0.9, 0.5, 0.5, 1.0),
        (0.9, 0.8, 0.5, 0.25),
        (0.9, 0.1, 0.5, 2.0),
        (0.9, 1.0, 0.5, -0.25),
        (-1.0, -2.0, -5.0, 0.25),
        (0.5, 0.5, 0.5, None),
        (0.4, 0.5, 0.5, None),
    ],
)
def test_regret_is_the_share_of_the_possible_gain_that_was_missed(best, got, start, expected):
    found = regret(best, got, start)
    assert found == (None if expected is None else pytest.approx(expected))
