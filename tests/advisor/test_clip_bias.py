"""The streamed clip bias is shown only where its interval means something."""

import math
from dataclasses import replace

import pytest
from factories import a_step

from advisor.clip_bias import clip_bias_figure, clip_bias_words, shown
from advisor.overview import step_seconds
from storage.records import BiasProbe


def probe(squared=0.16, stderr=0.01, norm=1.0, **changes):
    values = {
        "run_id": "r",
        "step": 40,
        "staleness": 1,
        "correction": "clip",
        "time": 0.0,
        "shards": 16,
        "rollouts": 2048,
        "bias_squared": squared,
        "bias_squared_stderr": stderr,
        "norm_squared": norm,
        "seconds": 0.006,
    }
    return BiasProbe(**(values | changes))


def test_a_narrow_interval_is_shown_as_a_share_of_the_gradient():
    found = shown(probe())
    # t_15 = 2.131: ‖c‖² = 0.16 ± 0.0213, so 0.4 within √0.1387 = 0.372 and √0.1813 = 0.426.
    assert (found.low, found.value, found.high) == pytest.approx((0.372, 0.4, 0.426), abs=1e-3)


def test_the_limit_is_a_half_width_of_thirty_percent():
    # With ‖c‖² = 0 the interval is 0 … √(2.131·stderr): its half is 0.3 at stderr 0.1689.
    assert shown(probe(0.0, 0.168)) is not None
    assert shown(probe(0.0, 0.170)) is None


def test_a_negative_estimate_is_shown_as_no_bias_up_to_its_upper_end():
    found = shown(probe(-0.01, 0.02))
    assert found.value == 0.0
    assert found.low == 0.0
    assert found.high == pytest.approx(math.sqrt(0.0326), abs=1e-3)


@pytest.mark.parametrize(
    "changes",
    [{"norm": 0.0}, {"norm": -0.1}, {"norm": math.nan}, {"squared": math.nan}, {"squared": None}],
)
def test_what_cannot_be_a_share_is_not_shown(changes):
    assert shown(probe(**changes)) is None


def test_the_chart_has_a_curve_per_age_and_says_so_when_there_is_nothing_to_show():
    chart = clip_bias_figure([probe(), probe(step=60), probe(staleness=2), probe(stderr=1.0)])
    assert [(t["name"], t["x"]) for t in chart["data"]] == [
        ("age 1", [40, 60]),
        ("ages 2–3", [40]),
    ]
    for nothing in ([probe(stderr=1.0)], []):
        chart = clip_bias_figure(nothing)
        assert chart["data"] == []
        assert "no estimate yet" in chart["layout"]["annotations"][0]["text"]


def test_the_words_count_what_is_shown_and_tell_the_cost():
    words = clip_bias_words([probe(), probe(stderr=1.0)], 0.03)
    assert "1 of 2 estimates" in words
    assert "6 ms, 20% of a step" in words
    assert "no window" in clip_bias_words([], 0.03)
    assert "ms" not in clip_bias_words([probe()], None)


def test_a_step_takes_the_sum_of_its_parts_and_an_unmeasured_one_is_unknown():
    row = a_step("r", 0, seconds_generate=0.01, seconds_learn=0.02, seconds_measure=0.005)
    assert step_seconds([row]) == pytest.approx(0.035)
    at_once = replace(row, seconds_wait=0.001)  # generating went on beside it
    assert step_seconds([at_once]) == pytest.approx(0.026)
    assert step_seconds([a_step("r", 0)]) is None
    assert step_seconds([]) is None
