"""The charts of an answer: the learned edge and the (S, η) map. Pure but for the packaged table."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .advice import Advice, Question
from .answer import learned_edge
from .drawing import BLUE, COLORS, DASHES, GRAY, GREEN, VERMILION, Figure, figure, say, traces
from .learning_rate import Trial
from .measured import Measured
from .run_facts import RunFacts
from .transfers import RefusedTransfer
from .wording import in_chart
from .wording import rate as written

RATES = 120
STALENESSES = (0, 1, 3, 7, 15, 31, 63, 127, 255)
MARGIN = 8.0
HEIGHT = 380
FINE_TICKS = (1, 2, 5)
FINE_ACROSS, FINE_UPWARD = 2.2, 3.2
"""Decades up to which there is room for fine ticks."""


def edge_chart(
    question: Question,
    evidence: Sequence[RunFacts],
    advice: Advice,
    found: Measured | None = None,
) -> Figure:
    """Draw P(unsafe) against η with the advised rates marked."""
    edge, trials = learned_edge(question, evidence, found)
    known = [trial.learning_rate for trial in trials]
    marked = (advice.max_learning_rate, advice.edge, question.learning_rate)
    known += [rate for rate in marked if rate is not None]
    low, high = math.log(min(known) / MARGIN), math.log(max(known) * MARGIN)
    rates = [math.exp(low + (high - low) * i / (RATES - 1)) for i in range(RATES)]
    marks = {
        "largest safe": advice.max_learning_rate,
        "suggested": advice.suggested_learning_rate,
        "edge": advice.edge,
        "yours": question.learning_rate,
    }
    return probability_figure(
        rates, [edge.unsafe_probability(rate) for rate in rates], marks, question.risk
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Boundary:
    """Where runs fail at one staleness; None where the evidence says nothing of it.

    ``safe`` is the rate at the accepted risk, ``edge`` where half of the runs fail.
    """

    max_staleness: int
    safe: float | None
    edge: float | None


def boundary(
    question: Question, evidence: Sequence[RunFacts], found: Measured | None = None
) -> tuple[list[Boundary], list[Trial]]:
    """Return where runs fail over staleness, and the trials that say so.

    Where no rule carries a calibration there, or what speaks at the asked staleness (limits that
    were measured, or outcomes and published settings) does not, a place has no rates.
    """
    asked = question.setting.max_staleness
    own, trials = learned_edge(question, evidence, found)
    places = []
    for staleness in sorted({asked, *(s for s in STALENESSES if s <= max(15, 4 * asked))}):
        setting = question.setting.model_copy(update={"max_staleness": staleness})
        try:
            edge, _ = learned_edge(replace(question, setting=setting), evidence, found)
        except RefusedTransfer:
            edge = None
        if type(edge) is not type(own):
            places.append(Boundary(max_staleness=staleness, safe=None, edge=None))
            continue
        safe = edge.rate_at(question.risk) if edge.has_safe else None
        half = edge.rate_at(0.5) if edge.has_safe and edge.has_unsafe else None
        places.append(Boundary(max_staleness=staleness, safe=safe, edge=half))
    return places, trials


def map_chart(
    question: Question,
    advice: Advice,
    places: Sequence[Boundary],
    trials: Sequence[Trial],
) -> Figure:
    """Draw the edge and the largest safe rate over staleness, with past runs as dots.

    Where no rule carries a calibration the lines have a gap.
    """
    cross = ("your rate", question.learning_rate)
    if question.learning_rate is None:
        cross = ("largest safe", advice.max_learning_rate)
    return map_figure(
        [each.max_staleness for each in places],
        {
            "half fail": [each.edge for each in places],
            f"{question.risk:.0%} fail": [each.safe for each in places],
        },
        [(t.max_staleness, t.learning_rate, t.unsafe, t.label) for t in trials],
        (cross[0], question.setting.max_staleness, cross[1]),
    )


def trade_chart(
    places: Sequence[Boundary], generate_seconds: float, learn_seconds: float, asked: int
) -> Figure:
    """Draw how much a run learns per hour at each staleness, relative to the best.

    With fresh rollouts generation and learning take turns; with S of at least 1 they overlap, so a
    step takes as long as the slower of them. Learning is taken as the safe rate × steps per hour.
    """
    known = [each for each in places if each.safe is not None]
    speed = {
        each.max_staleness: 3600
        / (
            generate_seconds + learn_seconds
            if each.max_staleness == 0
            else max(generate_seconds, learn_seconds)
        )
        for each in known
    }
    gained = [(each.safe or 0.0) * speed[each.max_staleness] for each in known]
    best = max(gained, default=0.0)
    shares = [each / best for each in gained] if best else []
    ages = [each.max_staleness for each in known]
    words = [
        f"S = {s}: {speed[s]:,.0f} steps/h at η ≤ {written(each.safe)}"
        for s, each in zip(ages, known, strict=True)
        if each.safe is not None
    ]
    bars = {
        "type": "bar",
        "x": [str(s) for s in ages],
        "y": shares,
        "marker": {
            "color": [BLUE if s == asked else GRAY for s in ages],
            "pattern": {"shape": ["" if s == asked else "/" for s in ages]},
        },
        "hovertext": words,
        "hoverinfo": "text",
        "name": "learning per hour",
    }
    chart = figure(
        "Learning per hour by staleness",
        [bars],
        "relative to the best",
        "max staleness S (learner steps); yours is solid",
        xaxis={"type": "category"},
        yaxis={"tickformat": ".0%", "range": [0, 1.08], "exponentformat": "none"},
    )
    chart["layout"] |= {"hovermode": "closest"}
    return chart if shares else say(chart, "no safe rate is known at any staleness")


def probability_figure(
    rates: Sequence[float],
    probabilities: Sequence[float],
    marks: Mapping[str, float | None],
    risk: float,
) -> Figure:
    """Draw P(unsafe) against the learning rate, the accepted risk, and the advised rates."""
    data = traces(rates, probabilities, "P(unsafe)", 0)
    for i, (label, rate) in enumerate(_merged(marks).items()):
        data.append(
            {
                "type": "scatter",
                "mode": "lines",
                "x": [rate, rate],
                "y": [0, 1],
                "name": f"{label} {written(rate)}",
                "line": {"color": COLORS[i + 1], "dash": DASHES[i + 1], "width": 2},
                "hoverinfo": "skip",
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
            "hoverinfo": "skip",
        }
    )
    ticks = rate_ticks(rates[0], rates[-1], FINE_ACROSS)
    chart = figure(
        "How likely a run is unsafe",
        data,
        "P(unsafe within T)",
        "learning rate η",
        xaxis={"type": "log", "rangemode": "normal", **ticks},
        yaxis={"tickformat": ".0%", "range": [0, 1.02], "exponentformat": "none"},
    )
    chart["layout"] |= {"height": HEIGHT, "showlegend": True}
    chart["layout"]["margin"]["b"] = 104
    return chart


def _merged(marks: Mapping[str, float | None]) -> dict[str, float]:
    """Give marks at the same rate, to the two digits shown, one line and all of their names."""
    names: dict[str, list[str]] = {}
    for name, rate in marks.items():
        if rate is not None:
            names.setdefault(written(rate), []).append(name)
    first = {written(rate): rate for rate in marks.values() if rate is not None}
    return {", ".join(each): first[shown] for shown, each in names.items()}


def rate_ticks(low: float, high: float, fine_decades: float) -> dict[str, Any]:
    """Return ticks of a logarithmic axis of learning rates, written as people type them."""
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    fine = math.log10(high / low) <= fine_decades
    ticks = [float(f"{digit}e{d}") for d in decades for digit in (FINE_TICKS if fine else (1,))]
    shown = [tick for tick in ticks if low <= tick <= high]
    return {"tickvals": shown, "ticktext": [written(tick).replace(".0e", "e") for tick in shown]}


def map_figure(
    staleness: Sequence[int],
    boundaries: Mapping[str, Sequence[float | None]],
    trials: Sequence[tuple[int, float, bool, str]],
    asked: tuple[str, int, float | None],
) -> Figure:
    """Draw the (S, η) map: boundaries, past runs by outcome, and one rate as a cross.

    ``trials`` are (S, η, unsafe, label), ``asked`` is (label, S, η). S + 1 is drawn, since log 0
    does not exist; the ticks say S.
    """
    x = [s + 1 for s in staleness]
    data = [
        trace
        for i, (label, y) in enumerate(boundaries.items())
        if any(value is not None for value in y)
        for trace in traces(x, y, label, i)
    ]
    data += _dots("survived", "circle", GREEN, [t for t in trials if not t[2]])
    data += _dots("unsafe", "x", VERMILION, [t for t in trials if t[2]])
    label, asked_staleness, rate = asked
    if rate is not None:
        data.append(
            {
                "type": "scatter",
                "mode": "markers",
                "x": [asked_staleness + 1],
                "y": [rate],
                "name": label,
                "marker": {"symbol": "cross-thin", "size": 18, "line": {"width": 3, "color": BLUE}},
                "hovertext": [f"{label}: {written(rate)} at S = {asked_staleness}"],
                "hoverinfo": "text",
            }
        )
    drawn = [v for y in boundaries.values() for v in y if v is not None]
    drawn += [t[1] for t in trials] + ([] if rate is None else [rate])
    ticks = rate_ticks(min(drawn) / 2, max(drawn) * 2, FINE_UPWARD) if drawn else {}
    shown = sorted({*staleness, *(t[0] for t in trials)})
    right = math.log10(max(shown) + 1) * 1.04 + 0.02
    chart = figure(
        "Where runs fail",
        data,
        "learning rate η",
        "max staleness S (learner steps)",
        xaxis={
            "type": "log",
            "rangemode": "normal",
            "range": [-0.06, right],
            "tickvals": [s + 1 for s in STALENESSES],
            "ticktext": [str(s) for s in STALENESSES],
        },
        yaxis={"type": "log", **ticks},
    )
    chart["layout"] |= {"height": HEIGHT, "showlegend": True, "hovermode": "closest"}
    chart["layout"]["margin"]["b"] = 104
    return chart


def _dots(
    name: str, symbol: str, color: str, trials: Sequence[tuple[int, float, bool, str]]
) -> list[dict[str, Any]]:
    if not trials:
        return []
    return [
        {
            "type": "scatter",
            "mode": "markers",
            "x": [staleness + 1 for staleness, *_ in trials],
            "y": [rate for _, rate, *_ in trials],
            "hovertext": [in_chart(words) for *_, words in trials],
            "name": name,
            "marker": {"symbol": symbol, "size": 10, "color": color, "line": {"width": 1}},
            "hoverinfo": "text",
        }
    ]
