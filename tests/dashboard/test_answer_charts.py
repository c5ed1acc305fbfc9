"""The charts of an answer: the edge, the map, and what staleness buys."""

import pytest
from factories import a_config, a_run, fill, some_facts
from logged_drifts import RATE_AT_1, S, a_log
from probed import a_calibration, linear_holds

from advisor.answer import ask, consider, gather
from advisor.charts import (
    Boundary,
    boundary,
    edge_chart,
    map_chart,
    map_figure,
    probability_figure,
    rate_ticks,
    trade_chart,
)
from advisor.measured import measured
from storage.records import RunStatus

RATES = (2e-4, 4e-4, 8e-4, 1.6e-3, 3.2e-3)


def test_rates_on_a_log_axis_are_written_as_people_type_them():
    assert rate_ticks(8e-5, 2e-3, 3)["ticktext"] == ["1e-4", "2e-4", "5e-4", "1e-3", "2e-3"]
    assert rate_ticks(8e-5, 2e-3, 1)["ticktext"] == ["1e-4", "1e-3"]


def test_marks_at_the_same_rate_share_one_line_with_both_names():
    marks = {"largest safe": 2.0e-4, "suggested": 2.004e-4, "edge": 6e-4, "yours": None}
    chart = probability_figure([1e-5, 1e-3], [0.0, 1.0], marks, 0.05)
    names = [trace["name"] for trace in chart["data"]]
    assert names == [
        "P(unsafe)",
        "largest safe, suggested 2.0e-4",
        "edge 6.0e-4",
        "accepted risk 5%",
    ]


def test_the_map_draws_gaps_where_there_is_no_boundary_and_tells_outcomes_apart_by_shape():
    chart = map_figure(
        [0, 3],
        {"half fail": [None, 1e-3]},
        [(3, 2e-4, False, "run 1"), (3, 4e-3, True, "run 2")],
        ("your rate", 3, 5e-4),
    )
    boundary, survived, unsafe, cross = chart["data"]
    assert (boundary["x"], boundary["y"]) == ([1, 4], [None, 1e-3])
    assert (survived["y"], unsafe["y"]) == ([2e-4], [4e-3])
    assert survived["marker"]["symbol"] != unsafe["marker"]["symbol"]
    assert (cross["x"], cross["y"], cross["name"]) == ([4], [5e-4], "your rate")


def test_without_a_rate_the_map_has_no_cross():
    chart = map_figure([0], {"half fail": [1e-3]}, [], ("largest safe", 0, None))
    assert [trace["name"] for trace in chart["data"]] == ["half fail"]


def test_the_charts_of_an_answer_agree_with_the_answer(store):
    for rate, verdict in ((2e-4, "healthy"), (4e-3, "collapsed")):
        status = RunStatus.FINISHED if verdict == "healthy" else RunStatus.COLLAPSED
        onset = None if verdict == "healthy" else 12
        run = a_run(
            a_config(learning_rate=rate), status=status, outcome=verdict, collapse_step=onset
        )
        fill(store, run, steps=40)
    evidence = gather(store)
    question = ask(settings={"max_staleness": 3, "steps": 300}, evidence=evidence, risk=0.3)
    advice = consider(question, evidence)
    curve = edge_chart(question, evidence, advice)["data"][0]
    below = [p for rate, p in zip(curve["x"], curve["y"], strict=True) if rate < advice.edge]
    above = [p for rate, p in zip(curve["x"], curve["y"], strict=True) if rate > advice.edge]
    assert max(below) <= 0.5 <= min(above)
    places, trials = boundary(question, evidence)
    assert {(t.learning_rate, t.unsafe) for t in trials} == {(2e-4, False), (4e-3, True)}
    half, risk = map_chart(question, advice, places, trials)["data"][:2]
    at_three = half["x"].index(3 + 1)
    assert half["y"][at_three] == pytest.approx(advice.edge, rel=1e-3)
    assert risk["y"][at_three] < half["y"][at_three]
    assert half["y"] == sorted(half["y"], reverse=True)  # more staleness never allows more


