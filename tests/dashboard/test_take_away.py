"""What Compare gives to take away: a report that opens offline, curves as CSV and Parquet."""

import csv
import io
import json
import math
from html.parser import HTMLParser

import pyarrow.parquet
import pytest
from factories import a_config, a_run, a_step, fill
from states import fill_evidence, healthy

from advisor.compare import by_run, differing_configuration
from advisor.dashboard.curves import WATCHED
from advisor.dashboard.export import curves_as, overlay, report
from advisor.drawing import figure, traces
from advisor.report import STYLE, html_report

NASTY = "</script><img src=x onerror=alert(1)>&'\""


class Opened(HTMLParser):
    """A page as a browser would take it apart."""

    def __init__(self, page):
        super().__init__()
        self.tags, self.text, self.scripts, self._inside = [], [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self._inside.append(tag)
        if tag == "script":
            self.scripts.append("")

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if self._inside and self._inside[-1] == "script":
            self.scripts[-1] += data
        elif not (self._inside and self._inside[-1] == "style"):
            self.text.append(data)

    @property
    def figures(self):
        return json.loads(self.scripts[1])


def loads_nothing(page):
    """Whether a page is whole in itself: nothing that a browser fetches on opening it."""
    fetching = {"link", "img", "iframe", "object", "embed", "base", "audio", "video", "source"}
    return not fetching & {tag for tag, _ in page.tags} and not any(
        {"src", "href", "srcset", "data", "action"} & set(attributes)
        or any(name.startswith("on") for name in attributes)
        for _, attributes in page.tags
    )


def a_chart(label):
    return figure(label, traces([0, 1, 2], [0.1, None, 0.3], label), "y")


def test_a_report_is_one_file_that_needs_no_network(archive):
    good, bold = fill_evidence(archive)
    labels = {good.id: "survivor", bold.id: "too bold"}
    tables = {"What differs": by_run(differing_configuration([good, bold]), "setting", labels)}
    page = Opened(report(archive, labels, tables, ["reward_mean", "entropy"], "step").decode())
    assert loads_nothing(page)
    assert "url(" not in STYLE
    assert "@import" not in STYLE
    assert len(page.scripts) == 3
    assert len(page.scripts[0]) > 1_000_000  # plotly.js itself, which draws the charts
    text = " ".join(page.text)
    assert "Comparison of 2 runs" in text
    assert "survivor, too bold" in text
    assert "0.0002" in text
    assert "0.004" in text
    both = [good, bold]
    drawn = [overlay(archive, both, labels, name, "step") for name in ("reward_mean", "entropy")]
    assert page.figures == json.loads(json.dumps(drawn))
    places = [a["id"] for _, a in page.tags if a.get("id", "").startswith("chart-")]
    assert places == ["chart-0", "chart-1"]


def test_what_looks_like_markup_is_text_in_a_report():
    page = Opened(
        html_report(
            title=NASTY,
            opening=f"Runs: {NASTY}",
            tables={NASTY: [{"run": NASTY, NASTY: NASTY}]},
            figures=[a_chart(NASTY)],
            plotly_js="const plotly = 1;",
        )
    )
    assert loads_nothing(page)
    assert {tag for tag, _ in page.tags} <= {
        *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "div"),
        *("table", "tr", "th", "td", "footer", "script"),
    }
    assert page.text.count(NASTY) == 6  # both titles, both headings of the table, its two cells
    assert page.figures == [json.loads(json.dumps(a_chart(NASTY)))]
    assert len(page.scripts) == 3
    (label,) = [a["aria-label"] for _, a in page.tags if "aria-label" in a]
    assert label == NASTY


