"""How the active-clip fraction grows with drift, and at which drift it reaches a criterion.

Pure. The one curve that every log with a clip fraction holds: batches of one run, and runs of one
setting at other rates and S, differ in drift, and with the drift the clip fraction rises. The drift
at which it reaches p* is R_batch in the unit of that drift, be it an rms log-ratio or η·age^α
(theory.md §4, "R_batch"; here measured batch by batch where the trainer scales log-ratios).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

LEAST_ROWS = 10
ROWS_PER_GROUP, MOST_GROUPS = 6, 12
USUAL_POWER, LEAST_POWER, MOST_POWER = 2.0, 0.7, 4.0
"""ln clip fraction grows by this much per unit of ln drift where the curve itself cannot say. On
the small model it falls from 3 at a tenth of a percent to 0.8 at ten percent."""
POWER_DOUBT = 1.5
"""Beyond what was measured the curve is continued by a slope that is right within this factor."""
MOST_BEYOND = math.log(4.0)
"""It is continued by at most this factor in drift, up or down (theory.md §3: then refuse)."""
NINETY = 1.645


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """The drift at which a criterion is reached; what is None lies too far beyond what was seen."""

    low: float | None
    middle: float | None
    high: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipCurve:
    """ln clip fraction against ln drift at group means, both ascending, with its standard errors.

    ``reached`` is the largest drift of a group, clipped or not.
    """

    log_drift: tuple[float, ...]
    log_clip: tuple[float, ...]
    stderr: tuple[float, ...]
    reached: float

    def crossing(self, p: float) -> Crossing:
        """Return the drift at which the clip fraction reaches p, 0 < p < 1."""
        x, y, target = np.array(self.log_drift), np.array(self.log_clip), math.log(p)
        if target <= y[0]:
            return self._below(target)
        if target >= y[-1]:
            return self._above(target)
        at = float(np.interp(target, y, x))
        near = int(np.argmin(abs(y - target)))
        half = NINETY * self.stderr[near] / self._power(slice(max(0, near - 1), near + 2))
        return Crossing(low=math.exp(at - half), middle=math.exp(at), high=math.exp(at + half))

    def _power(self, part: slice) -> float:
        """Return d ln clip / d ln drift over some groups, held to 0.7 … 4."""
        x, y = self.log_drift[part], self.log_clip[part]
        if len(x) < 2 or x[-1] - x[0] < 0.1:
            return USUAL_POWER
        slope = float(np.polyfit(x, y, 1)[0])
        return min(MOST_POWER, max(LEAST_POWER, slope))

    def _below(self, target: float) -> Crossing:
        """Continue the curve down to a target, in logarithms, as far as the doubt about it allows.

        It is concave: below what was seen, where it saturates, it is as steep as usual or steeper.
        """
        power = max(USUAL_POWER, self._power(slice(0, 3)))
        ends = self._reach(0, target, (power / POWER_DOUBT, MOST_POWER))
        x, middle = self.log_drift[0], (target - self.log_clip[0]) / power
        if middle < -MOST_BEYOND:  # only that it is far below what was seen is known
            return Crossing(low=None, middle=None, high=math.exp(x + max(*ends, -MOST_BEYOND)))
        return _crossing(x, min(ends), middle, max(ends))

    def _above(self, target: float) -> Crossing:
        """Continue the curve up to a target: concave, it may be as flat as any there."""
        power = self._power(slice(-3, None))
        ends = self._reach(-1, target, (LEAST_POWER, power, min(MOST_POWER, power * POWER_DOUBT)))
        x, middle = self.log_drift[-1], (target - self.log_clip[-1]) / power
        if middle > MOST_BEYOND:  # only that it is far above what was seen is known
            return Crossing(low=math.exp(x + min(*ends, MOST_BEYOND)), middle=None, high=None)
        return _crossing(x, min(ends), middle, max(ends))

    def _reach(self, end: int, target: float, powers: Sequence[float]) -> list[float]:
        """Return how far beyond an end, in ln drift, the target lies by each slope and error."""
        rise, error = target - self.log_clip[end], NINETY * self.stderr[end]
        return [(rise + e) / power for power in powers for e in (-error, error)]


def _crossing(x: float, low: float, middle: float, high: float) -> Crossing:
    return Crossing(low=math.exp(x + low), middle=math.exp(x + middle), high=math.exp(x + high))


def clip_curve(drift_S: NDArray[np.float64], clip_S: NDArray[np.float64]) -> ClipCurve | None:
    """Learn the curve from the batches of a setting.

    Batches are sorted by drift and averaged in groups, for one small batch holds no clipped token
    where a hundred hold some; a mean that falls with drift is pooled with its neighbor (isotonic
    regression). A group without a clipped token says nothing about the logarithm and is left out.

    Args:
        drift_S: drift of each batch, ≥ 0, in any unit that is the same for all.
        clip_S: active-clip fraction of each batch, 0 … 1.

    Returns:
        None with fewer than ten batches at a drift above 0, or when none of them clipped a token.
    """
    use = np.isfinite(drift_S) & np.isfinite(clip_S) & (drift_S > 0)
    if use.sum() < LEAST_ROWS:
        return None
    order = np.argsort(drift_S[use], kind="stable")
    drift, clip = drift_S[use][order], clip_S[use][order]
    groups = min(MOST_GROUPS, max(1, len(drift) // ROWS_PER_GROUP))
    parts = list(zip(np.array_split(drift, groups), np.array_split(clip, groups), strict=True))
    pooled = _isotonic(parts)
    reached = float(parts[-1][0].mean())
    points = [
        (math.log(d.mean()), math.log(c.mean()), float(c.std() / math.sqrt(len(c)) / c.mean()))
        for d, c in pooled
        if c.mean() > 0
    ]
    if not points:
        return None
    x, y, error = zip(*points, strict=True)
    return ClipCurve(log_drift=x, log_clip=y, stderr=error, reached=reached)


Group = tuple[NDArray[np.float64], NDArray[np.float64]]


def _isotonic(groups: list[Group]) -> list[Group]:
    """Pool adjacent groups until the mean clip fraction never falls."""
    kept: list[Group] = []
    for drift, clip in groups:
        kept.append((drift, clip))
        while len(kept) > 1 and kept[-1][1].mean() <= kept[-2][1].mean():
            (d1, c1), (d2, c2) = kept[-2:]
            kept[-2:] = [(np.concatenate([d1, d2]), np.concatenate([c1, c2]))]
    return kept
