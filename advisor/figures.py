"""Every chart as a pure function: numbers in, a Plotly figure as plain data out.

Colors are Okabe–Ito, readable for the color-blind; lines also differ in dash, so color never
speaks alone. A missing value is a gap and a non-finite one a marked line, never a 0.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .glossary import axis_title, label_of
from .regime import Estimate

Figure = dict[str, Any]
Number = float | int | None

BLUE, ORANGE, GREEN, VERMILION = "#0072B2", "#E69F00", "#009E73", "#D55E00"
PURPLE, SKY, YELLOW, GRAY = "#CC79A7", "#56B4E9", "#F0E442", "#8A8F98"
COLORS = (BLUE, ORANGE, GREEN, PURPLE, SKY, VERMILION, YELLOW, GRAY)
DASHES = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")
SYMBOLS = ("circle", "square", "diamond", "triangle-up", "x", "cross")
POINTS = 300
MARKED_STEPS = 20


def thin(
    x: Sequence[Number], y: Sequence[Number], points: int = POINTS
) -> tuple[list[Number], list[Number]]:
    """Reduce a curve to at most about ``points`` points and keep every bucket's extremes and gaps.

    Returns:
        x and y; not measured and non-finite values are None, which is drawn as a gap.
    """
    drawn = [v if v is not None and math.isfinite(v) else None for v in y]
    if len(drawn) <= points:
        return list(x), drawn
    width = math.ceil(len(drawn) / max(1, points // 2))
    kept: set[int] = {0, len(drawn) - 1}
    for start in range(0, len(drawn), width):
        bucket = range(start, min(start + width, len(drawn)))
        known = [i for i in bucket if drawn[i] is not None]
        if not known:
            kept.add(start)
            continue
        kept.add(min(known, key=lambda i: drawn[i] or 0.0))
        kept.add(max(known, key=lambda i: drawn[i] or 0.0))
    order = sorted(kept)
    return [x[i] for i in order], [_round(drawn[i]) for i in order]


def _round(value: Number) -> Number:
    return value if value is None or isinstance(value, int) else float(f"{value:.5g}")


def line(
    x: Sequence[Number], y: Sequence[Number], name: str, index: int = 0, **style: Any
) -> dict[str, Any]:
    """Return one thinned curve; ``index`` chooses its color and dash."""
    thin_x, thin_y = thin(x, y)
    trace: dict[str, Any] = {
        "type": "scatter",
        "mode": "lines",
        "x": thin_x,
        "y": thin_y,
        "name": name,
        "connectgaps": False,
        "line": {
            "color": COLORS[index % len(COLORS)],
            "dash": DASHES[index % len(DASHES)],
            "width": 1.8,
        },
    }
    return trace | style


def figure(
    title: str, data: list[dict[str, Any]], y_title: str, x_title: str = "learner step", **axes: Any
) -> Figure:
    """Return a chart in the common layout; ``axes`` are further layout entries."""
    layout: dict[str, Any] = {
        "title": {"text": title, "x": 0, "xanchor": "left", "font": {"size": 14}},
        "height": 260,
        "margin": {"l": 58, "r": 12, "t": 38, "b": 66},
        "xaxis": {"title": {"text": x_title, "standoff": 6}, "rangemode": "tozero"},
        "yaxis": {"title": {"text": y_title, "standoff": 6}, "exponentformat": "power"},
        "legend": {"orientation": "h", "y": -0.32, "yanchor": "top", "x": 0},
        "showlegend": len(data) > 1,
        "hovermode": "x unified",
        "uirevision": "kept",
    }
    for name, entry in axes.items():
        layout[name] = (
            {**layout[name], **entry} if name in layout and isinstance(entry, dict) else entry
        )
    return {"data": data, "layout": layout}


def mark_non_finite(
    chart: Figure, steps: Sequence[Number], values: Sequence[Sequence[Number]]
) -> Figure:
    """Mark the steps at which a value was computed and came out NaN or infinite."""
    bad = [
        step
        for step, *row in zip(steps, *values, strict=True)
        if any(v is not None and not math.isfinite(v) for v in row)
    ]
    shapes = [
        {
            "type": "line",
            "x0": step,
            "x1": step,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": VERMILION, "width": 1.5, "dash": "dot"},
            "label": {"text": "not finite", "textposition": "end", "font": {"size": 10}},
        }
        for step in bad[:MARKED_STEPS]
    ]
    chart["layout"]["shapes"] = [*chart["layout"].get("shapes", []), *shapes]
    return chart


def metric_figure(
    title: str, series: Mapping[str, Sequence[Number]], names: Sequence[str], **axes: Any
) -> Figure:
    """Draw some metrics of one run over its learner steps."""
    steps = series["step"]
    data = [line(steps, series[n], label_of(n), i) for i, n in enumerate(names)]
    y_title = axis_title(names[0]) if len(names) == 1 else _shared_unit(names)
    return mark_non_finite(figure(title, data, y_title, **axes), steps, [series[n] for n in names])


def _shared_unit(names: Sequence[str]) -> str:
    from .glossary import GLOSSARY

    units = {GLOSSARY[n].unit for n in names if n in GLOSSARY}
    return units.pop() if len(units) == 1 else ""


def reward_figure(
    series: Mapping[str, Sequence[Number]],
    evaluations: Sequence[tuple[int, float]],
    collapse_step: int | None,
) -> Figure:
    """Draw the batch reward by sampling version, and evaluations of the policy itself."""
    versions = [
        v if v is not None else s
        for v, s in zip(series["sampled_at_step"], series["step"], strict=True)
    ]
    data = [
        line(versions, series["reward_mean"], "batch reward", 0, opacity=0.55),
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": [step for step, _ in evaluations],
            "y": [reward if math.isfinite(reward) else None for _, reward in evaluations],
            "name": "current policy, evaluated",
            "line": {"color": ORANGE, "width": 2},
            "marker": {"symbol": "diamond", "size": 7},
        },
    ]
    chart = figure(
        "Reward",
        data,
        "reward",
        "learner step whose weights sampled",
        yaxis={"rangemode": "tozero"},
    )
    if collapse_step is not None:
        chart["layout"]["shapes"] = [
            {
                "type": "line",
                "x0": collapse_step,
                "x1": collapse_step,
                "yref": "paper",
                "y0": 0,
                "y1": 1,
                "line": {"color": VERMILION, "width": 2, "dash": "dash"},
                "label": {"text": "collapse", "textposition": "end"},
            }
        ]
    return mark_non_finite(chart, versions, [series["reward_mean"]])


def run_figures(
    series: Mapping[str, Sequence[Number]],
    evaluations: Sequence[tuple[int, float]],
    collapse_step: int | None,
    *,
    clipping_possible: bool,
) -> dict[str, Figure]:
    """Return the charts of one run by key, in the order in which Watch shows them."""
    share = {"yaxis": {"tickformat": ".1%", "rangemode": "tozero", "exponentformat": "none"}}
    charts = {
        "reward": reward_figure(series, evaluations, collapse_step),
        "drift": metric_figure("Drift of the weights", series, ["cycle_drift", "displacement"]),
    }
    if clipping_possible:
        clip = ["clip_fraction_low", "clip_fraction_high"]
        charts["clipping"] = metric_figure("Active clipping", series, clip, **share)
    ess = ["sequence_ess_fraction", "ess_fraction"]
    charts |= {
        "kl": metric_figure("Drift in function space", series, ["approx_kl", "kl_to_start"]),
        "ess": metric_figure(
            "Effective sample size",
            series,
            ess,
            yaxis={"range": [0, 1.05], "exponentformat": "none"},
        ),
        "entropy": metric_figure("Entropy", series, ["entropy"], yaxis={"rangemode": "tozero"}),
        "gradient": metric_figure("Raw gradient norm", series, ["grad_norm"]),
        "staleness": metric_figure("Realised staleness", series, ["staleness_max"]),
        "learning_rate": metric_figure("Learning rate", series, ["learning_rate"]),
    }
    return charts


def kappa_figure(kappas: Mapping[str, Estimate]) -> Figure:
    """Draw each κ as a range on a logarithmic axis against its limit 1; unknown ends run out."""
    data: list[dict[str, Any]] = []
    low_edge, high_edge = 1e-3, 1e2
    for i, (name, kappa) in enumerate(kappas.items()):
        if kappa.low is None and kappa.high is None:
            data.append(_unknown_bar(name))
            continue
        low = min(max(kappa.low or low_edge, low_edge), high_edge)
        high = max(min(high_edge if kappa.high is None else kappa.high, high_edge), low * 1.05)
        data.append(
            {
                "type": "bar",
                "orientation": "h",
                "y": [name],
                "x": [math.log10(high) - math.log10(low)],
                "base": [math.log10(low)],
                "marker": {
                    "color": COLORS[i],
                    "opacity": 0.8,
                    "pattern": {"shape": "/" if None in (kappa.low, kappa.high) else ""},
                },
                "width": 0.5,
                "text": [_range_text(kappa)],
                "textposition": "inside",
                "hovertext": [f"{name}: {_range_text(kappa)}"],
                "hoverinfo": "text",
            }
        )
    chart = figure(
        "How much of each limit is used (κ)", data, "", "κ: below 1 is safe, above 1 is not"
    )
    chart["layout"] |= {
        "showlegend": False,
        "height": 210,
        "hovermode": "closest",
        "margin": {"l": 92, "r": 12, "t": 38, "b": 48},
    }
    chart["layout"]["xaxis"] |= {
        "range": [-3, 2],
        "tickvals": [-3, -2, -1, 0, 1, 2],
        "ticktext": ["0.001", "0.01", "0.1", "1", "10", "100"],
    }
    chart["layout"]["yaxis"] = {"autorange": "reversed", "type": "category"}
    chart["layout"]["shapes"] = [
        {
            "type": "line",
            "x0": 0,
            "x1": 0,
            "yref": "paper",
            "y0": 0,
            "y1": 1,
            "line": {"color": VERMILION, "width": 2},
        }
    ]
    return chart


def _unknown_bar(name: str) -> dict[str, Any]:
    return {
        "type": "scatter",
        "mode": "text",
        "x": [-0.6],
        "y": [name],
        "text": ["unknown"],
        "hoverinfo": "skip",
    }


def _range_text(kappa: Estimate) -> str:
    low = "?" if kappa.low is None else f"{kappa.low:.2g}"
    high = "?" if kappa.high is None else f"{kappa.high:.2g}"
    return low if low == high else f"{low} … {high}"


def compare_figure(
    name: str, curves: Sequence[tuple[str, Sequence[Number], Sequence[Number]]], x_title: str
) -> Figure:
    """Overlay one metric of several runs: (label, x, y) each."""
    data = [line(x, y, label, i) for i, (label, x, y) in enumerate(curves)]
    chart = figure(label_of(name).capitalize(), data, axis_title(name), x_title)
    chart["layout"] |= {"height": 380, "showlegend": True}
    return chart


def probability_figure(
    rates: Sequence[float],
    probabilities: Sequence[float],
    marks: Mapping[str, float | None],
    risk: float,
) -> Figure:
    """Draw P(unsafe) against the learning rate, the accepted risk, and the advised rates."""
    data = [line(rates, probabilities, "P(unsafe within T)", 0)]
    for i, (label, rate) in enumerate(marks.items()):
        if rate is None:
            continue
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [rate, rate],
                "y": [0, 1],
                "name": label,
                "line": {"color": COLORS[i + 1], "dash": DASHES[i + 1], "width": 2},
            }
        )
    data.append(
        {
            "type": "scatter",
            "mode": "lines",
            "x": [rates[0], rates[-1]],
            "y": [risk, risk],
            "name": f"accepted risk {risk:.0%}",
            "line": {"color": GRAY, "dash": "dot", "width": 1.5},
        }
    )
    chart = figure(
        "Probability of an unsafe run",
        data,
        "P(unsafe within T)",
        "learning rate η",
        xaxis={"type": "log", "dtick": 1, "exponentformat": "power"},
        yaxis={"tickformat": ".0%", "range": [0, 1.02], "exponentformat": "none"},
    )
    chart["layout"] |= {"height": 380, "showlegend": True}
    chart["layout"]["xaxis"].pop("rangemode")
    return chart


def map_figure(
    staleness: Sequence[int],
    boundaries: Mapping[str, Sequence[float | None]],
    trials: Sequence[tuple[int, float, bool, str]],
    asked: tuple[int, float | None],
) -> Figure:
    """Draw the (S, η) map: boundaries, past runs by outcome, and the asked setting as a cross.

    ``trials`` are (S, η, unsafe, label); S + 1 is drawn, since log 0 does not exist.
    """
    x = [s + 1 for s in staleness]
    data = [line(x, y, label, i) for i, (label, y) in enumerate(boundaries.items())]
    for unsafe, label, symbol, color in (
        (False, "survived", "circle", GREEN),
        (True, "unsafe", "x", VERMILION),
    ):
        chosen = [t for t in trials if t[2] is unsafe]
        if chosen:
            data.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "x": [s + 1 for s, *_ in chosen],
                    "y": [rate for _, rate, *_ in chosen],
                    "text": [text for *_, text in chosen],
                    "name": label,
                    "marker": {"symbol": symbol, "size": 10, "color": color, "line": {"width": 1}},
                    "hoverinfo": "text",
                }
            )
    if asked[1] is not None:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [asked[0] + 1],
                "y": [asked[1]],
                "name": "your setting",
                "marker": {"symbol": "cross-thin", "size": 18, "line": {"width": 3, "color": BLUE}},
            }
        )
    chart = figure(
        "Where runs fail",
        data,
        "learning rate η",
        "staleness, S + 1",
        xaxis={"type": "log", "tickvals": [1, 2, 4, 8, 16, 32, 64, 128, 256]},
        yaxis={"type": "log", "dtick": 1},
    )
    chart["layout"] |= {"height": 380, "showlegend": True, "hovermode": "closest"}
    chart["layout"]["xaxis"].pop("rangemode")
    return chart
