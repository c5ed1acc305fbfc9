"""What one run contributes: the drift law, and what was measured or was not."""

import math

import numpy as np
import pytest
from factories import EARLY, a_config

from advisor.run_facts import SERIES, drift_law, run_facts

# -- the drift law ----------------------------------------------------------------------------


def power_law(g_1, alpha, *, rate=2e-4, steps=200):
    """D(k) = g_1·η·k^α after k = 1, 2, … learner steps."""
    step = np.arange(steps, dtype=float)
    return step, g_1 * rate * (step + 1) ** alpha


@pytest.mark.parametrize("alpha", [0.1, 0.3, 0.5, 1.0])
@pytest.mark.parametrize("rate", [1e-7, 2e-4, 0.5])
def test_an_exact_power_law_is_recovered_whatever_the_rate(alpha, rate):
    step, displacement = power_law(70.0, alpha, rate=rate)
    found = drift_law(step, displacement, a_config(learning_rate=rate))
    assert found == pytest.approx((70.0, alpha), rel=1e-9)


@pytest.mark.parametrize(("alpha", "held"), [(1.4, 1.0), (0.03, 0.1), (-0.5, 0.1)])
def test_an_exponent_beyond_ballistic_or_standing_still_is_held_at_the_end(alpha, held):
    step, displacement = power_law(70.0, alpha)
    g_1, found = drift_law(step, displacement, a_config())
    assert found == held
    # The law still passes through the middle of the data, in logarithms.
    k = step[EARLY:] + 1
    middle = np.mean(np.log(displacement[EARLY:])) - held * np.mean(np.log(k))
    assert g_1 == pytest.approx(math.exp(middle) / 2e-4)


def test_what_happens_while_warm_up_and_momentum_fill_up_does_not_count():
    step, displacement = power_law(70.0, 0.5)
    displacement[:EARLY] = 1e6
    assert drift_law(step, displacement, a_config()) == pytest.approx((70.0, 0.5))
    displacement[EARLY] = 1e6
    assert drift_law(step, displacement, a_config()) != pytest.approx((70.0, 0.5), rel=0.01)


def test_twenty_usable_steps_make_a_law_and_nineteen_do_not():
    step, displacement = power_law(70.0, 0.5, steps=EARLY + 20)
    assert drift_law(step, displacement, a_config()) == pytest.approx((70.0, 0.5))
    assert drift_law(step[:-1], displacement[:-1], a_config()) is None


@pytest.mark.parametrize("unusable", [math.nan, math.inf, 0.0])
def test_rows_without_a_usable_displacement_are_passed_over(unusable):
    step, displacement = power_law(70.0, 0.5)
    displacement[60:120] = unusable
    assert drift_law(step, displacement, a_config()) == pytest.approx((70.0, 0.5))
    displacement[EARLY + 19 :] = unusable
    assert drift_law(step, displacement, a_config()) is None


# -- what one run measured --------------------------------------------------------------------


def measured(series, **changes):
    """Summarise a run from some of its columns; the others were not measured."""
    steps = len(next(iter(series.values())))
    values = {name: [None] * steps for name in SERIES} | {"step": list(range(steps))} | series
    known = {
        "run_id": "r",
        "name": "a run",
        "config": a_config(),
        "verdict": "healthy",
        "onset": None,
        "slide": None,
        "reward_start": None,
        "reward_final": None,
        "radii": {},
        "ended": True,
    }
    return run_facts(series=values, **(known | changes))


def test_what_was_not_measured_is_none_and_never_zero():
    facts = measured({"step": list(range(60))})
    assert facts.steps == 60
    names = ("drift_p95", "displacement", "largest_step", "drift_law", "clip_p95")
    assert {name: getattr(facts, name) for name in names} == dict.fromkeys(names)


def test_a_run_without_a_step_measures_nothing():
    facts = measured({"step": []})
    assert facts.steps == 0
    assert facts.displacement is None
    assert facts.largest_step is None


def test_drift_is_the_95th_percentile_of_the_recent_steps():
    # The last max(50, 2·(3+1)) = 50 of 100: values 0…49, whose 95th percentile is 0.95·49.
    drift = [9.0] * 50 + [float(i) for i in range(50)]
    assert measured({"cycle_drift": drift}).drift_p95 == pytest.approx(0.95 * 49)
    # S = 40 looks back 2·(40+1) = 82 steps, 32 of the nines among them.
    wide = measured({"cycle_drift": drift}, config=a_config(max_staleness=40)).drift_p95
    assert wide == pytest.approx(np.percentile([9.0] * 32 + drift[50:], 95))
    assert wide != pytest.approx(0.95 * 49)


def test_non_finite_numbers_do_not_reach_the_summary():
    facts = measured(
        {
            "cycle_drift": [0.1, math.nan, math.inf, None],
            "displacement": [0.2, math.inf, 0.1, math.nan],
            "learning_rate": [1e-3] * 4,
            "update_norm": [5.0, math.nan, math.inf, None],
            "clip_fraction_low": [0.01, math.nan, None, 0.0],
            "clip_fraction_high": [0.02, 0.1, 0.1, math.nan],
        }
    )
    assert facts.drift_p95 == 0.1
    assert facts.displacement == 0.2
    assert facts.largest_step == 5e-3
    assert facts.clip_p95 == pytest.approx(0.03)


def test_the_largest_step_is_that_of_the_early_steps():
    norms = [50.0] * EARLY
    norms[3] = 80.0
    facts = measured({"learning_rate": [1e-3] * 31, "update_norm": [*norms, 1e9]})
    assert facts.largest_step == pytest.approx(0.08)


def test_displacement_at_onset_is_the_largest_of_the_steps_before_it():
    # θ_onset is the policy after the steps 0 … onset − 1.
    displacement = [0.1, 0.4, 0.3, 9.0]
    collapsed = {"verdict": "collapsed", "ended": True}
    assert (
        measured({"displacement": displacement}, onset=3, **collapsed).displacement_at_onset == 0.4
    )
    assert (
        measured({"displacement": displacement}, onset=1, **collapsed).displacement_at_onset == 0.1
    )
    assert (
        measured({"displacement": displacement}, onset=0, **collapsed).displacement_at_onset == 0.1
    )
    assert measured({"displacement": displacement}, onset=None).displacement_at_onset is None


@pytest.mark.parametrize(
    ("verdict", "ended", "unsafe"),
    [
        ("collapsed", True, True),
        ("diverged", True, True),
        ("damaged", True, True),
        ("healthy", True, False),
        ("finished", True, False),
        ("undetermined", True, None),
        (None, True, None),
        ("healthy", False, None),
        ("finished", False, None),
        ("damaged", False, None),
        (None, False, None),
        ("collapsed", False, True),
        ("diverged", False, True),
    ],
)
def test_only_an_ended_run_has_an_outcome_but_a_collapse_is_one_at_once(verdict, ended, unsafe):
    assert measured({"step": [0]}, verdict=verdict, ended=ended).unsafe is unsafe
