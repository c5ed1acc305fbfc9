"""The charts of runs: one run over its steps, its limits, several runs overlaid. Pure."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from .drawing import (
    COLORS,
    ORANGE,
    Figure,
    Number,
    Outline,
    explain,
    figure,
    mark,
    mark_non_finite,
    outline_traces,
    say,
    thin,
    traces,
)
from .glossary import GLOSSARY, axis_title, label_of
from .regime import Estimate
from .wording import in_chart, span

LEAST_SHOWN, MOST_SHOWN = 1e-3, 1e2
"""Ends of the κ axis; what lies beyond is drawn as a sliver at the end, and written in full."""
SLIVER = 1.15
EVALUATIONS, POINTS_COMPARED = 80, 600
LEGEND_ENTRIES_PER_ROW, LEGEND_ROW = 2, 19
"""Of a chart half as wide as the page; a row in pixels."""
SHARE = {"tickformat": ".1%", "rangemode": "tozero", "exponentformat": "none"}
FROM_ZERO = {"rangemode": "tozero"}


def metric_figure(
    title: str,
    series: Mapping[str, Sequence[Number]],
    names: Sequence[str],
    *,
    cycle: int = 1,
    unmeasured: Mapping[str, str] | None = None,
    outlines: Mapping[str, Outline] | None = None,
    **axes: Any,
) -> Figure:
    """Draw some metrics of one run, of like units, over its learner steps.

    ``cycle`` is S + 1; ``unmeasured`` gives the reasons of metrics that this run never has;
    ``outlines`` stand in for the series of a run that is too long to be read whole.
    """
    if outlines:
        return _outlined(title, outlines, names, unmeasured or {}, axes)
    steps = series["step"]
    data = [
        trace
        for i, name in enumerate(names)
        for trace in traces(steps, series[name], label_of(name), i, cycle=cycle)
    ]
    chart = figure(title, data, axis_title(names[0]), **axes)
    if all(value is None for name in names for value in series[name]):
        return say(chart, (unmeasured or {}).get(names[0], "not measured"))
    return mark_non_finite(chart, steps, [series[n] for n in names])


def _outlined(
    title: str,
    outlines: Mapping[str, Outline],
    names: Sequence[str],
    unmeasured: Mapping[str, str],
    axes: Mapping[str, Any],
) -> Figure:
    data = [
        trace
        for i, name in enumerate(names)
        for trace in outline_traces(outlines[name], label_of(name), i)
    ]
    chart = figure(title, data, axis_title(names[0]), **axes)
    if not any(outlines[name].x for name in names):
        return say(chart, unmeasured.get(names[0], "not measured"))
    for name in names:
        mark_non_finite(chart, outlines[name].x, [outlines[name].y])
    return chart


def reward_figure(
    series: Mapping[str, Sequence[Number]],
    evaluations: Sequence[tuple[int, float]],
    collapse_step: int | None,
    outlines: Mapping[str, Outline] | None = None,
) -> Figure:
    """Draw the batch reward by sampling version, and evaluations of the policy itself.

    Where there is a gold reward it is drawn too, and ``evaluations`` are of it.
    """
    versions = [
        v if v is not None else s
        for v, s in zip(series["sampled_at_step"], series["step"], strict=True)
    ]
    if outlines:
        versions = list(outlines["reward_mean"].x)
    steps, rewards = [s for s, _ in evaluations], [reward for _, reward in evaluations]
    evaluated_x, evaluated_y = thin(steps, rewards, EVALUATIONS)
    batch, has_gold = _batch_rewards(series, versions, outlines)
    data = [
        *batch,
        {
            "type": "scatter",
            "mode": "lines+markers",
            "x": evaluated_x,
            "y": evaluated_y,
            "name": f"current policy, {'gold ' if has_gold else ''}evaluated",
            "line": {"color": ORANGE, "width": 2},
            "marker": {"symbol": "diamond", "size": 6},
        },
    ]
    chart = figure("Reward", data, "reward", "learner step whose weights sampled", yaxis=FROM_ZERO)
    if collapse_step is not None:
        last = max((version for version in versions if version is not None), default=0)
        before = collapse_step > last / 2
        mark(chart, collapse_step, collapse_step, "collapse", before=before, dash="dash")
    mark_non_finite(chart, steps, [rewards])
    batch_reward = outlines["reward_mean"].y if outlines else series["reward_mean"]
    return mark_non_finite(chart, versions, [batch_reward])


def _batch_rewards(
    series: Mapping[str, Sequence[Number]],
    versions: Sequence[Number],
    outlines: Mapping[str, Outline] | None,
) -> tuple[list[dict[str, Any]], bool]:
    """Return the traces of the batch reward, and of gold where there is any; and whether."""
    if outlines:
        gold = outlines["gold_reward_mean"]
        data = outline_traces(outlines["reward_mean"], "batch reward", 0)
        return data + (outline_traces(gold, "batch gold reward", 2) if gold.x else []), bool(gold.x)
    golds = series.get("gold_reward_mean", ())
    has_gold = any(value is not None for value in golds)
    data = traces(versions, series["reward_mean"], "batch reward", 0)
    return data + (traces(versions, golds, "batch gold reward", 2) if has_gold else []), has_gold


def run_figures(
    series: Mapping[str, Sequence[Number]],
    evaluations: Sequence[tuple[int, float]],
    collapse_step: int | None,
    *,
    unmeasured: Mapping[str, str],
    cycle: int = 1,
    outlines: Mapping[str, Outline] | None = None,
) -> dict[str, Figure]:
    """Return the charts of one run by key, in the order in which Watch shows them.

    ``cycle`` is S + 1: means are taken over whole staleness cycles, or they would beat with them.
    What the run never measures gives its reason in place of a curve.
    """
    reward = reward_figure(series, evaluations, collapse_step, outlines)
    charts = {"reward": explain(reward, GLOSSARY["reward_mean"].reading)}
    ess = ["sequence_ess_fraction", "ess_fraction"]
    up_to_one = {"range": [0, 1.05], "exponentformat": "none"}
    clip = ["clip_fraction_low", "clip_fraction_high"]
    for key, title, names, yaxis in (
        ("clipping", "Active clipping", clip, SHARE),
        ("kl", "Drift from the sampling policy", ["approx_kl"], FROM_ZERO),
        ("cycle_drift", "Drift from the sampling weights", ["cycle_drift"], FROM_ZERO),
        ("kl_to_start", "Distance from the start, as a policy", ["kl_to_start"], FROM_ZERO),
        ("displacement", "Distance from the start, in weights", ["displacement"], FROM_ZERO),
        ("ess", "Effective sample size", ess, up_to_one),
        ("entropy", "Entropy", ["entropy"], FROM_ZERO),
        ("gradient", "Raw gradient norm", ["grad_norm"], FROM_ZERO),
        ("cosine", "Direction of the gradient", ["gradient_cosine"], {"range": [-1.05, 1.05]}),
        ("staleness", "Realised staleness", ["staleness_max"], FROM_ZERO),
        ("learning_rate", "Learning rate", ["learning_rate"], FROM_ZERO),
    ):
        chart = metric_figure(
            title,
            series,
            names,
            cycle=cycle,
            unmeasured=unmeasured,
            outlines=outlines,
            yaxis=yaxis,
        )
        charts[key] = explain(chart, GLOSSARY[names[0]].reading)
    return charts


def kappa_figure(kappas: Mapping[str, Estimate]) -> Figure:
    """Draw each κ as a range on a logarithmic axis against its limit 1; unknown ends run out."""
    data = [_kappa_bar(name, kappa, i) for i, (name, kappa) in enumerate(kappas.items())]
    chart = figure("How much of each limit is used", data, "", "κ = used / limit")
    chart["layout"] |= {
        "showlegend": False,
        "height": 94 + 48 * len(kappas),
        "hovermode": "closest",
        "margin": {"l": 100, "r": 12, "t": 38, "b": 46},
    }
    chart["layout"]["xaxis"] |= {
        "range": [math.log10(LEAST_SHOWN), math.log10(MOST_SHOWN)],
        "tickvals": [-3, -2, -1, 0, 1, 2],
        "ticktext": ["0.001", "0.01", "0.1", "1", "10", "100"],
    }
    chart["layout"]["yaxis"] = {
        "type": "category",
        "categoryarray": list(kappas),
        "range": [len(kappas) - 0.5, -0.8],  # the words "beyond limit" stand above the first bar
        "showgrid": False,
        "tickvals": list(kappas),
        "ticktext": [f"{name}<br><b>{span(kappa)}</b>" for name, kappa in kappas.items()],
    }
    mark(chart, 0, math.log10(MOST_SHOWN), "beyond limit", width=0)
    mark(chart, 0, 0, "")
    return chart


def _kappa_bar(name: str, kappa: Estimate, index: int) -> dict[str, Any]:
    if span(kappa) == "unknown":
        return {
            "type": "scatter",
            "mode": "text",
            "x": [(math.log10(LEAST_SHOWN)) / 2],
            "y": [name],
            "text": [""],  # the row's label says that it is unknown
            "hoverinfo": "skip",
        }
    low = LEAST_SHOWN if kappa.low is None else kappa.low
    high = MOST_SHOWN if kappa.high is None else kappa.high
    low = min(max(low, LEAST_SHOWN), MOST_SHOWN / SLIVER)
    high = max(min(high, MOST_SHOWN), low * SLIVER)
    return {
        "type": "bar",
        "orientation": "h",
        "y": [name],
        "x": [math.log10(high / low)],
        "base": [math.log10(low)],
        "width": 0.45,
        "marker": {
            "color": COLORS[index % len(COLORS)],
            "pattern": {"shape": "/" if None in (kappa.low, kappa.high) else ""},
        },
        "hovertext": [f"κ {name}: {span(kappa)}"],
        "hoverinfo": "text",
    }


def compare_figure(
    name: str,
    curves: Sequence[tuple[str, Sequence[Number], Sequence[Number]]],
    x_title: str,
    baseline: str | None = None,
) -> Figure:
    """Overlay one metric of several runs: (label, x, y) each; the baseline is drawn boldly."""
    data = []
    for i, (label, x, y) in enumerate(curves):
        drawn = traces(x, y, in_chart(label), i, points=POINTS_COMPARED)
        if label == baseline:
            drawn[-1]["line"] = {**drawn[-1]["line"], "width": 4}
        data += drawn
    chart = figure(label_of(name).capitalize(), data, axis_title(name), x_title)
    rows = math.ceil(len(curves) / LEGEND_ENTRIES_PER_ROW)
    chart["layout"] |= {"height": 380 + LEGEND_ROW * rows, "showlegend": True}
    chart["layout"]["margin"]["b"] = 56 + LEGEND_ROW * rows
    for _, x, y in curves:
        mark_non_finite(chart, x, [y])
    return chart
