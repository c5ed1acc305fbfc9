"""How much of the horizon a run has used, by its own drift law."""

import pytest
from factories import a_config, some_facts

from advisor.horizon import (
    horizon_kappa,
    horizon_step,
    local_kappa,
    projected_alpha,
    used_kappa,
)
from advisor.regime import Estimate, unknown

RUN = some_facts(a_config(steps=400), steps=100, displacement=1.0, drift_law=(50.0, 0.5))
"""A quarter of its way, at displacement 1. Its own α = 0.5 rests on the 70 steps after warm-up and
momentum, the usual 0.75 counts as 40: α = (0.5·70 + 0.75·40)/110, so it will reach 4^α = 2.2686."""
CRITICAL = Estimate(value=4.0, low=2.0, high=8.0, reason="a test")
BOUND = Estimate(low=2.0, is_bound=True, reason="survivors only")


def test_the_displacement_is_projected_to_the_planned_end():
    """The doubt about α: exp(1.645·0.15·ln 4·40/110), for 70 steps of its own stand beside 40."""
    found = horizon_kappa(RUN, CRITICAL)
    doubt = 1.13245
    expected = (2.2686 / 8 / doubt, 2.2686 / 4, 2.2686 / 2 * doubt)
    assert (found.low, found.value, found.high) == pytest.approx(expected, rel=1e-4)


def test_what_is_used_is_the_displacement_so_far():
    found = used_kappa(RUN, CRITICAL)
    assert (found.low, found.value, found.high) == pytest.approx((1 / 8, 1 / 4, 1 / 2))


def test_at_its_end_and_beyond_a_run_has_used_what_it_projects_to():
    for steps in (400, 500):
        done = some_facts(a_config(steps=400), steps=steps, displacement=2.5)
        assert horizon_kappa(done, CRITICAL) == used_kappa(done, CRITICAL)


def test_the_horizon_is_used_up_where_the_drift_reaches_the_radius():
    # 100·4^(1/α) with 1/α = 110/65: 1044.3; the ends 100·2^(1/α) = 323.2 and 100·8^(1/α) = 3374.8.
    found = horizon_step(RUN, CRITICAL)
    assert (found.low, found.value, found.high) == pytest.approx((323.2, 1044.3, 3374.8), rel=1e-3)


@pytest.mark.parametrize("alpha", [0.1, 0.5, 1.0])
def test_a_run_planned_to_that_step_projects_to_exactly_one(alpha):
    law = {"displacement": 1.0, "drift_law": (50.0, alpha)}
    step = horizon_step(some_facts(steps=100, **law), Estimate(value=1.5, low=1.5, high=1.5)).value
    planned = some_facts(a_config(steps=round(step)), steps=100, **law)
    kappa = horizon_kappa(planned, Estimate(value=1.5, low=1.5, high=1.5)).value
    assert kappa == pytest.approx(1.0, abs=0.005)


def test_a_radius_known_from_below_bounds_the_use_from_above_and_the_step_from_below():
    for kappa, high in (
        (horizon_kappa(RUN, BOUND), pytest.approx(1.1343 * 1.13245, rel=1e-4)),
        (used_kappa(RUN, BOUND), 0.5),
    ):
        assert (kappa.value, kappa.low, kappa.high) == (None, None, high)
        assert kappa.is_bound
    step = horizon_step(RUN, BOUND)
    assert (step.value, step.low, step.high) == (None, pytest.approx(323.2, rel=1e-3), None)
    assert step.is_bound


@pytest.mark.parametrize(
    "lacking", [{"displacement": None}, {"steps": 19}, {"steps": 0, "displacement": None}]
)
def test_what_is_not_measured_leaves_them_unknown_with_a_reason(lacking):
    run = some_facts(**lacking)
    found = [horizon_kappa(run, CRITICAL), horizon_step(run, CRITICAL)]
    if "displacement" in lacking:
        found.append(used_kappa(run, CRITICAL))
    for each in found:
        assert (each.value, each.low, each.high) == (None, None, None)
        assert each.reason


def test_an_unknown_radius_leaves_them_unknown_with_its_reason():
    for each in (horizon_kappa, used_kappa, horizon_step):
        found = each(RUN, unknown("nothing has collapsed"))
        assert (found.value, found.low, found.high) == (None, None, None)
        assert found.reason == "nothing has collapsed"


def test_the_local_limit_is_the_largest_early_update_over_the_breaking_one():
    found = local_kappa(some_facts(largest_step=0.2), Estimate(value=0.4, low=0.1, high=0.8))
    assert (found.low, found.value, found.high) == pytest.approx((0.25, 0.5, 2.0))
    assert local_kappa(some_facts(largest_step=None), CRITICAL).reason


def test_a_long_run_is_projected_by_its_own_drift_and_a_short_one_by_the_usual():
    law = {"drift_law": (50.0, 0.4)}
    assert projected_alpha(some_facts(steps=100_000, **law)) == pytest.approx(0.4, abs=1e-3)
    assert projected_alpha(some_facts(steps=20, **law)) == 0.75
    assert projected_alpha(some_facts(drift_law=None)) == 0.75
