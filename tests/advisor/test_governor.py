"""The governor keeps a simulated run within its bounds, and leaves one alone that is."""

import math
from itertools import pairwise

import pytest
from factories import a_config as a_warm_config
from factories import a_step
from hypothesis import given, settings
from hypothesis import strategies as st

from advisor.governed_bounds import as_json, from_json
from advisor.governor import FLOOR, RELEASE, Bounds, Governor, Level
from advisor.horizon import USUAL_ALPHA
from advisor.red_flags import LEAST_SEQUENCE_ESS

CRITERION = (0.0005, 0.1, "a criterion")


def a_config(**changes):
    return a_warm_config(**({"warmup_steps": 0} | changes))


def bounds(**known):
    return Bounds(**({"clip_criterion": CRITERION, "best_share": 0.25} | known))


def governed(config, held_to, measure, steps=None):
    """Train a run that measures what ``measure(step, rates so far)`` says; return its rates."""
    governor, rates = Governor(config, held_to), []
    factor, _ = governor(None)
    for step in range(steps or config.steps):
        rates.append(factor * config.learning_rate_at(step))
        row = a_step("a run", step, learning_rate=rates[-1], **measure(step, rates))
        factor, reason = governor(row)
        assert 0 < factor <= 1
        assert reason
    return rates


def nothing(step, rates):
    return {}


def travel(per_rate):
    """Return a displacement of per_rate·(Σ η^(1/α))^α."""

    def measure(step, rates):
        used = sum(rate ** (1 / USUAL_ALPHA) for rate in rates)
        return {"displacement": per_rate * used**USUAL_ALPHA}

    return measure


def cycle(per_rate, radius):
    """Return a drift of per_rate·η since the step before, and clipping radii about ``radius``."""
    radii = {"0.0005": radius / 2, "0.1": radius}

    def measure(step, rates):
        drift = per_rate * rates[-2] if step else 0.0
        sampled_at = max(0, step - 1)
        return {"cycle_drift": drift, "clipping_radii": radii, "sampled_at_step": sampled_at}

    return measure


def test_where_nothing_is_known_and_nothing_measured_the_schedule_is_kept():
    config = a_config(warmup_steps=10)
    rates = governed(config, bounds(), nothing)
    assert rates == [config.learning_rate_at(step) for step in range(config.steps)]


def test_a_rate_that_is_not_safe_is_brought_to_the_best_one_from_the_first_step():
    config = a_config(learning_rate=1e-3, warmup_steps=4)
    rates = governed(config, bounds(learning_rate=Level(safe=4e-4, aim=1e-4)), nothing)
    assert rates[0] == pytest.approx(1e-4 / 5)  # the warm-up is the schedule's own
    assert rates[10:] == pytest.approx([1e-4] * 290)


def test_a_rate_that_is_safe_is_left_alone_to_the_bit():
    config = a_config(learning_rate=3e-4)
    held_to = bounds(
        learning_rate=Level(safe=4e-4, aim=1e-4), displacement=Level(safe=9.0, aim=3.0)
    )
    assert governed(config, held_to, travel(10.0)) == [3e-4] * 300


@settings(deadline=None, derandomize=True, max_examples=30)
@given(over=st.floats(1.5, 6.0), warmup=st.integers(0, 30))
def test_a_run_that_would_go_too_far_ends_within_what_is_safe(over, warmup):
    config = a_config(learning_rate=1e-3, warmup_steps=warmup, max_staleness=0)
    alone = travel(1.0)(0, [config.learning_rate_at(t) for t in range(300)])["displacement"]
    safe = alone / over
    measure, rates = travel(1.0), []

    def seen(step, so_far):
        rates[:] = so_far
        return measure(step, so_far)

    governed(config, bounds(displacement=Level(safe=safe, aim=0.6 * safe)), seen)
    assert 0.5 * safe < measure(0, rates)["displacement"] <= safe


def test_one_that_has_gone_too_far_already_stands_still():
    config = a_config(learning_rate=1e-3)
    held_to = bounds(sqrt_kl=Level(safe=0.5, aim=0.1))
    rates = governed(config, held_to, lambda step, _: {"kl_to_start": 1.0 if step > 30 else None})
    assert rates[100] == pytest.approx(FLOOR * 1e-3)


def test_drift_that_passes_the_radius_is_held_well_below_it():
    config = a_config(learning_rate=1e-3)
    rates = governed(config, bounds(), cycle(per_rate=1000.0, radius=0.8))
    assert rates[:3] == [1e-3] * 3
    assert rates[10:] == pytest.approx([0.25 * 0.8e-3] * 290)
    assert min(rates) == pytest.approx(0.25 * 0.8e-3)  # it does not overshoot


