"""What the streamed clip bias of a run says, and when it says nothing yet. Pure."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from scipy.special import stdtrit

from storage.records import BiasProbe

from .drawing import COLORS, DASHES, Figure, explain, figure, say

LARGEST_HALF_WIDTH = 0.3
"""An estimate is shown while half of its interval is below this share of ‖H‖ (theory.md §4)."""
INTERVAL = 0.95
READING = (
    "What the clip adds to the surrogate gradient, as a share of the fresh gradient H, with its "
    "95 % interval. Higher is worse; shown once the interval is below ±30 %."
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ShownBias:
    """‖c‖/‖H‖ of the clip bias c at one step and age, with its 95 % interval, all at least 0."""

    step: int
    staleness: int
    value: float
    low: float
    high: float


def shown(probe: BiasProbe) -> ShownBias | None:
    """Return a probe as a share of ‖H‖; None while its interval is too wide to mean something."""
    squared, error, norm = probe.bias_squared, probe.bias_squared_stderr, probe.norm_squared
    if squared is None or error is None or norm is None or not norm > 0:
        return None
    half = float(stdtrit(probe.shards - 1, (1 + INTERVAL) / 2)) * error
    low, value, high = (
        math.sqrt(max(0.0, (squared + k * half) / norm))
        if math.isfinite(squared + half)
        else math.nan
        for k in (-1, 0, 1)
    )
    if not (high - low) / 2 < LARGEST_HALF_WIDTH:
        return None
    return ShownBias(step=probe.step, staleness=probe.staleness, value=value, low=low, high=high)


def clip_bias_figure(probes: Sequence[BiasProbe]) -> Figure:
    """Draw the clip bias that means something, by age; while there is none the chart says so."""
    found = [bias for probe in probes if (bias := shown(probe)) is not None]
    data = []
    for i, age in enumerate(sorted({bias.staleness for bias in found})):
        rows = [bias for bias in found if bias.staleness == age]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": "age 1" if age == 1 else f"ages {age}–{2 * age - 1}",
                "x": [bias.step for bias in rows],
                "y": [bias.value for bias in rows],
                "error_y": {
                    "type": "data",
                    "symmetric": False,
                    "array": [bias.high - bias.value for bias in rows],
                    "arrayminus": [bias.value - bias.low for bias in rows],
                    "thickness": 1,
                    "width": 2,
                },
                "line": {"color": COLORS[i % len(COLORS)], "dash": DASHES[i % len(DASHES)]},
                "marker": {"size": 5},
            }
        )
    chart = figure(
        "Bias that the clip adds", data, "‖clip bias‖ / ‖H‖", yaxis={"rangemode": "tozero"}
    )
    if not found:
        say(chart, "no estimate yet with an interval below ±30 % of ‖H‖")
    return explain(chart, READING)


def clip_bias_words(probes: Sequence[BiasProbe], measured_seconds: float | None) -> str:
    """Say how much is known and what a sample costs; ``measured_seconds`` is a whole step's."""
    if not probes:
        return "Clip bias: no window of 16 batches of like age is full yet."
    usable = sum(shown(probe) is not None for probe in probes)
    words = f"Clip bias: {usable} of {len(probes)} estimates have an interval below ±30 % of ‖H‖"
    seconds = sorted(probe.seconds for probe in probes if probe.seconds is not None)
    if seconds and measured_seconds:
        cost = seconds[len(seconds) // 2]
        words += f"; a sample takes {1000 * cost:.0f} ms, {cost / measured_seconds:.0%} of a step"
    return words + "."
