"""The curve of clip fraction against drift: exact on power laws, careful beyond what was seen."""

import math

import numpy as np
import pytest

from advisor.clip_curve import MOST_BEYOND, clip_curve


def power_law(power=2.0, *, low=0.02, high=0.2, at_one=0.5, rows=120):
    """Return drifts and the clip fractions at_one·drift^power."""
    drift = np.geomspace(low, high, rows)
    return drift, at_one * drift**power


@pytest.mark.parametrize("power", [1.0, 2.0, 3.0])
def test_a_criterion_within_what_was_seen_is_read_off(power):
    curve = clip_curve(*power_law(power))
    p = 0.5 * 0.08**power
    found = curve.crossing(p)
    assert found.middle == pytest.approx(0.08, rel=0.03)
    assert found.low <= found.middle <= found.high


@pytest.mark.parametrize("beyond", [0.5, 2.0])
def test_beyond_an_end_the_curve_goes_on_and_the_interval_grows_with_how_far(beyond):
    curve = clip_curve(*power_law())
    end = 0.02 if beyond < 1 else 0.2
    near, far = (curve.crossing(0.5 * (end * beyond**n) ** 2) for n in (1, 1.5))
    assert near.middle == pytest.approx(end * beyond, rel=0.15)
    assert near.low < end * beyond < near.high
    assert far.high / far.low > near.high / near.low


def test_more_than_four_times_beyond_only_that_it_is_far_is_known():
    curve = clip_curve(*power_law(high=0.04))
    found = curve.crossing(0.5 * 0.4**2)
    assert (found.middle, found.high) == (None, None)
    assert 0.04 < found.low <= 0.04 * math.exp(MOST_BEYOND)


def test_below_a_saturated_curve_it_is_as_steep_as_usual_and_never_gentler():
    # From 10 % at a drift of 0.2 the curve rises by a power of 0.7; 2.5 % lies two halvings below.
    curve = clip_curve(*power_law(0.7, low=0.2, high=2.0, at_one=0.1 * 5**0.7))
    found = curve.crossing(0.025)
    assert found.middle == pytest.approx(0.2 / 2, rel=0.15)
    assert found.low > 0.2 * (1 / 4) ** (1 / 0.7) * 1.5


def test_more_than_four_times_below_only_that_it_is_far_is_known():
    curve = clip_curve(*power_law(low=0.2, high=0.4))
    found = curve.crossing(0.5 * 0.02**2)
    assert (found.low, found.middle) == (None, None)
    assert 0.2 / math.exp(MOST_BEYOND) <= found.high < 0.2


def test_batches_without_a_clipped_token_are_averaged_with_those_that_have_some():
    # Every tenth batch clips 1 % and the others nothing: 0.1 % on average, at one drift.
    drift = np.geomspace(0.05, 0.0501, 60)
    clip = np.where(np.arange(60) % 10 == 0, 0.01, 0.0)
    curve = clip_curve(drift, clip)
    assert math.exp(curve.log_clip[-1]) == pytest.approx(0.001, rel=0.01)
    assert curve.crossing(0.001).middle == pytest.approx(0.05, rel=0.01)


def test_noise_does_not_make_the_curve_fall():
    rng = np.random.default_rng(0)
    drift, clip = power_law(rows=200)
    curve = clip_curve(drift, clip * rng.lognormal(0, 0.8, 200))
    assert list(curve.log_clip) == sorted(set(curve.log_clip))


@pytest.mark.parametrize(
    ("drift", "clip"),
    [
        ([0.1] * 9, [0.01] * 9),
        ([0.0] * 40, [0.01] * 40),
        ([math.nan] * 40, [0.01] * 40),
        ([0.1] * 40, [0.0] * 40),
        ([], []),
    ],
)
def test_what_holds_nothing_makes_no_curve(drift, clip):
    assert clip_curve(np.array(drift), np.array(clip)) is None