def test_drift_below_the_radius_is_left_alone():
    assert set(governed(a_config(), bounds(), cycle(1000.0, radius=0.21))) == {2e-4}


def test_a_factor_is_let_go_by_degrees():
    config = a_config(learning_rate=1e-3)

    def measure(step, rates):
        return cycle(1000.0, radius=0.8 if step < 50 else 25.0)(step, rates)

    rates = governed(config, bounds(), measure)
    assert rates[49] == pytest.approx(0.2e-3)
    assert rates[-1] == 1e-3
    assert all(b <= a * RELEASE * (1 + 1e-9) for a, b in pairwise(rates))


@pytest.mark.parametrize(("loss", "acts"), [("cispo", True), ("tis", True), ("grpo", False)])
def test_few_effective_sequences_hold_a_loss_that_weighs_them(loss, acts):
    config = a_config(loss=loss, learning_rate=1e-3)

    def measure(step, rates):
        share = math.exp(-4.0 * (rates[-1] / 1e-3) ** 2)
        return {"sequence_ess_fraction": share, "staleness_max": 3.0}

    rates = governed(config, bounds(), measure)
    share = measure(0, rates[-1:])["sequence_ess_fraction"]
    assert (share == pytest.approx(LEAST_SEQUENCE_ESS, rel=0.3)) is acts
    assert (rates[-1] == 1e-3) is not acts


@pytest.mark.parametrize("odd", [math.nan, math.inf, 0.0, None])
def test_no_measurement_breaks_it(odd):
    columns = ("displacement", "cycle_drift", "kl_to_start", "sequence_ess_fraction")
    held_to = bounds(displacement=Level(safe=1.0, aim=0.5), sqrt_kl=Level(safe=0.7, aim=0.1))
    for loss in ("grpo", "cispo"):
        config = a_config(loss=loss)
        rates = governed(
            config, held_to, lambda *_: dict.fromkeys(columns, odd) | {"staleness_max": 1.0}
        )
        assert all(0 < rate <= 2e-4 for rate in rates)


def test_a_schedule_that_begins_and_ends_at_0_is_shared_out_all_the_same():
    planned = [1e-3 * min(1.0, step / 5, (99 - step) / 5) for step in range(100)]
    held_to = bounds(learning_rate=Level(safe=4e-4, aim=1e-4))
    governor = Governor(a_config(learning_rate=1e-3, steps=100), held_to, planned.__getitem__)
    factors = [governor(None)[0]]
    for step in range(99):
        row = a_step("a run", step, learning_rate=factors[-1] * planned[step])
        factors.append(governor(row)[0])
    assert factors[1:99] == pytest.approx([0.1] * 98)


def test_one_odd_share_among_others_holds_nothing_back():
    def measure(step, rates):
        share = math.nan if step == 20 else 0.9
        return {"sequence_ess_fraction": share, "staleness_max": 3.0, "cycle_drift": math.nan}

    assert set(governed(a_config(loss="tis"), bounds(), measure)) == {2e-4}


def test_a_run_that_is_extended_stays_held():
    config = a_config(learning_rate=1e-3, steps=100)
    held_to = bounds(displacement=Level(safe=0.5, aim=0.1))
    rates = governed(config, held_to, travel(100.0), steps=140)
    assert max(rates[60:]) <= 2 * FLOOR * 1e-3


def test_what_it_knows_is_a_function_of_the_rows():
    config = a_config(learning_rate=1e-3)
    held_to = bounds(displacement=Level(safe=0.01, aim=0.006))
    first, rows, factor = Governor(config, held_to), [], 1.0
    for step in range(100):
        rows.append(
            a_step(
                "a run", step, learning_rate=factor * 1e-3, displacement=1e-3 * (step + 1) ** 0.7
            )
        )
        factor, reason = first(rows[-1])
    again = Governor(config, held_to)
    for row in rows:
        told = again(row)
    assert told == (factor, reason)
    assert again(None) == (factor, reason)  # asked before the first step after resuming
    next_row = a_step("a run", 100, learning_rate=factor * 1e-3, displacement=0.03)
    assert again(next_row) == first(next_row)


def test_bounds_are_kept_as_they_were():
    held_to = bounds(learning_rate=Level(safe=1e-3, aim=1e-4), reasons={"sqrt_kl": "no"})
    assert from_json(as_json(held_to)) == held_to
