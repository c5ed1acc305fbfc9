"""How √KL is projected from holds whose growth is known, and what holds that break tell."""

import math
from dataclasses import replace

import pytest
from factories import a_config
from probed import KL_SCALE, LEVELS, SCALE, a_hold, a_ramp, travelled

from advisor.learned_reward import critical_displacement, growth_of, horizon_limit
from advisor.safe_levels import Level

LEARNED = {"workload": "preference"}


def test_the_displacement_of_holds_is_fitted_and_projected():
    holds = [a_hold(rate, travel=travelled(rate, 400)) for rate in (1e-4, 2e-4)]
    drift = growth_of(a_config(**LEARNED), holds, LEVELS, "displacement")
    assert (drift.alpha, drift.b) == (pytest.approx(0.7), pytest.approx(0, abs=1e-9))
    assert drift.reached == pytest.approx(400 * 2e-4)
    assert drift.at(0.06, 2e-4) == pytest.approx(SCALE * 0.06**0.7)
    assert drift.rate_sum(drift.at(0.06, 2e-4), 2e-4) == pytest.approx(0.06)
    assert math.exp(drift.log_rate(drift.at(300 * 2e-3, 2e-3), 300)) == pytest.approx(2e-3)


def test_a_growth_that_depends_on_the_rate_itself_is_told_apart_from_its_length():
    def hold(rate):
        points = ((x, 3.0 * x**0.5 * rate**0.3, 1.0) for x, _, _ in travelled(rate, 400))
        return a_hold(rate, travel=tuple(points))

    holds = [hold(rate) for rate in (1e-3, 3e-3, 9e-3)]
    levels = replace(LEVELS, sqrt_kl=Level(value=9.0, log_sd=0.1))
    growth = growth_of(a_config(**LEARNED, warmup_steps=0), holds, levels, "sqrt_kl")
    assert growth.alpha == pytest.approx(0.5, abs=0.01)
    assert growth.b == pytest.approx(0.3, abs=0.02)
    assert growth.exponent == growth.alpha + growth.b


def test_neither_the_first_steps_nor_a_broken_policy_count():
    """Until step 20 it grows as Σ η, beyond 1.4 times the level it leaps; between by a power."""

    def kl(x, rate):
        if x <= 20.5 * rate:
            return x
        return 2.0 * x**0.65 * rate**0.1 if x <= 80.5 * rate else 1e3

    def hold(rate):
        return a_hold(rate, travel=tuple((x, kl(x, rate), 1.0) for x, _, _ in travelled(rate, 120)))

    holds = [hold(1e-3), hold(3e-3)]
    growth = growth_of(a_config(**LEARNED), holds, LEVELS, "sqrt_kl")
    assert (growth.alpha, growth.b) == (pytest.approx(0.65), pytest.approx(0.1))
    assert math.exp(growth.c) == pytest.approx(2.0)
    assert growth.reached == pytest.approx(80 * 3e-3)


@pytest.mark.parametrize(
    "travel", [(), travelled(1e-3, 13), ((0.05, 1.0, 0.0),) * 9], ids=["none", "warm-up", "broken"]
)
def test_travel_that_is_empty_or_too_short_fits_no_growth(travel):
    # Σ η > 12·η is needed after 10 warm-up steps: of 13 steps only the last.
    holds = [a_hold(1e-3, travel=travel)]
    setting = a_config(**LEARNED, warmup_steps=10)
    assert growth_of(setting, holds, LEVELS, "sqrt_kl") is None
    known = horizon_limit(setting, holds, LEVELS)
    assert known is None or known.bound == "high"


@pytest.mark.parametrize("steps", [60, 300, 3000])
@pytest.mark.parametrize("rates", [(1e-3,), (1e-3, 4e-3), (2e-4, 8e-3, 1e-3)])
def test_the_horizon_limit_is_where_the_power_laws_reach_the_safe_level(steps, rates):
    setting = a_config(**LEARNED, steps=steps, warmup_steps=10)
    found = horizon_limit(setting, [a_ramp(), *(a_hold(rate) for rate in rates)], LEVELS)
    # Ten warm-up steps sum to five: 4·(η·(T − 5))^0.65·η^0.1 = 0.65.
    expected = (0.65 / KL_SCALE / (steps - 5) ** 0.65) ** (1 / 0.75)
    assert found.median == pytest.approx(expected, rel=1e-6)
    assert (found.binding, found.bound) == ("horizon", None)


def test_where_the_displacement_is_critical_is_read_off_the_probe():
    """By one hold of 1e-3, whose √KL is 4·Σ η^0.65·η^0.1 where the displacement is 5·Σ η^0.7."""
    hold = a_hold(1e-3, travel=travelled(1e-3, 400))
    found = critical_displacement(a_config(**LEARNED), [hold], LEVELS)
    rate_sum = (0.65 / KL_SCALE / 1e-3**0.1) ** (1 / 0.65)
    assert found.value == pytest.approx(SCALE * rate_sum**0.7, rel=0.02)
    assert found.log_sd == pytest.approx(0.25 / (0.65 / 0.7), rel=0.03)
    assert critical_displacement(a_config(**LEARNED), [], LEVELS) is None


