"""Drift and clipping as logged: exact on made-up laws, and every lack said in words."""

import math

import numpy as np
import pytest
from logged_drifts import ALPHA, RATE_AT_1, SIGMA_AT_1, S, a_log

from advisor.clip_curve import NINETY
from advisor.logged import MODEL_LOG_SD, LoggedDrift, growth, pooled, radius, safe_rate

AT_1 = (0.01, 0.01, "a test")


def two(**changes):
    return pooled([a_log(0.6 * RATE_AT_1, **changes), a_log(1.5 * RATE_AT_1, **changes)])


def test_the_radius_is_the_log_ratio_at_which_the_criterion_is_reached():
    found = radius(two(), AT_1, 0.75)
    assert found.value == pytest.approx(SIGMA_AT_1, rel=0.08)
    assert found.low < SIGMA_AT_1 < found.high


def test_the_safe_rate_is_where_the_clip_takes_hold_at_the_oldest_age():
    found = safe_rate(two(), AT_1, S)
    assert found.value == pytest.approx(RATE_AT_1, rel=0.12)
    assert found.low < RATE_AT_1 < found.high


def test_without_a_kl_the_rate_is_found_by_age_in_a_wider_interval():
    with_kl, without = safe_rate(two(), AT_1, S), safe_rate(two(sigma=False), AT_1, S)
    assert without.low < RATE_AT_1 < without.high
    assert without.value == pytest.approx(RATE_AT_1, rel=0.3)
    assert without.high / without.low > with_kl.high / with_kl.low


def test_less_staleness_allows_more():
    # σ ∝ η·S^0.7, so a third of the staleness allows 3^0.7 = 2.16 times the rate.
    at_7, at_2 = (safe_rate(two(), AT_1, s).value for s in (7, 7 / 3))
    assert at_2 / at_7 == pytest.approx(3**ALPHA, rel=0.15)


def test_the_difference_of_two_engines_at_age_0_is_no_drift():
    clean, floored = safe_rate(two(), AT_1, S), safe_rate(two(floor=0.05), AT_1, S)
    assert floored.value == pytest.approx(clean.value, rel=1e-6)


def test_without_a_clip_fraction_m2_bounds_it_from_below():
    found = safe_rate(two(clip=False), AT_1, S)
    assert found.value is None
    assert found.is_bound
    # M2 = 0.04 is σ = 0.2, reached at 0.2/0.0707 = 2.83 times the rate at which 1 % is clipped.
    assert found.low == pytest.approx(2.83 * RATE_AT_1, rel=0.15)
    assert "M2" in found.reason


def test_far_below_the_clip_only_a_bound_is_known():
    found = safe_rate(a_log(RATE_AT_1 / 20), AT_1, S)
    assert found.value is None
    assert found.low < RATE_AT_1
    assert "higher" in found.reason


@pytest.mark.parametrize(
    ("upper_p", "between"),
    # 10 % is clipped at √0.05 = 0.224, above M2's 0.2; 1 % at 0.0707, below it.
    [(0.1, (0.2, 0.224)), (0.01, (SIGMA_AT_1, 0.2))],
)
def test_an_end_far_below_all_batches_gives_way_to_the_radius_of_m2(upper_p, between):
    log = pooled([a_log(x * RATE_AT_1) for x in (0.6, 1.5, 4.0)])
    found = radius(log, (1e-6, upper_p, "a test"), 0.75)
    wider = math.exp(NINETY * MODEL_LOG_SD)
    assert found.low == pytest.approx(between[0] / wider, rel=0.08)
    assert found.high == pytest.approx(between[1] * wider, rel=0.15)
    assert "M2" in found.reason


def test_without_a_kl_a_criterion_far_below_bounds_the_rate_from_above():
    found = safe_rate(two(sigma=False), (1e-6, 0.01, "a test"), S)
    assert (found.value, found.low, found.is_bound) == (None, None, True)
    assert RATE_AT_1 < found.high < 4 * RATE_AT_1
    assert "log a run at a lower learning rate" in found.reason


@pytest.mark.parametrize("log", [a_log(1e-4, sigma=False, clip=False), a_log(1e-4, staleness=0)])
def test_a_log_that_tells_nothing_says_what_to_log(log):
    found = safe_rate(log, AT_1, S)
    assert (found.value, found.low, found.high) == (None, None, None)
    assert found.reason == "log something"
    assert log.unit is None


def test_a_batch_that_hardly_drifted_does_not_bend_the_growth():
    age = np.full(40, 2.0)
    sigma = np.where(np.arange(40) % 4 == 0, 1e-7, 0.1)
    log = LoggedDrift(
        rate_S=np.full(40, 1e-6), age_S=age, sigma_S=sigma, clip_S=np.full(40, math.nan)
    )
    law = growth(log)
    at_2 = math.exp(law.c + law.by_rate * math.log(1e-6) + law.by_age * math.log(2))
    assert at_2 == pytest.approx(0.1 * math.sqrt(3 / 4), rel=1e-6)  # three of four drift by 0.1


def test_growth_is_fitted_where_rates_and_ages_differ_and_usual_where_they_do_not():
    law = growth(two())
    assert law.by_rate == pytest.approx(1.0, abs=0.05)
    assert law.by_age == pytest.approx(ALPHA, abs=0.06)
    same = LoggedDrift(
        rate_S=np.full(50, 1e-6),
        age_S=np.full(50, 4.0),
        sigma_S=np.full(50, 0.1) * np.exp(np.random.default_rng(1).normal(0, 0.05, 50)),
        clip_S=np.full(50, math.nan),
    )
    usual = growth(same)
    assert (usual.by_rate, usual.by_age) == (pytest.approx(1.0), pytest.approx(0.75))
