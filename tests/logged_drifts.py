"""Logs of drift and clipping whose answer is known: σ a power law, the clip fraction its square."""

import math

import numpy as np

from advisor.logged import LoggedDrift

S, CONSTANT, ALPHA = 7, 300.0, 0.7
"""σ = 300·η·age^0.7 and a clip fraction of 2·σ²: 1 % is clipped at σ = 0.0707."""
SIGMA_AT_1 = math.sqrt(0.01 / 2)
RATE_AT_1 = SIGMA_AT_1 / (CONSTANT * S**ALPHA)


def a_log(rate, *, cycles=12, staleness=S, floor=0.0, sigma=True, clip=True):
    """Return the batches of a run whose rollouts age from 0 to S again and again."""
    age = np.tile(np.arange(staleness + 1.0), cycles)
    drift = CONSTANT * rate * age**ALPHA
    nothing = np.full(len(age), math.nan)
    return LoggedDrift(
        rate_S=np.full(len(age), rate),
        age_S=age,
        sigma_S=np.sqrt(drift**2 + floor**2) if sigma else nothing,
        clip_S=2 * drift**2 if clip else nothing,
        missing="log something",
    )
