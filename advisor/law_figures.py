"""The charts of the three laws. Pure: what the laws say in, Plotly figures as plain data out."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .bias_laws import BiasCurve
from .collapse_laws import ClockFit, Lifetime
from .drawing import COLORS, DASHES, Figure, figure

SYMBOLS = ("circle", "square", "diamond", "triangle-up", "cross", "x")
WIDE = {"height": 380, "showlegend": True, "hovermode": "closest"}
CORRECTION_WORDS = {
    "clipped": "with the clip, as trained",
    "unclipped": "without the clip (ε = ∞)",
    "uncorrected": "no correction (r ≡ 1)",
}


def bias_figure(curves: Sequence[BiasCurve]) -> Figure:
    """Draw relative bias against drift, a color per correction and a symbol per learning rate."""
    rates = sorted({row[0] for curve in curves for row in curve.rows})
    data: list[dict[str, Any]] = []
    for i, curve in enumerate(curves):
        for j, rate in enumerate(rates):
            rows = [row for row in curve.rows if row[0] == rate and row[1] > 0]
            words = CORRECTION_WORDS.get(curve.correction, curve.correction)
            data.append(
                {
                    "type": "scatter",
                    "mode": "lines+markers",
                    "name": f"{words}, η = {rate:g}",
                    "x": [row[2] for row in rows],
                    "y": [row[3] for row in rows],
                    "error_y": {
                        "type": "data",
                        "symmetric": False,
                        "array": [row[5] - row[3] for row in rows],
                        "arrayminus": [row[3] - row[4] for row in rows],
                        "thickness": 1,
                    },
                    "line": {"color": COLORS[i], "dash": DASHES[j % len(DASHES)], "width": 1.5},
                    "marker": {"symbol": SYMBOLS[j % len(SYMBOLS)], "size": 7, "color": COLORS[i]},
                }
            )
    chart = figure(
        "Bias of the surrogate gradient",
        data,
        "‖bias‖ / ‖H‖",
        "drift ‖θ − φ‖ (parameter units)",
        xaxis={"type": "log", "dtick": "D2", "exponentformat": "e"},
        yaxis={"rangemode": "tozero"},
    )
    chart["layout"] |= WIDE | {"height": 520}
    chart["layout"]["xaxis"].pop("rangemode", None)
    return chart


def collapse_figure(lifetimes: Sequence[Lifetime]) -> Figure:
    """Draw the collapse step against the learning rate; runs that did not collapse are hollow."""
    data: list[dict[str, Any]] = []
    for i, staleness in enumerate(sorted({run.max_staleness for run in lifetimes})):
        for collapsed in (True, False):
            chosen = [
                run
                for run in lifetimes
                if run.max_staleness == staleness and run.collapsed is collapsed
            ]
            if not chosen:
                continue
            symbol = SYMBOLS[i % len(SYMBOLS)]
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": f"S = {staleness}, {'collapsed' if collapsed else 'still alive'}",
                    "x": [run.learning_rate for run in chosen],
                    "y": [run.step for run in chosen],
                    "marker": {
                        "symbol": symbol if collapsed else f"{symbol}-open",
                        "size": 10,
                        "color": COLORS[i],
                    },
                }
            )
    chart = figure(
        "When runs collapse",
        data,
        "learner step of onset",
        "learning rate η",
        xaxis={"type": "log", "dtick": "D2", "exponentformat": "e"},
        yaxis={"type": "log", "dtick": "D2"},
    )
    chart["layout"] |= WIDE
    for axis in ("xaxis", "yaxis"):
        chart["layout"][axis].pop("rangemode", None)
    return chart


def clock_figure(lifetimes: Sequence[Lifetime], fits: Sequence[ClockFit]) -> Figure:
    """Draw every collapse on every clock, relative to that clock's median: narrower is better."""
    data = []
    for i, fit in enumerate(fits):
        if fit.median is None:
            continue
        values = [
            (run, value)
            for run in lifetimes
            if run.collapsed and (value := run.clocks.get(fit.clock)) is not None and value > 0
        ]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": fit.clock,
                "x": [value / fit.median for _, value in values],
                "y": [f"{fit.clock} (log-sd {fit.log_sd.value:.2f})" for _ in values],
                "text": [
                    f"η = {run.learning_rate:g}, S = {run.max_staleness}" for run, _ in values
                ],
                "marker": {"symbol": SYMBOLS[i % len(SYMBOLS)], "size": 9, "color": COLORS[i]},
            }
        )
    chart = figure(
        "On which clock collapses agree",
        data,
        "",
        "clock at onset, relative to its median",
        xaxis={"type": "log", "dtick": "D2", "exponentformat": "e"},
        yaxis={"type": "category"},
    )
    chart["layout"] |= WIDE | {"showlegend": False}
    chart["layout"]["margin"] = {**chart["layout"]["margin"], "l": 190}
    chart["layout"]["xaxis"].pop("rangemode", None)
    return chart


def boundary_figure(
    largest_safe: Mapping[str, Mapping[int, float | None]],
    edges: Mapping[str, Sequence[tuple[int, int, float, float]]],
) -> Figure:
    """Draw the largest safe rate against S+1, and each seed's bracket of the edge, by criterion."""
    data: list[dict[str, Any]] = []
    for i, (name, found) in enumerate(largest_safe.items()):
        known = [(s + 1, rate) for s, rate in found.items() if rate is not None]
        data.append(
            {
                "type": "scatter",
                "mode": "lines+markers",
                "name": f"largest rate at which no seed is {name}",
                "x": [x for x, _ in known],
                "y": [rate for _, rate in known],
                "line": {"color": COLORS[i], "dash": DASHES[i], "width": 2},
                "marker": {"symbol": SYMBOLS[i], "size": 9, "color": COLORS[i]},
            }
        )
        bracketed = [e for e in edges[name] if e[2] > 0 and math.isfinite(e[3])]
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "name": f"edge of one seed, {name}",
                "x": [(s + 1) * 1.05 ** (seed - 1) for s, seed, _, _ in bracketed],
                "y": [math.sqrt(low * high) for _, _, low, high in bracketed],
                "marker": {"symbol": f"{SYMBOLS[i]}-open", "size": 7, "color": COLORS[i]},
            }
        )
    chart = figure(
        "The boundary",
        data,
        "learning rate η",
        "staleness, S + 1",
        xaxis={"type": "log", "tickvals": [1, 2, 4, 8, 16, 32, 64]},
        yaxis={"type": "log"},
    )
    chart["layout"] |= WIDE
    for axis in ("xaxis", "yaxis"):
        chart["layout"][axis].pop("rangemode", None)
    return chart
