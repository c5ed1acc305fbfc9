"""The constants of one setting, and κ at another rate, staleness or horizon."""

import pytest
from factories import RADII, a_config, some_facts

from advisor.constants import constants_of, kappas_at

RUN = some_facts(drift_p95=0.06, largest_step=0.02, drift_law=(300.0, 0.5))
"""η = 2e-4, S = 3, so cycle_g_1 = 0.06/(2e-4·√3) and one step is 0.02/2e-4 = 100 per unit."""

LOST = some_facts(
    a_config(learning_rate=4e-3),
    verdict="collapsed",
    unsafe=True,
    onset=100,
    drift_p95=0.004,
    displacement=9.0,
    displacement_at_onset=2.0,
    largest_step=0.4,
    drift_law=(80.0, 1.0),
)
"""Its drift of 0.004 lies below every radius, the smallest being 0.008: the horizon's collapse."""


def kappas(runs, *, learning_rate=2e-4, max_staleness=3, steps=300):
    return kappas_at(
        constants_of(runs, learning_rate=learning_rate),
        learning_rate=learning_rate,
        max_staleness=max_staleness,
        steps=steps,
    )


def test_no_run_leaves_every_constant_unknown_with_a_reason():
    found = constants_of([])
    assert (found.g_1, found.cycle_g_1, found.step_per_rate, found.alpha) == (None,) * 4
    for radius in (found.r_batch, found.r_crit, found.r_step):
        assert (radius.value, radius.low, radius.high) == (None, None, None)
        assert radius.reason
    for kappa in kappas([]).values():
        assert (kappa.value, kappa.low, kappa.high) == (None, None, None)
        assert kappa.reason


def test_at_its_own_rate_and_staleness_a_run_gives_back_what_it_measured():
    # κ_staleness = 0.06/R_batch with R_batch in 0.008 … 0.7.
    found = kappas([RUN])["staleness"]
    assert found.low == pytest.approx(0.06 / 0.7)
    assert found.high == pytest.approx(0.06 / 0.008)
    # κ_local = 0.02/R_step, and 0.02 was borne: at most 1.
    assert kappas([RUN])["local_step"].high == pytest.approx(1.0)
    assert kappas([RUN])["local_step"].low is None


def test_kappa_staleness_grows_with_the_rate_and_with_the_power_of_the_staleness():
    base = kappas([RUN])["staleness"].low
    assert kappas([RUN], learning_rate=8e-4)["staleness"].low == pytest.approx(4 * base)
    assert kappas([RUN], max_staleness=12)["staleness"].low == pytest.approx(2 * base)  # √(12/3)
    assert kappas([RUN], steps=9)["staleness"].low == pytest.approx(base)


def test_kappa_horizon_grows_with_the_rate_and_with_the_power_of_the_horizon():
    # D(T) = 300·η·√T; one collapse at displacement 2, so R_crit = 2.
    runs = [RUN, LOST]
    assert constants_of(runs).causes == {LOST.run_id: "horizon"}
    base = kappas(runs)["horizon"].value
    assert base == pytest.approx(300 * 2e-4 * 300**0.5 / 2)
    assert kappas(runs, steps=1200)["horizon"].value == pytest.approx(2 * base)
    assert kappas(runs, learning_rate=3e-4)["horizon"].value == pytest.approx(1.5 * base)
    assert kappas(runs, max_staleness=15)["horizon"].value == pytest.approx(base)


def test_without_a_horizon_collapse_kappa_horizon_has_no_lower_end():
    found = kappas([RUN])["horizon"]
    assert (found.value, found.low) == (None, None)
    assert found.high == pytest.approx(300 * 2e-4 * 300**0.5 / 1.0)  # it survived 1.0
    assert found.is_bound


def test_kappa_slide_is_there_where_a_run_began_to_fall_and_comes_before_the_horizon():
    lost = {"unsafe": True, "verdict": "collapsed", "onset": 200}
    fell = some_facts(
        a_config(max_staleness=0), displacement_at_onset=2.0, displacement_at_slide=1.0, **lost
    )
    found = kappas([RUN, fell])
    assert found["slide"].value == pytest.approx(2 * found["horizon"].value)
    assert "slide" not in kappas([RUN])


def test_kappa_local_grows_with_the_rate_alone():
    broke = some_facts(a_config(learning_rate=8e-4), largest_step=0.08, unsafe=True, onset=5)
    runs = [RUN, broke]
    # R_step between 0.02 borne and 0.08 broken: 0.04; the step at 2e-4 is 0.02.
    assert kappas(runs)["local_step"].value == pytest.approx(0.5)
    assert kappas(runs, learning_rate=4e-4)["local_step"].value == pytest.approx(1.0)
    assert kappas(runs, max_staleness=63, steps=9)["local_step"].value == pytest.approx(0.5)


def test_fresh_rollouts_are_not_limited_by_staleness_even_where_nothing_is_known():
    for runs in ([], [RUN]):
        found = kappas(runs, max_staleness=0)["staleness"]
        assert (found.low, found.value, found.high) == (0.0, 0.0, 0.0)


def test_runs_with_fresh_rollouts_teach_nothing_about_the_clip():
    fresh = some_facts(a_config(max_staleness=0), drift_p95=0.0, radii={})
    found = constants_of([fresh])
    assert found.cycle_g_1 is None
    assert found.r_batch.value is None
    assert "stale rollouts" in found.r_batch.reason
    assert found.g_1 == 300.0


def test_the_run_nearest_in_rate_gives_the_drift():
    rates = {1e-4: 100.0, 1e-3: 200.0, 1e-2: 400.0}
    runs = [some_facts(a_config(learning_rate=r), drift_law=(g, 0.5)) for r, g in rates.items()]
    for asked, expected in ((1e-9, 100.0), (2e-4, 100.0), (5e-4, 200.0), (1.0, 400.0)):
        assert constants_of(runs, learning_rate=asked).g_1 == expected
    assert constants_of(runs).g_1 == 100.0


def test_a_lost_run_gives_the_drift_only_where_no_other_does():
    assert constants_of([LOST, RUN], learning_rate=4e-3).g_1 == 300.0
    assert constants_of([LOST], learning_rate=4e-3).g_1 == 80.0
    assert constants_of([LOST, some_facts(drift_law=None)]).g_1 == 80.0


def test_the_radius_of_a_run_that_knows_both_ends_comes_before_a_nearer_one_that_does_not():
    near = some_facts(radii=RADII | {"0.0005": None})
    far = some_facts(a_config(learning_rate=1e-3), radii={"0.0005": 0.1, "0.1": 0.2})
    found = constants_of([near, far], learning_rate=2e-4).r_batch
    assert (found.low, found.high) == (0.1, 0.2)
    assert constants_of([near], learning_rate=2e-4).r_batch.low is None


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 10.0])
def test_the_smallest_and_the_largest_allowed_rate_have_their_kappas(rate):
    runs = [RUN, LOST, some_facts(a_config(learning_rate=5e-324))]
    for kappa in kappas(runs, learning_rate=rate).values():
        assert kappa.value is None or kappa.value >= 0
