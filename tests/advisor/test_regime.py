"""A regime is named only when the intervals decide it."""

import math

import pytest

from advisor.regime import Estimate, Regime, regime_of, unknown


def between(low: float | None, high: float | None) -> Estimate:
    return Estimate(low=low, high=high, reason="a test")


def kappas(staleness: Estimate, horizon: Estimate, local: Estimate) -> dict[str, Estimate]:
    return {"staleness": staleness, "horizon": horizon, "local_step": local}


LOW = between(0.1, 0.5)


@pytest.mark.parametrize("verdict", ["collapsed", "diverged"])
def test_what_has_happened_comes_before_any_kappa(verdict):
    assert regime_of(kappas(LOW, LOW, LOW), verdict)[0] == verdict


def test_all_below_one_is_stable_and_just_reaching_one_is_not():
    assert regime_of(kappas(LOW, LOW, between(0.1, 0.999)))[0] == Regime.STABLE
    assert regime_of(kappas(LOW, LOW, between(0.1, 1.0)))[0] == Regime.INSUFFICIENT_DATA


def test_a_limit_counts_as_passed_from_exactly_one_at_its_low_end():
    assert regime_of(kappas(between(1.0, 3.0), LOW, LOW))[0] == Regime.STALENESS_LIMITED
    assert regime_of(kappas(between(0.99, 3.0), LOW, LOW))[0] == Regime.INSUFFICIENT_DATA


def test_the_largest_certain_limit_names_the_regime():
    found, reason = regime_of(kappas(between(1.2, 9.0), between(2.0, 3.0), LOW))
    assert found == Regime.HORIZON_LIMITED
    assert "2" in reason
    assert regime_of(kappas(LOW, LOW, between(5.0, 6.0)))[0] == Regime.STEP_LIMITED


def test_an_unknown_limit_is_never_taken_for_zero():
    found, reason = regime_of(kappas(LOW, unknown("nothing collapsed yet"), LOW))
    assert found == Regime.INSUFFICIENT_DATA
    assert "nothing collapsed yet" in reason


def test_a_bound_that_decides_is_enough():
    bounded = Estimate(high=0.7, is_bound=True, reason="survivors only")
    assert regime_of(kappas(LOW, bounded, LOW))[0] == Regime.STABLE


def test_a_survivor_is_stable_unless_a_limit_was_certainly_passed():
    vague = between(0.2, 4.0)
    assert regime_of(kappas(LOW, LOW, LOW), "healthy") == (
        Regime.STABLE,
        "the run ended healthy; one seed is no proof for the next",
    )
    found, reason = regime_of(kappas(vague, unknown("not measured"), LOW), "healthy")
    assert found == Regime.STABLE
    assert reason.endswith(
        ", and κ_staleness of 0.2 to 4 and κ_horizon (unknown) alone would not say that it was safe"
    )
    passed = between(2.0, 4.0)
    assert regime_of(kappas(passed, vague, vague), "healthy")[0] == Regime.STALENESS_LIMITED
    assert regime_of(kappas(vague, vague, vague), "damaged")[0] == Regime.INSUFFICIENT_DATA


def test_dividing_swaps_the_ends_and_keeps_unknown_ends_unknown():
    radius = Estimate(value=2.0, low=1.0, high=4.0)
    kappa = radius.dividing(2.0)
    assert (kappa.low, kappa.value, kappa.high) == (0.5, 1.0, 2.0)
    bound = Estimate(low=4.0, is_bound=True, reason="survivors").dividing(2.0)
    assert (bound.low, bound.value, bound.high) == (None, None, 0.5)


def test_dividing_by_zero_is_infinite_and_zero_by_zero_unknown():
    zero = Estimate(value=0.0, low=0.0, high=1.0)
    assert zero.dividing(2.0).high == math.inf
    assert zero.dividing(0.0).value is None


def test_an_infinite_radius_gives_a_kappa_of_zero():
    assert Estimate(low=1.0, high=math.inf).dividing(3.0).low == 0.0
