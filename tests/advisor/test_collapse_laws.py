"""The survival fits find laws that were put into made-up lifetimes, and say when they cannot."""

import math

import numpy as np
import pytest

from advisor.collapse_laws import (
    Lifetime,
    Tried,
    boundary_slopes,
    brackets,
    clocks_compared,
    collapse_exponents,
    implied_regime,
    largest_safe,
)
from advisor.regime import Estimate

HORIZON = 600


def lifetimes(seed=0, *, a=-0.8, b=0.2, noise=0.15, rates=(0.5e-4, 1e-4, 2e-4, 4e-4, 8e-4)):
    """Collapse steps 300·(η/1e-4)^a·(S+1)^b with noise, cut off at a horizon of 600 steps.

    √KL = 0.1·t^(1/2)·η^(−a/2)·(S+1)^(−b/2) is the same at every collapse but for the noise.
    """
    rng = np.random.default_rng(seed)
    runs = []
    for rate in rates:
        for staleness in (0, 3, 15):
            for s in range(3):
                pace = (rate / 1e-4) ** a * (staleness + 1) ** b
                wanted = 300 * pace * math.exp(noise * rng.normal())
                step = max(1, round(min(wanted, HORIZON)))
                kl = math.sqrt(step / pace) * 0.1 * math.exp(0.02 * rng.normal())
                runs.append(
                    Lifetime(
                        run_id=f"{rate}-{staleness}-{s}",
                        learning_rate=rate,
                        max_staleness=staleness,
                        seed=s,
                        collapsed=wanted < HORIZON,
                        step=step,
                        clip_fraction=None if staleness == 0 else 0.001,
                        clocks={
                            "step": float(step),
                            "rate_sum": step * rate,
                            "path_length": step * rate * 80,
                            "displacement": None,
                            "sqrt_kl": kl,
                        },
                        slopes={"step": 1.0, "rate_sum": 1.0, "path_length": 1.0, "sqrt_kl": 0.5},
                    )
                )
    return runs


def test_exponents_are_found_through_the_censoring():
    runs = lifetimes()
    assert sum(not run.collapsed for run in runs) >= 3
    found = collapse_exponents(runs)
    assert found["rate"].low < -0.8 < found["rate"].high
    assert found["period"].low < 0.2 < found["period"].high
    assert found["rate"].high - found["rate"].low < 0.3
    naive = np.polyfit(
        [math.log(run.learning_rate) for run in runs], [math.log(run.step) for run in runs], 1
    )[0]
    assert naive > found["rate"].high, "taking the horizon for a collapse flattens the law"


def test_the_clock_on_which_collapses_agree_wins_on_rates_it_has_not_seen():
    fits = clocks_compared(lifetimes())
    assert fits[0].clock == "sqrt_kl"
    by_clock = {fit.clock: fit for fit in fits}
    assert by_clock["sqrt_kl"].log_sd.value < 0.15
    assert by_clock["rate_sum"].log_sd.value > by_clock["sqrt_kl"].log_sd.value
    assert by_clock["sqrt_kl"].log_sd.low < by_clock["sqrt_kl"].log_sd.value
    assert by_clock["displacement"].held_out is None
    assert "0 collapses" in by_clock["displacement"].log_sd.reason


def test_too_few_collapses_give_no_law_but_a_reason():
    runs = lifetimes(rates=(0.5e-4,))
    found = collapse_exponents(runs)
    assert found["rate"].value is None
    assert "are needed" in found["rate"].reason


def test_a_period_that_was_not_varied_has_no_exponent():
    runs = [run for run in lifetimes() if run.max_staleness == 3]
    found = collapse_exponents(runs)
    assert found["period"].value is None
    assert found["rate"].value == pytest.approx(-0.8, abs=0.2)


RATES = [1e-4 * math.sqrt(2) ** i for i in range(12)]


def tried(slope, *, flat_to=0, seeds=3, rates=RATES):
    """Runs whose edge is 2e-3·(S+1)^slope beyond the flat part; seeds differ by a factor of 1.5."""
    runs = []
    for staleness in (0, 1, 3, 7, 15, 31, 63):
        for seed in range(seeds):
            edge = 2e-3 * max(1.0, (staleness + 1) / (flat_to + 1)) ** slope * 1.5 ** (seed - 1)
            runs += [
                Tried(learning_rate=r, max_staleness=staleness, seed=seed, bad=r > edge)
                for r in rates
            ]
    return runs


def test_the_largest_safe_rate_stops_below_the_first_rate_at_which_a_seed_is_bad():
    runs = [
        Tried(learning_rate=rate, max_staleness=3, seed=seed, bad=(rate, seed) == (2e-4, 1))
        for rate in (1e-4, 2e-4, 4e-4)
        for seed in (0, 1)
    ]
    assert largest_safe(runs) == {3: 1e-4}
    assert brackets(runs) == [(3, 0, 4e-4, math.inf), (3, 1, 1e-4, 2e-4)]
    assert largest_safe([Tried(learning_rate=1e-4, max_staleness=0, seed=0, bad=True)]) == {0: None}


@pytest.mark.parametrize("slope", [0.0, -0.5, -1.0])
def test_the_slope_of_the_boundary_is_found(slope):
    wide = [1e-5 * math.sqrt(2) ** i for i in range(18)]
    found = boundary_slopes(tried(slope, rates=wide))["all"]
    assert found.value == pytest.approx(slope, abs=0.05)
    assert found.low < slope + 0.05
    assert found.high > slope - 0.05


def test_a_boundary_that_is_flat_first_and_falls_later_shows_two_slopes():
    found = boundary_slopes(tried(-0.5, flat_to=7))
    assert found["small"].value == pytest.approx(0.0, abs=0.05)
    assert found["large"].value == pytest.approx(-0.5, abs=0.1)
    assert implied_regime(found["small"]) == "staleness does not limit here"


def test_a_grid_that_never_fails_has_no_slope():
    found = boundary_slopes([t for t in tried(-0.5) if not t.bad])
    assert found["all"].value is None
    assert "are needed" in found["all"].reason


def test_brackets_that_agree_bound_the_slope_by_the_grid():
    """All seeds fail between 4 and 8 at S + 1 = 8 and between 2 and 4 at S + 1 = 32."""
    runs = [
        Tried(learning_rate=rate * 1e-4, max_staleness=staleness, seed=seed, bad=rate > edge)
        for staleness, edge in ((7, 4), (31, 2))
        for seed in range(3)
        for rate in (1, 2, 4, 8)
    ]
    found = boundary_slopes(runs)["large"]
    # From log(2/8)/log 4 = −1 over log(3/6)/log 4 ≈ −0.5 (in logarithms) to log(4/4)/log 4 = 0.
    assert (found.low, found.value, found.high) == pytest.approx((-1.0, -0.5, 0.0))
    assert "agree within the grid" in found.reason


@pytest.mark.parametrize(
    ("low", "high", "words"),
    [
        (-0.2, 0.1, "does not limit"),
        (-0.7, -0.3, "diffusive"),
        (-1.2, -0.8, "ballistic"),
        (-0.9, -0.1, "undecided"),
        (-0.3, 0.2, "undecided"),
        (-0.3, -0.1, "less than diffusive"),
    ],
)
def test_the_regime_is_read_off_the_interval_of_the_slope(low, high, words):
    assert words in implied_regime(Estimate(value=(low + high) / 2, low=low, high=high))
