"""α is found on walks whose law is known, and momentum alone is never taken for ballistic drift."""

import math

import numpy as np
import pytest

from advisor.drift_laws import (
    DriftKind,
    drift_law_of,
    function_drift_by_age,
    g_eff_quantiles,
    momentum_null,
)
from storage.records import LagDrift

ETA = 1e-3
DIMENSIONS = 400


def windows(updates):
    """What the trainer's lag tracker keeps of a walk: windows of 2, 4, 8, … steps."""
    path = np.concatenate([np.zeros((1, updates.shape[1])), np.cumsum(ETA * updates, axis=0)])
    found = []
    for step in range(len(updates)):
        lag = 2
        while (step + 1) % lag == 0:
            norm = float(np.linalg.norm(path[step + 1] - path[step + 1 - lag]))
            found.append(LagDrift(run_id="r", step=step, lag=lag, norm=norm, rate_sum=ETA * lag))
            lag *= 2
    return found


def walk(steps=1024, *, beta=0.0, along=0.0, seed=0):
    """White noise through momentum, plus a constant direction of size ``along`` per step."""
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(steps, DIMENSIONS))
    updates, momentum = [], np.zeros(DIMENSIONS)
    for g in noise:
        momentum = beta * momentum + (1 - beta) * g
        updates.append(momentum / math.sqrt((1 - beta) / (1 + beta)) + along)
    return np.array(updates)


def test_noise_diffuses():
    law = drift_law_of(windows(walk()), beta1=0.0)
    assert law.alpha.value == pytest.approx(0.5, abs=0.05)
    assert law.null_alpha == pytest.approx(0.5)
    assert law.kind == DriftKind.DIFFUSIVE


def test_noise_through_momentum_still_only_diffuses():
    law = drift_law_of(windows(walk(beta=0.9)), beta1=0.9, after=32)
    assert law.null_alpha > 0.52, "short lags carry momentum"
    assert law.alpha.low < law.null_alpha < law.alpha.high
    assert law.kind == DriftKind.DIFFUSIVE


def test_a_constant_direction_is_ballistic():
    law = drift_law_of(windows(walk(beta=0.9, along=2.0)), beta1=0.9, after=32)
    assert law.alpha.value > 0.9
    assert law.kind == DriftKind.BALLISTIC


def test_effective_update_norms_fall_with_lag_when_diffusive_and_stay_when_ballistic():
    diffusive = drift_law_of(windows(walk()), beta1=0.0).g_eff
    # One step has norm √400 = 20; over k steps of white noise G_eff(k) = 20/√k.
    assert diffusive[16] == pytest.approx(20 / 4, rel=0.05)
    ballistic = drift_law_of(windows(np.ones((256, DIMENSIONS))), beta1=0.0).g_eff
    assert ballistic[2] == pytest.approx(20)
    assert ballistic[64] == pytest.approx(20)


def test_lags_within_the_memory_of_momentum_decide_nothing():
    law = drift_law_of(windows(walk(steps=64, beta=0.9)), beta1=0.9)
    assert law.kind == DriftKind.UNDECIDED
    assert law.alpha.value is None
    assert "beyond 1/(1 − β1) = 10" in law.reason


def test_momentum_null_by_hand():
    # β = 1/2, k = 2: 2·3 − 2·½·(1 − ¼)/¼ = 6 − 3 = 3 = 1 + 1 + 2·½.
    assert momentum_null(2, 0.5) == pytest.approx(math.sqrt(3))
    assert momentum_null(1, 0.9) == pytest.approx(1.0)
    assert momentum_null(9, 0.0) == pytest.approx(3.0)


def test_drift_by_age_has_the_floor_subtracted():
    ages = [0, 1, 2] * 4
    rms = [0.03, 0.05, 0.02] * 4
    found = function_drift_by_age(ages, rms)
    assert found == {1: pytest.approx(0.04), 2: 0.0}  # √(0.05² − 0.03²) = 0.04
    assert function_drift_by_age([1, 1, 1, None], [0.1, 0.1, 0.1, 0.5]) == {1: pytest.approx(0.1)}
    assert function_drift_by_age([1, 1, 1], [None, math.nan, 0.1]) == {}


def test_quantiles_of_a_lag_that_was_not_measured_are_not_numbers():
    found = windows(np.ones((8, DIMENSIONS)))
    assert g_eff_quantiles(found, 4).tolist() == [pytest.approx(20), pytest.approx(20)]
    assert np.isnan(g_eff_quantiles(found, 64)).all()
