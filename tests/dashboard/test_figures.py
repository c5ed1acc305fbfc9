import json
import math

import pytest
from pages import said_in

from advisor.drawing import (
    COLORS,
    DASHES,
    EXTREMES,
    POINTS,
    figure,
    mark_non_finite,
    means,
    thin,
    traces,
)
from advisor.figures import (
    LEAST_SHOWN,
    MOST_SHOWN,
    SLIVER,
    compare_figure,
    kappa_figure,
    metric_figure,
    reward_figure,
    run_figures,
)
from advisor.glossary import GLOSSARY, axis_title, label_of
from advisor.regime import Estimate, unknown

NAN, INF = math.nan, math.inf
WATCHED = (
    "step",
    "sampled_at_step",
    "reward_mean",
    "learning_rate",
    "staleness_max",
    "cycle_drift",
    "displacement",
    "approx_kl",
    "kl_to_start",
    "clip_fraction_low",
    "clip_fraction_high",
    "ess_fraction",
    "sequence_ess_fraction",
    "entropy",
    "grad_norm",
    "gradient_cosine",
)


def a_series(steps, **columns):
    series = {name: [0.1 + 0.8 * ((7 * i) % 11) / 11 for i in range(steps)] for name in WATCHED}
    series |= {"step": list(range(steps)), "sampled_at_step": list(range(steps))}
    return series | columns


# -- thinning ---------------------------------------------------------------------------------


def test_a_short_curve_is_drawn_as_it_is_with_gaps_for_what_is_not_a_number():
    assert thin([0, 1, 2, 3], [0.5, None, NAN, -INF]) == ([0, 1, 2, 3], [0.5, None, None, None])
    assert thin([], []) == ([], [])


@pytest.mark.parametrize("length", [POINTS, POINTS + 1, 997, 10_000])
def test_thinning_stays_within_its_bound_and_keeps_both_ends(length):
    x, y = thin(range(length), [math.sin(i) for i in range(length)], POINTS)
    assert len(x) == len(y) <= POINTS + 2
    assert (x[0], x[-1]) == (0, length - 1)
    assert x == sorted(x)


@pytest.mark.parametrize("place", [0, 1, 4567, 9999])
def test_a_single_spike_in_either_direction_survives_thinning(place):
    for spike in (9.0, -9.0):
        values = [1.0] * 10_000
        values[place] = spike
        x, y = thin(range(10_000), values, 100)
        assert y[x.index(place)] == spike


def test_a_gap_longer_than_a_bucket_stays_a_gap_and_a_measured_zero_stays_zero():
    values = [0.0] * 400 + [None] * 200 + [0.0] * 400
    x, y = thin(range(1000), values, 100)
    drawn = dict(zip(x, y, strict=True))
    assert {drawn[i] for i in drawn if 420 <= i < 580} == {None}
    assert {drawn[i] for i in drawn if i < 400} == {0.0}


def test_means_are_taken_over_what_is_known_at_the_middle_of_each_bucket():
    # Buckets of two: (1 + 3)/2, then 5 alone, then nothing.
    assert means(range(6), [1.0, 3.0, 5.0, None, NAN, None], points=3) == ([1, 3, 5], [2, 5, None])


def test_means_span_whole_cycles_and_leave_out_one_that_has_only_begun():
    # Ages 0…3 average 1.5 over a cycle; buckets that cut a cycle would show waves.
    ages = [float(i % 4) for i in range(802)]
    _, y = means(range(802), ages, points=75, cycle=4)
    assert set(y) == {1.5}


def test_a_cycle_about_as_long_as_the_run_does_not_swallow_the_curve():
    x, _ = means(range(600), [1.0] * 600, points=60, cycle=513)
    assert 30 <= len(x) <= 60


# -- curves -----------------------------------------------------------------------------------