def test_names_and_settings_of_runs_are_text_in_a_report_too(archive):
    runs = [healthy(NASTY), healthy("plain", a_config(seed=1))]
    for run in runs:
        run.config["note"] = f"{run.name} {NASTY}"
        fill(archive, run, steps=21)
    labels = {run.id: run.name for run in runs}
    tables = {"What differs": by_run(differing_configuration(runs), "setting", labels)}
    page = Opened(report(archive, labels, tables, ["reward_mean"], "step").decode())
    assert loads_nothing(page)
    assert len(page.scripts) == 3
    assert f"plain {NASTY}" in page.text
    name = page.figures[0]["data"][0]["name"]
    assert "<" not in name  # Plotly reads a little HTML
    assert name.startswith("&lt;/script&gt;")


def test_an_empty_table_says_so_and_a_report_without_charts_is_whole():
    page = Opened(html_report(title="x", opening="y", tables={"z": []}, figures=[], plotly_js=""))
    assert "Nothing." in page.text
    assert page.figures == []


def test_a_metric_that_no_run_measured_is_no_chart_in_a_report(archive):
    good, bold = fill_evidence(archive)
    labels = {good.id: "survivor", bold.id: "too bold"}
    assert overlay(archive, [good, bold], labels, "gold_reward_mean", "step") is None
    page = Opened(report(archive, labels, {}, ["gold_reward_mean", "entropy"], "step").decode())
    assert [each["layout"]["title"]["text"] for each in page.figures] == ["Entropy"]


# -- curves -----------------------------------------------------------------------------------


@pytest.fixture
def runs(store):
    """Two runs of different length, with what was not measured and what is not finite."""
    one, two = a_run(name='one, "quoted"\nand broken'), a_run(name="two")
    for run in (one, two):
        store.create_run(run)
    store.append_step(a_step(one.id, 0, reward_mean=0.1 + 0.2, approx_kl=None))
    store.append_step(a_step(one.id, 1, reward_mean=math.nan, approx_kl=1e-300))
    store.append_step(a_step(two.id, 5, reward_mean=None, approx_kl=0.0, sampled_at_step=3))
    return [one, two]


def same(found, stored):
    both = found is not None and stored is not None
    return found == stored or (both and math.isnan(found) and math.isnan(stored))


def test_parquet_gives_back_every_value_and_keeps_missing_and_nan_apart(store, runs):
    table = pyarrow.parquet.read_table(io.BytesIO(curves_as("parquet", store, runs)))
    names = [name for name in WATCHED if name != "time"]
    assert table.column_names == ["run", "name", *names]
    rows = table.to_pylist()
    assert [(row["run"], row["name"]) for row in rows] == [
        (runs[0].id, runs[0].name),
        (runs[0].id, runs[0].name),
        (runs[1].id, "two"),
    ]
    for name in names:
        stored = [v for run in runs for v in store.series(run.id, [name])[name]]
        assert all(map(same, (row[name] for row in rows), stored)), name
    assert rows[0]["approx_kl"] is None
    assert math.isnan(rows[1]["reward_mean"])
    assert rows[2]["reward_mean"] is None


def test_csv_gives_back_every_value_and_keeps_missing_and_nan_apart(store, runs):
    rows = list(csv.DictReader(io.StringIO(curves_as("csv", store, runs).decode(), newline="")))
    assert [(row["run"], row["name"], row["step"]) for row in rows] == [
        (runs[0].id, runs[0].name, "0"),
        (runs[0].id, runs[0].name, "1"),
        (runs[1].id, "two", "5"),
    ]
    assert float(rows[0]["reward_mean"]) == 0.1 + 0.2  # every digit
    assert [row["reward_mean"] for row in rows[1:]] == ["nan", ""]
    assert [row["approx_kl"] for row in rows] == ["", "1e-300", "0"]
    assert [row["sampled_at_step"] for row in rows] == ["", "", "3"]
    assert [row["entropy"] for row in rows] == ["", "", ""]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_runs_without_a_step_give_a_table_without_rows(store, form):
    run = a_run()
    store.create_run(run)
    written = curves_as(form, store, [run])
    if form == "csv":
        assert list(csv.DictReader(io.StringIO(written.decode()))) == []
    else:
        assert pyarrow.parquet.read_table(io.BytesIO(written)).num_rows == 0
