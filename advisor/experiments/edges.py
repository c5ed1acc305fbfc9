"""Edges, best rates and levels, read off how runs at several rates ended."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import optimize
from scipy.special import log_ndtr

from ..truth import RATIO, RateOutcome, grid_rate

SEED_LOG_SD = 0.15
"""Scatter of the edge between seeds of one cell, added to that between cells."""
LEAST_LOG_SD = 0.1
SHARES = tuple(round(0.05 * 1.1**i, 3) for i in range(32))
"""Shares of the edge among which the best is sought, 0.05 to 0.96."""


@dataclass(frozen=True, slots=True)
class Curve:
    """Final reward by learning rate of one setting, its edge, and the reward of its start."""

    rewards: Mapping[float, float]
    edge: float
    start: float

    @property
    def gains(self) -> bool:
        """Whether a rate ends above the start; else nothing is learned of which is best."""
        return max(self.rewards.values()) > self.start


def edge_of(outcomes: Mapping[int, RateOutcome]) -> float | None:
    """Return the rate at which half of the runs are unsafe; None unless the grid spans it.

    Spearman–Kärber: the grid's lowest rate plus a step for every share of safe runs above it.
    """
    known = [outcomes[index] for index in sorted(outcomes)]
    if not known or known[0].unsafe or known[-1].unsafe < known[-1].runs:
        return None
    steps = sum(1 - o.unsafe / o.runs for o in known if o.runs) - 0.5
    return grid_rate(min(outcomes)) * math.pow(RATIO, steps)


def best_share(curves: Sequence[Curve]) -> float:
    """Return the share of the edge at which settings gain most, on average of their best gains.

    Near its best the final reward is flat in ln η, so the best rate of a setting is noise; the mean
    over settings of (reward − start)/(best − start), interpolated in ln η, is not. A factor of 8
    below the lowest rate nothing is taken to be learned.

    Args:
        curves: at least one, of settings that gain.
    """

    def gain(share: float) -> float:
        total = 0.0
        for curve in curves:
            rates, rewards = zip(*sorted(curve.rewards.items()), strict=True)
            x = [math.log(rate) for rate in rates]
            at = math.log(share * curve.edge)
            got = float(np.interp(at, [x[0] - math.log(8), *x], [curve.start, *rewards]))
            total += (got - curve.start) / (max(rewards) - curve.start)
        return total

    return max(SHARES, key=gain)


def probit(points: Sequence[tuple[float, bool]]) -> dict[str, float]:
    """Fit P(unsafe) = Φ((ln x − ln value)/log_sd) by maximum likelihood."""
    x = np.log([max(value, 1e-6) for value, _ in points])
    bad = np.array([1.0 if unsafe else -1.0 for _, unsafe in points])

    def loss(free: Any) -> float:
        z = bad * (x - free[0]) / (LEAST_LOG_SD + abs(free[1]))
        return float(-log_ndtr(z).sum())

    best = optimize.minimize(loss, [float(np.median(x)), 0.2], method="Nelder-Mead")
    return {
        "value": rounded(math.exp(best.x[0])),
        "log_sd": rounded(LEAST_LOG_SD + abs(float(best.x[1]))),
    }


def rounded(value: float) -> float:
    """Return a number to three digits, which a run's name and the packaged levels have."""
    return float(f"{value:.3g}")