def test_a_long_curve_shows_its_mean_and_faintly_its_extremes_under_one_legend_entry():
    spiky = [1.0] * 5000
    spiky[2500] = 50.0
    faint, mean = traces(range(5000), spiky, "KL", 0)
    assert max(faint["y"]) == 50.0
    assert faint["opacity"] < 1
    assert faint["showlegend"] is False
    assert max(mean["y"]) < 50.0
    assert faint["legendgroup"] == mean["legendgroup"]
    assert len(faint["y"]) <= EXTREMES + 2


@pytest.mark.parametrize("steps", [60, 2000])
def test_what_is_measured_every_few_steps_is_drawn_as_joined_points(steps):
    values = [0.1 if i % 5 == 4 else None for i in range(steps)]
    (drawn,) = traces(range(steps), values, "KL to start", 0)
    assert drawn["mode"] == "lines+markers"
    assert None not in drawn["y"]
    assert all(x % 5 == 4 for x in drawn["x"])


def test_a_gap_in_what_is_measured_at_every_step_is_not_bridged():
    (drawn,) = traces(range(5), [1.0, 1.0, None, 1.0, 1.0], "KL", 0)
    assert drawn["mode"] == "lines"
    assert drawn["y"] == [1.0, 1.0, None, 1.0, 1.0]
    assert drawn["connectgaps"] is False


def test_curves_differ_in_color_and_in_dash():
    pens = [traces([0], [1.0], "x", i)[0]["line"] for i in range(min(len(COLORS), len(DASHES)))]
    assert len({pen["color"] for pen in pens}) == len({pen["dash"] for pen in pens}) == len(pens)


# -- marks ------------------------------------------------------------------------------------


def test_every_stretch_that_is_not_finite_is_marked_and_the_first_one_says_so():
    chart = figure("a chart", [], "")
    values = [NAN, NAN, 1.0, INF, None, 1.0, -INF]
    mark_non_finite(chart, range(10, 17), [values])
    marks = chart["layout"]["shapes"]
    assert [(m["x0"], m["x1"]) for m in marks] == [(10, 11), (13, 13), (16, 16)]
    assert [m["label"].get("text") for m in marks] == ["not finite", None, None]


def test_a_value_that_was_not_measured_is_not_marked():
    chart = mark_non_finite(figure("a chart", [], ""), [0, 1], [[None, 1.0], [0.0, None]])
    assert chart["layout"]["shapes"] == []


def test_one_of_two_metrics_that_is_not_finite_marks_their_chart():
    series = {"step": [0, 1], "ess_fraction": [1.0, 1.0], "sequence_ess_fraction": [0.5, NAN]}
    chart = metric_figure("ESS", series, ["sequence_ess_fraction", "ess_fraction"])
    assert [m["x0"] for m in chart["layout"]["shapes"]] == [1]
    assert chart["data"][0]["y"] == [0.5, None]


# -- charts of a run --------------------------------------------------------------------------


def test_a_reward_stands_at_the_step_whose_weights_sampled_it():
    series = {"step": [0, 1, 2, 3], "sampled_at_step": [0, 0, 0, None], "reward_mean": [0.5] * 4}
    chart = reward_figure(series, [(0, 0.4), (25, NAN)], None)
    batch, policy = chart["data"]
    assert batch["x"] == [0, 0, 0, 3]  # of the last one only its own step is known
    assert (policy["x"], policy["y"]) == ([0, 25], [0.4, None])
    assert [m["x0"] for m in chart["layout"]["shapes"]] == [25]


def test_the_onset_of_a_collapse_is_marked_even_at_step_zero():
    series = {"step": [0], "sampled_at_step": [0], "reward_mean": [0.5]}
    (mark,) = reward_figure(series, [], 0)["layout"]["shapes"]
    assert (mark["x0"], mark["label"]["text"]) == (0, "collapse")


