"""The charts of an answer: the learned edge and the (S, η) map."""

import math
from collections.abc import Sequence
from dataclasses import replace

from .answer import learned_edge
from .calibration import RunFacts
from .figures import Figure, map_figure, probability_figure
from .learning_rate import Trial
from .recommendation import Advice, Question

RATES = 120
STALENESSES = (0, 1, 3, 7, 15, 31, 63, 127, 255)
MARGIN = 8.0


def edge_chart(question: Question, evidence: Sequence[RunFacts], advice: Advice) -> Figure:
    """Draw P(unsafe) against η with the advised rates marked."""
    edge, trials = learned_edge(question, evidence)
    known = [trial.learning_rate for trial in trials]
    known += [r for r in (advice.max_learning_rate, question.learning_rate) if r is not None]
    low, high = math.log(min(known) / MARGIN), math.log(max(known) * MARGIN)
    rates = [math.exp(low + (high - low) * i / (RATES - 1)) for i in range(RATES)]
    marks = {
        "largest safe": advice.max_learning_rate,
        "edge": advice.edge,
        "suggested": advice.suggested_learning_rate,
        "yours": question.learning_rate,
    }
    return probability_figure(
        rates, [edge.unsafe_probability(rate) for rate in rates], marks, question.risk
    )


def map_chart(question: Question, evidence: Sequence[RunFacts], advice: Advice) -> Figure:
    """Draw the edge and the largest safe rate over staleness, with past runs as dots."""
    asked = question.setting.max_staleness
    shown = [s for s in STALENESSES if s <= max(15, 4 * asked)]
    risk: list[float | None] = []
    half: list[float | None] = []
    trials: list[Trial] = []
    for staleness in shown:
        setting = question.setting.model_copy(update={"max_staleness": staleness})
        edge, trials = learned_edge(replace(question, setting=setting), evidence)
        risk.append(edge.rate_at(question.risk) if edge.has_safe else None)
        half.append(edge.rate_at(0.5) if edge.has_safe and edge.has_unsafe else None)
    boundaries = {f"{question.risk:.0%} fail": risk, "half fail": half}
    rate = question.learning_rate or advice.max_learning_rate
    return map_figure(
        shown,
        boundaries,
        [(t.max_staleness, t.learning_rate, t.unsafe, t.label) for t in trials],
        (asked, rate),
    )
