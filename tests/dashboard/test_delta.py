"""What a live chart is sent: tails of curves that turn the old drawing into the new one."""

import json
import math
import random
import re
import shutil
import subprocess

import pytest
from processes import PATIENCE

from advisor.dashboard.curves import WATCHED
from advisor.dashboard.live_plot import ASSETS
from advisor.drawing import EXTREMES, MEANS, POINTS, delta, figure, mark, traces
from advisor.figures import run_figures

LENGTHS = [0, 1, 2, 60, POINTS, POINTS + 1, 299, 300, 301, 600, 601, 640, 1200, 1201, 4800, 4900]
"""Over a curve that is drawn as it is to one whose buckets have doubled four times."""


def applied(shown, change):
    """Apply a delta as ``changed`` in live_plot.js does, after the way over the network."""
    change = json.loads(json.dumps(change, allow_nan=False))
    if "figure" in change:
        return change["figure"]
    data = [
        {
            **trace,
            "x": trace["x"][: tail["keep"]] + tail["x"],
            "y": trace["y"][: tail["keep"]] + tail["y"],
        }
        for trace, tail in zip(shown["data"], change["tails"], strict=True)
    ]
    return {"data": data, "layout": change.get("layout", shown["layout"])}


def a_long_run(steps, seed):
    """Columns of a run with spikes, gaps, sparse metrics and numbers that are not finite."""
    chance = random.Random(seed)
    columns = {name: [chance.gauss(1, 0.1) for _ in range(steps)] for name in WATCHED}
    columns["step"] = list(range(steps))
    columns["sampled_at_step"] = [max(0, t - t % 4) for t in range(steps)]
    columns["kl_to_start"] = [0.01 * t if t % 5 == 4 else None for t in range(steps)]
    columns["gold_reward_mean"] = [None] * steps
    for place in chance.sample(range(steps), steps // 50):
        columns["grad_norm"][place] = chance.choice([math.nan, math.inf, None, 1e9])
    columns["entropy"][100:400] = [None] * len(columns["entropy"][100:400])
    return columns


def drawn(columns, length, collapse_step=None):
    known = {name: values[:length] for name, values in columns.items()}
    evaluations = [(t, 0.8) for t in range(0, length, 25)]
    return run_figures(known, evaluations, collapse_step, unmeasured={}, cycle=4)


@pytest.mark.parametrize("seed", range(3))
def test_the_old_drawing_with_its_changes_is_the_new_drawing(seed):
    columns = a_long_run(max(LENGTHS), seed)
    shown = drawn(columns, 0)
    for length in LENGTHS:
        new = drawn(columns, length)
        shown = {name: applied(shown[name], delta(shown[name], new[name])) for name in new}
        assert shown == new, length


@pytest.mark.parametrize("seed", range(3))
def test_it_also_holds_step_by_step_over_a_doubling_of_the_buckets(seed):
    columns = a_long_run(630, seed)
    shown = drawn(columns, 590)
    for length in range(591, 630, 3):
        new = drawn(columns, length)
        shown = {name: applied(shown[name], delta(shown[name], new[name])) for name in new}
        assert shown == new, length


def test_a_run_that_was_taken_back_and_a_window_that_moves_are_followed_too():
    columns = a_long_run(900, seed=0)
    other = a_long_run(900, seed=1)
    for old, new in [
        (drawn(columns, 900), drawn(columns, 500)),
        (drawn(columns, 900), drawn(other, 900)),
        (
            drawn({name: v[:200] for name, v in columns.items()}, 200),
            drawn({name: v[20:220] for name, v in columns.items()}, 200),
        ),
    ]:
        assert {name: applied(old[name], delta(old[name], new[name])) for name in new} == new


def test_a_curve_that_has_grown_by_a_few_points_sends_a_tail_only():
    # 4900 points in buckets of 64 (extremes) and 64 (means of cycles of 4): few of them change.
    columns = a_long_run(4904, seed=0)
    old, new = drawn(columns, 4900)["ess"], drawn(columns, 4904)["ess"]
    change = delta(old, new)
    whole = sum(len(trace["x"]) for trace in new["data"])
    sent = sum(len(tail["x"]) for tail in change["tails"])
    assert len(change["tails"]) == 4  # extremes and means, of two metrics
    assert whole > (EXTREMES + MEANS) / 4
    assert 0 < sent <= 12
    assert len(json.dumps(change)) < len(json.dumps(new)) / 10


def test_what_has_not_changed_sends_nothing():
    chart = drawn(a_long_run(500, seed=0), 500)["kl"]
    change = delta(chart, chart)
    assert "layout" not in change
    assert all(tail["x"] == tail["y"] == [] for tail in change["tails"])


def test_a_layout_that_has_changed_is_sent_with_the_tails():
    columns = a_long_run(500, seed=0)
    old, new = drawn(columns, 500)["reward"], drawn(columns, 500, collapse_step=40)["reward"]
    change = delta(old, new)
    assert change["layout"] == new["layout"] != old["layout"]
    assert all(tail["x"] == [] for tail in change["tails"])
    assert applied(old, change) == new


def test_a_mark_that_is_made_later_does_not_change_what_was_remembered():
    chart = figure("a chart", traces([0, 1], [0.1, 0.2], "x"), "y")
    before = json.loads(json.dumps(chart))
    other = json.loads(json.dumps(chart))
    mark(other, 1, 1, "collapse")
    assert delta(chart, other)["layout"]["shapes"]
    assert chart == before


@pytest.mark.parametrize(
    "other",
    [
        traces([0, 1], [1.0, 2.0], "another name"),
        traces([0, 1], [1.0, 2.0], "x", 1),  # another pen
        traces([0, 1], [1.0, 2.0], "x") + traces([0, 1], [1.0, 2.0], "second"),
        [],
    ],
)
def test_other_traces_send_the_whole_figure(other):
    old = figure("a chart", traces([0], [1.0], "x"), "y")
    new = figure("a chart", other, "y")
    assert delta(old, new) == {"figure": new}
    assert applied(old, delta(old, new)) == new


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node, to run the page's script")
def test_the_page_applies_changes_as_this_test_does():
    columns = a_long_run(700, seed=0)
    pairs = [
        [old[name], delta(old[name], new[name])]
        for old, new in (
            (drawn(columns, 200), drawn(columns, 230)),
            (drawn(columns, 590), drawn(columns, 640)),
            (drawn(columns, 270), drawn(columns, 290)),
            (drawn(columns, 640), drawn(columns, 640, collapse_step=9)),
        )
        for name in new
    ]
    script = (ASSETS / "live_plot.js").read_text()
    function = re.search(r"^function changed\(.*?^}", script, re.DOTALL | re.MULTILINE).group()
    apply = "JSON.parse(require('fs').readFileSync(0)).map(([f, change]) => changed(f, change))"
    done = subprocess.run(
        ["node", "-e", f"{function}\nconsole.log(JSON.stringify({apply}))"],
        input=json.dumps(pairs),
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    assert json.loads(done.stdout) == [applied(old, change) for old, change in pairs]