def test_what_is_never_measured_gives_its_reason_in_place_of_a_curve_and_a_scale():
    reason = "structurally impossible: every ratio is 1, <so> the clip removes nothing at all"
    series = a_series(30, clip_fraction_low=[None] * 30, clip_fraction_high=[None] * 30)
    charts = run_figures(series, [], None, unmeasured={"clip_fraction_low": reason})
    layout = charts["clipping"]["layout"]
    (words,) = said_in(charts["clipping"])
    assert words["text"].replace("<br>", " ") == reason.replace("<so>", "&lt;so&gt;")
    assert layout["xaxis"]["showticklabels"] is layout["yaxis"]["showticklabels"] is False
    assert said_in(charts["entropy"]) == []


def test_what_is_not_measured_without_a_reason_is_said_not_to_be_measured():
    chart = metric_figure("Entropy", {"step": [0, 1], "entropy": [None, None]}, ["entropy"])
    assert [each["text"] for each in chart["layout"]["annotations"]] == ["not measured"]


def test_what_was_computed_and_is_not_finite_is_not_called_unmeasured():
    chart = metric_figure("Entropy", {"step": [0, 1], "entropy": [None, NAN]}, ["entropy"])
    assert "annotations" not in chart["layout"]
    assert [m["x0"] for m in chart["layout"]["shapes"]] == [1]


@pytest.mark.parametrize(("place", "side"), [(10, "top left"), (50, "top left"), (51, "top right")])
def test_words_at_a_mark_stand_where_there_is_room(place, side):
    values = [NAN if i == place else 1.0 for i in range(101)]
    (found,) = mark_non_finite(figure("a chart", [], ""), range(101), [values])["layout"]["shapes"]
    assert found["label"]["textposition"] == side


def test_every_chart_of_a_run_names_its_axes():
    for chart in run_figures(a_series(30), [], None, unmeasured={}).values():
        assert chart["layout"]["title"]["text"]
        assert chart["layout"]["xaxis"]["title"]["text"].startswith("learner step")
        assert chart["layout"]["yaxis"]["title"]["text"]


def test_a_run_that_has_measured_nothing_yet_draws_empty_charts():
    empty = {name: [] for name in WATCHED}
    for chart in run_figures(empty, [], None, unmeasured={}).values():
        assert all(list(trace["x"]) == [] for trace in chart["data"])


def test_a_refresh_of_a_long_run_carries_at_most_fifty_kilobytes():
    sparse = [0.123456 if i % 5 == 4 else None for i in range(10_000)]
    evaluations = [(i, 0.812345) for i in range(0, 10_000, 25)]
    series = a_series(10_000, kl_to_start=sparse)
    charts = run_figures(series, evaluations, 5000, unmeasured={}, cycle=4)
    sent = json.dumps(charts, separators=(",", ":"), ensure_ascii=False).encode()  # as feed.py does
    assert len(sent) <= 50_000


# -- κ ----------------------------------------------------------------------------------------


def bar_of(kappa):
    """The ends of a drawn bar as κ, and whether it is hatched."""
    (bar,) = kappa_figure({"staleness": kappa})["data"]
    low = bar["base"][0]
    hatched = bar["marker"]["pattern"]["shape"] != ""
    return pytest.approx(10**low), pytest.approx(10 ** (low + bar["x"][0])), hatched


def label_on_axis(kappa):
    return kappa_figure({"horizon": kappa})["layout"]["yaxis"]["ticktext"][0]


def test_a_kappa_is_a_bar_between_its_ends_with_both_in_words():
    kappa = Estimate(value=0.3, low=0.1, high=0.9)
    assert bar_of(kappa) == (0.1, 0.9, False)
    assert label_on_axis(kappa) == "horizon<br><b>0.1 … 0.9</b>"


def test_an_unknown_end_runs_out_of_the_chart_hatched_and_is_said_to_be_a_bound():
    assert bar_of(Estimate(high=2.4, is_bound=True)) == (LEAST_SHOWN, 2.4, True)
    assert bar_of(Estimate(low=0.3, is_bound=True)) == (0.3, MOST_SHOWN, True)
    assert "at most 2.4" in label_on_axis(Estimate(high=2.4, is_bound=True))
    assert "at least 0.3" in label_on_axis(Estimate(low=0.3, is_bound=True))


