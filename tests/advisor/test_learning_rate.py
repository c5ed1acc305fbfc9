"""The two-constraint rule by hand, and what the edge must and must not say."""

import math
from itertools import pairwise

import pytest

from advisor.learning_rate import FOREIGN_WIDTHS, Edge, Trial, safe_rates, two_constraint_rule


def trial(rate: float, *, unsafe: bool, staleness: int = 3, steps: int = 300) -> Trial:
    return Trial(
        learning_rate=rate, max_staleness=staleness, steps=steps, unsafe=unsafe, label="a trial"
    )


def edge(trials: list[Trial], staleness: int = 3, steps: int = 300) -> Edge:
    return Edge(trials, max_staleness=staleness, steps=steps)


SURVIVORS = [trial(2e-4, unsafe=False)] * 3
LOST = [trial(2e-3, unsafe=True)] * 3


def test_the_rule_takes_the_smaller_of_its_two_limits():
    # G_1 = 100, α = 1: staleness 0.4/(100·4) = 1e-3; horizon 5/(100·1000) = 5e-5.
    limit = two_constraint_rule(
        g_1=100.0, alpha=1.0, r_batch=0.4, r_crit=5.0, max_staleness=4, steps=1000
    )
    assert limit.staleness == pytest.approx(1e-3)
    assert limit.horizon == pytest.approx(5e-5)
    assert limit.learning_rate == pytest.approx(5e-5)
    assert limit.binding == "horizon"
    # S* = 1000·(0.4/5)^1 = 80: there both limits are 5e-5.
    assert limit.crossover_staleness == pytest.approx(80.0)


def test_at_the_crossover_both_limits_agree():
    constants = {"g_1": 70.0, "alpha": 0.5, "r_batch": 0.3, "r_crit": 2.0, "steps": 900}
    crossover = two_constraint_rule(**constants, max_staleness=1).crossover_staleness
    assert crossover == pytest.approx(900 * (0.3 / 2.0) ** 2)
    whole = round(crossover)
    limit = two_constraint_rule(**constants, max_staleness=whole)
    assert limit.staleness == pytest.approx(limit.horizon, rel=0.02)


@pytest.mark.parametrize(("alpha", "slope"), [(1.0, -1.0), (0.5, -0.5)])
def test_the_staleness_limit_falls_with_the_drift_exponent(alpha, slope):
    rates = [
        two_constraint_rule(
            g_1=50.0, alpha=alpha, r_batch=0.2, r_crit=None, max_staleness=s, steps=10
        ).learning_rate
        for s in (4, 16)
    ]
    assert math.log(rates[1] / rates[0]) / math.log(4) == pytest.approx(slope)


def test_fresh_rollouts_are_not_limited_by_staleness():
    limit = two_constraint_rule(
        g_1=50.0, alpha=1.0, r_batch=0.2, r_crit=5.0, max_staleness=0, steps=100
    )
    assert limit.staleness == math.inf
    assert limit.binding == "horizon"


def test_unknown_constants_limit_nothing_and_give_no_rate():
    limit = two_constraint_rule(
        g_1=50.0, alpha=1.0, r_batch=None, r_crit=None, max_staleness=4, steps=100
    )
    assert limit.learning_rate is None
    assert limit.binding == "none"
    assert limit.crossover_staleness is None


def test_the_edge_lies_between_survivors_and_losses():
    rates = safe_rates(edge(SURVIVORS + LOST), risk=0.05)
    assert 1e-4 < rates.max_learning_rate < rates.edge < 2e-3
    assert 1e-4 < rates.low < rates.edge < rates.high < 4e-3


def test_probability_rises_with_the_rate_and_crosses_one_half_at_the_edge():
    found = edge(SURVIVORS + LOST)
    rates = safe_rates(found, risk=0.05)
    grid = [1e-5 * 2**i for i in range(12)]
    probabilities = [found.unsafe_probability(rate) for rate in grid]
    assert all(a <= b for a, b in pairwise(probabilities))
    assert found.unsafe_probability(rates.edge) == pytest.approx(0.5, abs=0.01)
    assert found.unsafe_probability(rates.max_learning_rate) == pytest.approx(0.05, abs=0.005)


@pytest.mark.parametrize("risk", [0.02, 0.1, 0.3])
def test_a_smaller_risk_never_allows_more(risk):
    found = edge(SURVIVORS + LOST)
    stricter = safe_rates(found, risk=risk / 2).max_learning_rate
    assert stricter <= safe_rates(found, risk=risk).max_learning_rate


def test_more_staleness_or_a_longer_run_never_allows_more():
    asked = [(1, 300), (3, 300), (15, 300), (63, 300)]
    rates = [safe_rates(edge(SURVIVORS + LOST, *a), 0.05).max_learning_rate for a in asked]
    assert all(a >= b for a, b in pairwise(rates))
    asked = [(3, 75), (3, 300), (3, 1200)]
    rates = [safe_rates(edge(SURVIVORS + LOST, *a), 0.05).max_learning_rate for a in asked]
    assert all(a >= b for a, b in pairwise(rates))
    # The form of the law bounds the change: four times S+1 costs at most a factor of four.
    pair = [safe_rates(edge(SURVIVORS + LOST, s, 300), 0.5).edge for s in (3, 15)]
    assert 1.0 <= pair[0] / pair[1] <= 4.5


def test_flat_evidence_over_staleness_teaches_that_staleness_is_slack():
    flat = [trial(r, unsafe=r > 1e-3, staleness=s) for s in (0, 3, 15) for r in (5e-4, 2e-3)] * 3
    steep = [
        trial(r / (s + 1), unsafe=r > 1e-3, staleness=s) for s in (0, 3, 15) for r in (5e-4, 2e-3)
    ] * 3
    ratio_flat = edge(flat, 0).rate_at(0.5) / edge(flat, 15).rate_at(0.5)
    ratio_steep = edge(steep, 0).rate_at(0.5) / edge(steep, 15).rate_at(0.5)
    assert ratio_flat < 2.0
    assert ratio_steep > 10.0


def test_without_a_loss_no_edge_is_claimed_and_the_rate_stays_near_what_was_tried():
    rates = safe_rates(edge(SURVIVORS), risk=0.3)
    assert rates.edge is None
    assert rates.high is None
    assert "survived" in rates.reasons["edge"]
    assert rates.max_learning_rate <= 2 * 2e-4 * (1 + 1e-9)


def test_without_a_survivor_no_rate_is_advised():
    rates = safe_rates(edge(LOST), risk=0.05)
    assert rates.max_learning_rate is None
    assert "no run of the evidence survived" in rates.reasons["max_learning_rate"]
    assert rates.high is not None


def test_a_risk_far_below_all_evidence_is_refused_with_its_probability():
    mixed = [trial(1e-6, unsafe=False), trial(1e-6, unsafe=True)] * 4
    found = Edge(mixed, max_staleness=3, steps=300, widths=FOREIGN_WIDTHS)
    rates = safe_rates(found, risk=1e-6)
    assert rates.max_learning_rate is None
    assert "%" in rates.reasons["max_learning_rate"]


def test_a_later_loss_says_less_than_an_early_one():
    early = edge([*SURVIVORS, trial(2e-3, unsafe=True, steps=20)])
    late = edge([*SURVIVORS, trial(2e-3, unsafe=True, steps=300)])
    assert early.rate_at(0.5) <= late.rate_at(0.5)