# -- what staleness buys ----------------------------------------------------------------------


def at(staleness, safe):
    return Boundary(max_staleness=staleness, safe=safe, edge=None)


def bars_of(places, generate, learn, asked=1):
    (bars,) = trade_chart(places, generate, learn, asked)["data"]
    return bars


@pytest.mark.parametrize(
    ("generate", "learn", "fresh", "overlapped"),
    [
        (1.0, 1.0, 1800, 3600),  # equal times: twice as many steps
        (3.0, 1.0, 900, 1200),  # generation sets the pace
        (1.0, 3.0, 900, 1200),
    ],
)
def test_with_staleness_generating_and_learning_overlap(generate, learn, fresh, overlapped):
    bars = bars_of([at(0, 1e-3), at(1, 1e-3), at(15, 1e-3)], generate, learn)
    assert bars["hovertext"] == [
        f"S = 0: {fresh:,} steps/h at η ≤ 1.0e-3",
        f"S = 1: {overlapped:,} steps/h at η ≤ 1.0e-3",
        f"S = 15: {overlapped:,} steps/h at η ≤ 1.0e-3",
    ]
    assert bars["y"] == pytest.approx([fresh / overlapped, 1, 1])


def test_learning_per_hour_is_rate_times_steps_relative_to_the_best():
    # 1e-3 · 1800, 4e-4 · 3600, 1e-4 · 3600: 1.8, 1.44, 0.36.
    bars = bars_of([at(0, 1e-3), at(3, 4e-4), at(15, 1e-4)], 1, 1, asked=3)
    assert bars["y"] == pytest.approx([1, 0.8, 0.2])
    assert bars["x"] == ["0", "3", "15"]
    assert bars["marker"]["pattern"]["shape"] == ["/", "", "/"]  # the one asked about is solid


def test_a_staleness_at_which_no_rate_is_known_is_left_out():
    assert bars_of([at(0, 1e-3), at(3, None)], 1, 1)["x"] == ["0"]
    chart = trade_chart([at(0, None)], 1, 1, 0)
    assert "no safe rate is known" in chart["layout"]["annotations"][0]["text"].replace("<br>", " ")


def test_where_a_probe_does_not_speak_the_map_has_a_gap():
    found = measured(a_calibration(linear_holds(RATES, edge=1.5e-3)))
    settings = {"max_staleness": found.setting.max_staleness, "steps": found.setting.steps}
    question = ask(settings=settings, evidence=(), risk=0.05, found=found)
    advice = consider(question, (), found)
    places, trials = boundary(question, (), found)
    assert trials
    here = next(p for p in places if p.max_staleness == question.setting.max_staleness)
    assert here.safe == pytest.approx(advice.max_learning_rate, rel=1e-3)
    chart = map_chart(question, advice, places, trials)
    half = chart["data"][0]
    assert half["y"] == [p.edge and float(f"{p.edge:.4g}") for p in places]


def test_where_logs_do_not_speak_the_map_has_a_gap_and_no_published_rate():
    """With fresh rollouts staleness limits nothing: what remains is of another kind."""
    rate = 0.4 * RATE_AT_1
    nothing = {"displacement": None, "verdict": None, "unsafe": None}
    run = some_facts(a_config(learning_rate=rate, max_staleness=S), logged=a_log(rate), **nothing)
    question = ask(settings={"max_staleness": S, "steps": 300}, evidence=[run], risk=0.05)
    advice = consider(question, [run])
    assert advice.binding == "staleness"
    places, _ = boundary(question, [run])
    rates = {each.max_staleness: each.safe for each in places}
    assert rates[0] is None
    assert rates[S] == pytest.approx(advice.max_learning_rate, rel=1e-3)
    known = [rates[age] for age in sorted(rates) if age > 0]
    assert known == sorted(known, reverse=True)
    assert trade_chart(places, 1, 1, S)["data"][0]["x"] == [str(age) for age in rates if age > 0]
    assert max(edge_chart(question, [run], advice)["data"][0]["y"]) > 0.5