def test_a_kappa_of_which_nothing_is_known_is_a_word_and_no_bar():
    known, nothing = Estimate(low=0.1, high=0.2), unknown("no run of this setting has ended")
    chart = kappa_figure({"staleness": known, "horizon": nothing})
    assert [trace["type"] for trace in chart["data"]] == ["bar", "scatter"]
    assert label_on_axis(nothing) == "horizon<br><b>unknown</b>"
    bottom, top = chart["layout"]["yaxis"]["range"]
    assert bottom == 1.5  # every row has its place, filled or not
    assert top < -0.5  # and above them is one for words


@pytest.mark.parametrize(
    ("kappa", "ends", "words"),
    [
        (Estimate(value=0, low=0, high=0), (LEAST_SHOWN, LEAST_SHOWN * SLIVER), "<b>0</b>"),
        (Estimate(value=7e4, low=5e4, high=9e4), (MOST_SHOWN / SLIVER, MOST_SHOWN), "5e4 … 9e4"),
        (Estimate(low=2.0, high=INF), (2.0, MOST_SHOWN), "2 … ∞"),
    ],
)
def test_a_kappa_beyond_the_axis_is_a_sliver_at_its_end_and_written_in_full(kappa, ends, words):
    assert (*ends, False) == bar_of(kappa)
    assert words in label_on_axis(kappa)


def test_the_limit_of_one_is_drawn():
    chart = kappa_figure({"staleness": Estimate(low=0.1, high=0.2)})
    assert (0, 0) in [(m["x0"], m["x1"]) for m in chart["layout"]["shapes"]]  # log10 of 1


# -- comparison -------------------------------------------------------------------------------


def test_runs_of_different_length_are_overlaid_each_over_its_own_steps():
    curves = [("one", [0, 1], [0.1, 0.2]), ("two", [0, 1, 2], [0.3, NAN, 0.4])]
    chart = compare_figure("reward_mean", curves, "learner step")
    assert [trace["name"] for trace in chart["data"]] == ["one", "two"]
    assert [trace["x"] for trace in chart["data"]] == [[0, 1], [0, 1, 2]]
    assert [m["x0"] for m in chart["layout"]["shapes"]] == [1]


def test_the_baseline_is_drawn_boldly_and_no_other_run_is():
    curves = [("one", [0, 1], [0.1, 0.2]), ("two", [0, 1], [0.3, 0.4])]
    plain = compare_figure("reward_mean", curves, "learner step")
    pinned = compare_figure("reward_mean", curves, "learner step", "two")
    widths = [[trace["line"]["width"] for trace in chart["data"]] for chart in (plain, pinned)]
    assert widths == [[1.8, 1.8], [1.8, 4]]
    assert plain["data"][1]["line"]["width"] == 1.8


def test_a_name_that_looks_like_html_is_shown_as_it_is():
    chart = compare_figure("reward_mean", [("<b>bold</b> & co", [0], [0.1])], "learner step")
    assert chart["data"][0]["name"] == "&lt;b&gt;bold&lt;/b&gt; &amp; co"


def test_a_step_of_unknown_place_is_not_marked_at_zero():
    chart = compare_figure("reward_mean", [("one", [None, None], [0.1, NAN])], "Σ η")
    assert chart["layout"]["shapes"] == []


# -- names ------------------------------------------------------------------------------------


def test_every_watched_metric_has_a_name_a_unit_or_none_and_a_reading():
    for name in set(WATCHED) - {"step", "sampled_at_step"}:
        assert GLOSSARY[name].reading.endswith(".")
        assert axis_title(name)


def test_a_metric_without_an_entry_is_named_after_its_column():
    assert label_of("tokens_per_second") == "tokens per second"
    assert axis_title("tokens_per_second") == "tokens per second"