def test_projecting_beyond_what_was_travelled_is_less_certain():
    holds = [a_hold(2e-4), a_hold(4e-4)]
    near = horizon_limit(a_config(**LEARNED), holds, LEVELS)
    longer = [a_hold(2e-4), a_hold(4e-4, steps=3000, travel=travelled(4e-4, 3000))]
    assert near.log_sd > horizon_limit(a_config(**LEARNED), longer, LEVELS).log_sd


def test_the_horizon_is_corrected_by_its_safe_level_and_as_uncertain_as_that_scatters():
    holds = [a_hold(1e-3), a_hold(4e-3)]
    lower = replace(LEVELS, edge_over_horizon=Level(value=0.5, log_sd=1.5))
    plain, found = (horizon_limit(a_config(**LEARNED), holds, each) for each in (LEVELS, lower))
    assert found.median == pytest.approx(0.5 * plain.median)
    assert found.log_sd == pytest.approx(1.5)


def test_the_level_is_a_guess_for_a_reward_model_unlike_those_it_was_measured_on():
    holds = [a_hold(1e-3), a_hold(4e-3)]
    own = {"workload": "custom", "model": "mine", "reward_model": "scores"}
    known = horizon_limit(a_config(**LEARNED), holds, LEVELS)
    found = horizon_limit(a_config(**LEARNED).model_copy(update=own), holds, LEVELS)
    assert found.median == known.median
    assert found.log_sd == pytest.approx(math.hypot(0.25, 0.45) / 0.75)
    assert found.log_sd > 1.8 * known.log_sd
    assert "of yours it is a guess" in found.reason
    assert "guess" not in known.reason


def test_a_reward_that_can_be_checked_has_no_horizon_here():
    assert horizon_limit(a_config(), [a_hold(1e-3)], LEVELS) is None


def test_a_kl_that_was_never_measurable_gives_no_limit_or_a_finite_one():
    still = [a_hold(r, travel=tuple((x, 0.0, d) for x, _, d in travelled(r, 50))) for r in (1e-7,)]
    found = horizon_limit(a_config(**LEARNED), still, LEVELS)
    assert found is None or math.isfinite(found.median)


def power(alpha, b, rates, *, at=1e-4, kl=0.4, steps=100):
    """Return holds whose √KL is a power law that passes kl after so many steps at a rate."""

    def hold(rate):
        sums = [rate * (t + 1) for t in range(steps)]
        return a_hold(
            rate,
            travel=tuple(
                (x, kl * (x / (at * steps)) ** alpha * (rate / at) ** b, 1.0) for x in sums
            ),
        )

    return [hold(rate) for rate in rates]


@pytest.mark.parametrize(("alpha", "b"), [(0.3, -0.25), (0.5, -0.8), (-0.3, 0.1), (0.02, 0.0)])
def test_growth_that_hardly_depends_on_the_rate_is_turned_where_it_was_held(alpha, b):
    """By noise √KL may seem to fall with η or the steps: no rate far from the holds follows."""
    holds = power(alpha, b, (5e-5, 1e-4, 2e-4))
    setting = a_config(**LEARNED, steps=160)
    growth = growth_of(setting, holds, LEVELS, "sqrt_kl")
    assert growth.alpha >= 0.1
    assert growth.exponent >= 0.2
    assert 0.3 < growth.at(1e-4 * 80, 1e-4) < 0.65
    assert 5e-6 < horizon_limit(setting, holds, LEVELS).median < 3e-3
    assert growth.rate_sum(1.3, 1e-4) > growth.rate_sum(0.65, 1e-4)


def test_holds_that_all_went_too_far_at_once_bound_the_edge_from_above():
    """What a broken policy does is fitted by nothing."""
    holds = power(0.1, 0.0, (3e-3, 6e-3), at=3e-3, kl=2.2)
    found = horizon_limit(a_config(**LEARNED, steps=160, warmup_steps=10), holds, LEVELS)
    assert found.bound == "high"
    assert found.median == pytest.approx(3e-3 / 155 / 2)  # the first step at 3e-3, of 155 in all
    assert "below" in found.reason


def test_a_level_that_no_hold_came_near_is_less_certain():
    setting = a_config(**LEARNED, steps=100, warmup_steps=10)
    near, far = (
        horizon_limit(setting, power(0.65, 0.1, (1e-4, 2e-4), kl=kl), LEVELS) for kl in (0.6, 0.06)
    )
    assert far.log_sd > 1.5 * near.log_sd


def test_on_a_reward_that_can_be_checked_no_policy_counts_as_broken_by_its_kl():
    holds = power(0.7, 0.0, (1e-3, 2e-3), at=1e-3, kl=3.0)
    assert growth_of(a_config(), holds, LEVELS, "sqrt_kl").reached == pytest.approx(0.2)
    assert growth_of(a_config(**LEARNED), holds, LEVELS, "sqrt_kl").reached < 0.1
