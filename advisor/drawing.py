"""What every chart is made of: thinned lines, the common layout, marks. Plotly as plain data.

Colors are Okabe–Ito, readable for the color-blind; lines also differ in dash, so color never
speaks alone. A missing value is a gap and a non-finite one a marked line, never a 0.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from textwrap import wrap
from typing import Any

import numpy as np

from .wording import in_chart

Figure = dict[str, Any]
Number = float | int | None

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, GRAY = "#CC79A7", "#56B4E9", "#8A8F98"
TINT = "rgba(213, 94, 0, 0.12)"
PALE = "#D9E2EC"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, GRAY)
ON_DARK = {BLUE: SKY, SKY: PALE}
"""What stands for the colors that are hard to see on a dark page."""
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
POINTS = 280
"""Up to so many values a curve is drawn as it is."""
EXTREMES, MEANS = 220, 110
"""Points of a longer one, at most: of its faint extremes, and of the mean over them."""
FEWEST_MEANS = 10
MARKED_STRETCHES = 20
LETTERS_PER_LINE = 44
TITLE_LETTER = 6.5
"""Width of a letter of a title, in pixels, about."""


def thin(
    x: Sequence[Number], y: Sequence[Number], points: int = POINTS
) -> tuple[list[Number], list[Number]]:
    """Reduce a curve to at most about ``points`` points and keep every bucket's extremes and gaps.

    Returns:
        x and y; not measured and non-finite values are None, which is drawn as a gap.
    """
    if len(y) <= points:
        return list(x), [_round(_drawn(value)) for value in y]
    values = _bucketed(y, _width(len(y), points // 2))
    starts = np.arange(len(values)) * values.shape[1]
    lowest = starts + np.where(np.isnan(values), np.inf, values).argmin(axis=1)
    highest = starts + np.where(np.isnan(values), -np.inf, values).argmax(axis=1)
    order = np.unique(np.concatenate([[0, len(y) - 1], lowest, highest])).tolist()
    return [x[i] for i in order], [_round(_drawn(y[i])) for i in order]


def means(
    x: Sequence[Number], y: Sequence[Number], points: int = MEANS, cycle: int = 1
) -> tuple[list[Number], list[Number]]:
    """Return the mean of every bucket at its middle; a bucket of which nothing is known is None.

    A bucket is ``cycle`` · 2ⁿ values wide, unless that left hardly any buckets; a cycle that has
    only begun is left out.
    """
    cycle = cycle if cycle * FEWEST_MEANS <= len(y) else 1
    length = len(y) - len(y) % cycle
    if length == 0:
        return [], []
    values = _bucketed(y[:length], _width(length, points, cycle))
    width = values.shape[1]
    known = ~np.isnan(values)
    counts = known.sum(axis=1)
    sums = np.where(known, values, 0.0).sum(axis=1)
    starts = range(0, length, width)
    middles = [x[start + (min(start + width, length) - start) // 2] for start in starts]
    averages = [
        _round(float(total) / count) if count else None
        for total, count in zip(sums, counts.tolist(), strict=True)
    ]
    return middles, averages


def _width(length: int, count: int, cycle: int = 1) -> int:
    """Return the width, cycle · 2ⁿ, of at most ``count`` buckets.

    So while a curve grows its buckets stay where they are, until every two become one.
    """
    width = cycle
    while width * count < length:
        width *= 2
    return width


def _bucketed(y: Sequence[Number], width: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    """Return values as [buckets, width]; NaN stands for what is not drawn and fills the last."""
    values = np.full(-(-len(y) // width) * width, np.nan)
    values[: len(y)] = np.array(y, dtype=np.float64)  # None becomes NaN
    values[np.isinf(values)] = np.nan
    return values.reshape(-1, width)


def _drawn(value: Number) -> Number:
    return value if value is not None and math.isfinite(value) else None


def _round(value: Number) -> Number:
    return value if value is None or isinstance(value, int) else float(f"{value:.4g}")


def traces(
    x: Sequence[Number],
    y: Sequence[Number],
    name: str,
    index: int = 0,
    *,
    cycle: int = 1,
    points: int = POINTS,
) -> list[dict[str, Any]]:
    """Return the traces of one curve; ``index`` chooses its color and dash.

    A short curve is drawn as it is. Of a long one the extremes are drawn faintly, so that no spike
    is lost, and the mean over them. What was measured only every few steps is drawn as joined
    points, since between lone points a line would show nothing at all.
    """
    pen = {"color": COLORS[index % len(COLORS)], "dash": DASHES[index % len(DASHES)], "width": 1.8}
    common = {
        "type": "scatter",
        "name": name,
        "connectgaps": False,
        "legendgroup": name,
    }
    if _is_sparse(y):
        measured = [i for i, value in enumerate(y) if value is not None]
        x, y = [x[i] for i in measured], [y[i] for i in measured]
        common["marker"] = {"size": 4, "color": pen["color"]}
    is_short = len(y) <= points
    thin_x, thin_y = thin(x, y, points if is_short else EXTREMES)
    line = {**common, "mode": "lines", "x": thin_x, "y": thin_y, "line": pen}
    if "marker" in common:
        return [line | {"mode": "lines+markers"}]
    if is_short:
        return [line]
    faint = {"opacity": 0.3, "showlegend": False, "hoverinfo": "skip"}
    mean_x, mean_y = means(x, y, MEANS, cycle)
    return [
        line | {"line": {**pen, "dash": "solid", "width": 1}} | faint,
        line | {"x": mean_x, "y": mean_y},
    ]


@dataclass(frozen=True, slots=True, kw_only=True)
class Outline:
    """A curve too long to be read whole: its extremes, and means between them; x ascending."""

    x: Sequence[Number]
    y: Sequence[Number]
    mean_x: Sequence[Number]
    mean_y: Sequence[Number]


def outline_traces(outline: Outline, name: str, index: int = 0) -> list[dict[str, Any]]:
    """Return the traces of a curve of which only the outline is known; see ``traces``."""
    color = COLORS[index % len(COLORS)]
    common = {
        "type": "scatter",
        "name": name,
        "mode": "lines",
        "connectgaps": False,
        "legendgroup": name,
    }
    x, y = thin(outline.x, outline.y, EXTREMES)
    mean_x, mean_y = means(outline.mean_x, outline.mean_y, MEANS)
    return [
        {
            **common,
            "x": x,
            "y": y,
            "line": {"color": color, "dash": "solid", "width": 1},
            "opacity": 0.3,
            "showlegend": False,
            "hoverinfo": "skip",
        },
        {
            **common,
            "x": mean_x,
            "y": mean_y,
            "line": {"color": color, "dash": DASHES[index % len(DASHES)], "width": 1.8},
        },
    ]


def _is_sparse(y: Sequence[Number]) -> bool:
    """Whether there are measured values, but never two in neighboring places."""
    known = np.flatnonzero([value is not None for value in y])
    return len(known) > 1 and bool((np.diff(known) > 1).all())


def figure(
    title: str, data: list[dict[str, Any]], y_title: str, x_title: str = "learner step", **axes: Any
) -> Figure:
    """Return a chart in the common layout; ``axes`` are further layout entries."""
    with_legend = sum(trace.get("showlegend", True) for trace in data) > 1
    layout: dict[str, Any] = {
        "title": {"text": title, "x": 0, "xanchor": "left", "font": {"size": 14}},
        "height": 260,
        "margin": {"l": 58, "r": 12, "t": 38, "b": 72 if with_legend else 46},
        "xaxis": {"title": {"text": x_title, "standoff": 6}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": y_title, "standoff": 6}, "exponentformat": "e"},
        "legend": {
            "orientation": "h",
            "yref": "container",
            "y": 0,
            "yanchor": "bottom",
            "x": 0,
        },
        "showlegend": with_legend,
        "hovermode": "x unified",
        "uirevision": "kept",
        "shapes": [],
    }
    for name, entry in axes.items():
        layout[name] = (
            {**layout[name], **entry} if name in layout and isinstance(entry, dict) else entry
        )
    return {"data": data, "layout": layout}


def delta(old: Figure, new: Figure) -> Figure:
    """Return what turns one state of a growing chart into the next: tails of traces, and layout.

    Each trace is ``{"keep": n, "x": […], "y": […]}``: keep n points, then append these. Where the
    traces are other ones, ``{"figure": new}``. ``live_plot.js`` applies it.
    """
    if [_pen(trace) for trace in old["data"]] != [_pen(trace) for trace in new["data"]]:
        return {"figure": new}
    tails = []
    for before, after in zip(old["data"], new["data"], strict=True):
        pairs = zip(before["x"], after["x"], before["y"], after["y"], strict=False)
        keep = next((i for i, (a, b, c, d) in enumerate(pairs) if a != b or c != d), None)
        keep = min(len(before["x"]), len(after["x"])) if keep is None else keep
        tails.append({"keep": keep, "x": after["x"][keep:], "y": after["y"][keep:]})
    changed: Figure = {"tails": tails}
    if old["layout"] != new["layout"]:
        changed["layout"] = new["layout"]
    return changed


def _pen(trace: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in trace.items() if key not in ("x", "y")}


def mark(
    chart: Figure, start: float, end: float, words: str, *, before: bool = False, **pen: Any
) -> None:
    """Mark a place, or a stretch, over the whole height of a chart; words stand at its top.

    They stand to its right, or with ``before`` to its left, where the chart has no room.
    """
    position = "top right" if before else "top left"
    label = {"text": words, "textposition": position, "font": {"size": 11}}
    chart["layout"]["shapes"].append(
        {
            "type": "rect",
            "x0": start,
            "x1": end,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": VERMILION, "width": 2, **pen},
            "fillcolor": TINT,
            "label": label if words else {},
        }
    )


def mark_non_finite(
    chart: Figure, x: Sequence[Number], values: Sequence[Sequence[Number]]
) -> Figure:
    """Mark every stretch where a value was computed and came out NaN or infinite."""
    bad = [False] * len(x)
    for row in values:
        for i in np.flatnonzero(~np.isfinite(np.array(row, dtype=np.float64))).tolist():
            bad[i] = bad[i] or (row[i] is not None and x[i] is not None)
    if not any(bad):
        return chart
    starts = [i for i, is_bad in enumerate(bad) if is_bad and not (i and bad[i - 1])]
    middle = max((place for place in x if place is not None), default=0) / 2
    for i in starts[:MARKED_STRETCHES]:
        end = next((j for j in range(i, len(bad)) if not bad[j]), len(bad)) - 1
        words = "not finite" if i == starts[0] else ""
        place = float(x[i] or 0)
        mark(chart, place, float(x[end] or 0), words, before=place > middle, width=1.5, dash="dot")
    return chart


def explain(chart: Figure, words: str) -> Figure:
    """Put a sign behind a chart's title that shows on hovering how to read it."""
    text = "<br>".join(wrap(in_chart(words), LETTERS_PER_LINE))
    title, margin = chart["layout"]["title"]["text"], chart["layout"]["margin"]
    chart["layout"].setdefault("annotations", []).append(
        {
            "text": "(?)",
            "hovertext": text,
            "xref": "paper",
            "yref": "paper",
            "x": 0,
            "y": 1,
            "xshift": TITLE_LETTER * len(title) + 8 - margin["l"],
            "yshift": margin["t"] / 2,
            "yanchor": "middle",
            "showarrow": False,
            "font": {"size": 12, "color": GRAY},
            "captureevents": True,
        }
    )
    return chart


def reading_of(chart: Figure) -> str:
    """Return how to read a chart, as it was explained; empty if it was not."""
    signs = [each for each in chart["layout"].get("annotations", ()) if "hovertext" in each]
    return str(signs[0]["hovertext"]).replace("<br>", " ") if signs else ""


def say(chart: Figure, words: str) -> Figure:
    """Write in the middle of an empty chart why it is empty, and take away its scale."""
    text = "<br>".join(wrap(in_chart(words), LETTERS_PER_LINE))
    chart["layout"].setdefault("annotations", []).append(
        {"text": text, "xref": "paper", "yref": "paper", "x": 0.5, "y": 0.5, "showarrow": False}
    )
    for axis in ("xaxis", "yaxis"):
        chart["layout"][axis] |= {"showticklabels": False}
    return chart
