"""Fits of the bias laws find exponents that were put into made-up probes with noise."""

import math

import numpy as np
import pytest

from advisor.bias_laws import (
    curve,
    drift_exponent,
    exponent,
    onset_and_saturation,
    ratio_at_equal_drift,
    upper_bound,
)
from storage.records import BiasProbe

SEEDS = {f"{rate}-{seed}": seed for rate in (1e-4, 4e-4) for seed in range(3)}


def probes(law, *, correction="uncorrected", error=0.05, floor=1e-4, alpha=0.8, seed=0):
    """‖b‖² = law(drift)² at drift = 100·η·lag^α, with noise of a share ``error`` and a floor."""
    rng = np.random.default_rng(seed)
    found = []
    for rate in (1e-4, 4e-4):
        for s in range(3):
            for lag in (0, 1, 2, 4, 8, 16):
                drift = 100 * rate * lag**alpha
                truth = law(drift) ** 2
                stderr = error * truth + floor
                found.append(
                    BiasProbe(
                        run_id=f"{rate}-{s}",
                        step=64,
                        staleness=lag,
                        correction=correction,
                        time=0.0,
                        shards=20,
                        rollouts=1000,
                        learning_rate=rate,
                        drift=drift,
                        clip_fraction=0.01 * lag,
                        bias_squared=truth + stderr * rng.normal(),
                        bias_squared_stderr=stderr,
                        norm_squared=1.0,
                        norm_squared_stderr=0.1,
                    )
                )
    return found


def test_the_exponent_in_drift_is_found_with_an_interval_that_covers_it():
    found = exponent(probes(lambda drift: 8 * drift), "uncorrected")
    assert found.value == pytest.approx(1.0, abs=0.05)
    assert found.low < 1.0 < found.high


def test_the_exponent_in_lag_is_that_in_drift_times_that_of_the_drift():
    made = probes(lambda drift: 8 * drift)
    assert drift_exponent(made).value == pytest.approx(0.8, abs=0.01)
    assert exponent(made, "uncorrected", along="lag").value == pytest.approx(0.8, abs=0.05)


def test_estimates_that_came_out_negative_enter_the_fit():
    made = probes(lambda drift: 8 * drift, floor=1e-2, seed=6)
    assert any(p.bias_squared < 0 for p in made if p.staleness > 0)
    assert exponent(made, "uncorrected").value == pytest.approx(1.0, abs=0.2)


def test_lags_beyond_the_small_drift_do_not_enter():
    made = probes(lambda drift: 8 * min(drift, 0.1))
    assert exponent(made, "uncorrected").value == pytest.approx(1.0, abs=0.1)


def test_two_runs_are_too_few_for_an_exponent():
    few = [p for p in probes(lambda drift: drift) if p.run_id in ("0.0001-0", "0.0001-1")]
    found = exponent(few, "uncorrected")
    assert found.value is None
    assert "are needed" in found.reason


def test_the_ratio_at_equal_drift_sees_a_factor_between_learning_rates():
    same = probes(lambda drift: drift, correction="clipped", error=0.01, floor=1e-9)
    assert ratio_at_equal_drift(same, "clipped", SEEDS).value == pytest.approx(1.0, abs=0.03)
    louder = [
        p
        if p.learning_rate == 1e-4
        else BiasProbe(
            **{**{f: getattr(p, f) for f in p.__slots__}, "bias_squared": 4 * p.bias_squared}
        )
        for p in same
    ]
    found = ratio_at_equal_drift(louder, "clipped", SEEDS)
    assert found.value == pytest.approx(2.0, abs=0.06)
    assert 1.9 < found.low < found.high < 2.1


def test_one_learning_rate_has_no_ratio():
    made = [p for p in probes(lambda d: d, correction="clipped") if p.learning_rate == 1e-4]
    assert ratio_at_equal_drift(made, "clipped", SEEDS).value is None


def test_onset_and_saturation_are_seen_where_they_were_put():
    # 300·drift² reaches 0.1 at drift 0.018; the drift of lag 1 is 0.01, of lag 4 0.03.
    saturating = probes(lambda drift: min(0.8, 300 * drift**2), correction="clipped", error=0.01)
    found = onset_and_saturation(saturating)
    assert found["onset_drift"].value == pytest.approx(math.sqrt(0.1 / 300), rel=0.1)
    assert found["steepest_slope"].value == pytest.approx(2.0, abs=0.3)
    assert found["last_slope"].value < 0.5
    assert "saturated" in found["last_slope"].reason


def test_the_upper_bound_of_no_bias_is_its_interval_and_not_zero():
    made = probes(lambda drift: 0.0 * drift, correction="unclipped", floor=4e-3)
    found = upper_bound(made)
    assert found.value is None
    assert found.is_bound
    assert 0.03 < found.high < 0.2


def test_the_curve_averages_runs_and_keeps_the_control():
    rows = curve(probes(lambda drift: 8 * drift), "uncorrected").rows
    assert len(rows) == 12
    assert {row[1] for row in rows} == {0, 1, 2, 4, 8, 16}
    assert all(row[7] == 3 for row in rows)
    assert all(row[4] <= row[3] <= row[5] for row in rows)
