"""Journeys through the running program: real server, real trainer, real browser."""

import re
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from urllib.request import urlopen

import pytest
from browsing import (
    CHARTS_OF_A_RUN,
    MILLISECONDS,
    Dashboard,
    a_browser,
    a_dashboard,
    fill,
    plot,
    press,
    select_rows,
    step_shown,
    text_of,
    wait_for,
    wait_for_charts,
    wait_for_rest,
    watched,
)
from playwright.sync_api import Browser, Page
from processes import command

from storage.records import RunStatus
from storage.store import Store

pytestmark = pytest.mark.browser

SETTING = ("--workload", "arithmetic", "--max-staleness", "3", "--json")
ASKED_FIELDS = {  # as a browser shows it: Streamlit writes <= as one sign
    "max staleness": ("-1", "0 ≤ max_staleness ≤ 4096"),
    "steps": ("0", "1 ≤ steps ≤ 100000000"),
    "learning rate": ("a lot", "0 < learning_rate ≤ 10"),
    "clip epsilon": ("1.0", "0 < clip_epsilon < 1"),
    "prompts": ("none", "1 ≤ prompts ≤ 65536"),
    "group size": ("1", "2 ≤ group_size ≤ 4096"),
    "hidden size": ("17", "16 ≤ hidden_size ≤ 8192"),
    "layers": ("1.5", "1 ≤ layers ≤ 128"),
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with a_browser() as opened:
        yield opened


@pytest.fixture(scope="module")
def dashboard(tmp_path_factory, etalon_home: Path, archive_with_two_runs) -> Iterator[Dashboard]:
    """Serve an archive with four ended runs, two of them under other names."""
    home = tmp_path_factory.mktemp("served")
    shutil.copytree(etalon_home / "warm_starts", home / "warm_starts")
    Store.open(str(home / "etalon.db")).close()
    with a_dashboard(home, "--no-demo") as opened:
        add_runs(archive_with_two_runs.url, opened.store)
        yield opened


def add_runs(source: str, store: Store) -> None:
    """Bring the runs of another archive into this one, each twice."""
    other = Store.open(source, create=False)
    for run in other.runs():
        for run_id, name in ((run.id, run.name), (f"{run.id}x", f"{run.name} again")):
            store.create_run(replace(run, id=run_id, name=name))
            store.append_steps(replace(row, run_id=run_id) for row in other.steps(run.id))
            for evaluation in other.evaluations(run.id):
                store.append_evaluation(replace(evaluation, run_id=run_id))
            store.append_samples(replace(row, run_id=run_id) for row in other.samples(run.id))
    other.close()


@pytest.fixture
def page(browser: Browser, dashboard: Dashboard) -> Iterator[Page]:
    dashboard.errors.clear()
    opened = watched(browser, dashboard)
    yield opened
    assert not opened.get_by_test_id("stException").count()
    assert dashboard.errors == []
    opened.close()


def big_number(page: Page) -> str:
    box = page.get_by_test_id("stHtml").filter(has_text="half of the runs")
    box.wait_for()
    return box.inner_text().split("\n")[0]


def test_a_run_collapses_while_it_is_watched_and_the_page_says_so_by_itself(page, dashboard):
    words = [*SETTING, "--learning-rate", "4e-3", "--steps", "400", "--detach"]
    done = command("-m", "trainer", "run", *words, home=dashboard.home)
    run_id = re.search(r'"run_id": "([^"]+)"', done.stdout)[1]
    asked: list[str] = []
    page.on("request", lambda r: asked.append(r.url) if "/feed/" in r.url else None)
    page.goto(f"{dashboard.url}/?run={run_id}")
    wait_for(page, lambda: step_shown(page) > 0)
    wait_for(page, lambda: "collapsed" in text_of(page))
    wait_for(page, lambda: dashboard.store.run(run_id).status == RunStatus.COLLAPSED)
    wait_for(page, lambda: "the smoothed reward fell below half of its peak" in text_of(page))
    wait_for_charts(page, CHARTS_OF_A_RUN)
    marks = "plot => (plot.layout.shapes ?? []).map(s => s.label?.text)"
    wait_for(page, lambda: "collapse" in plot(page, "Reward").evaluate(marks))
    page.get_by_text("What the policy says").click()
    page.get_by_test_id("stDataFrame").first.wait_for()
    wait_for_rest(page, lambda: len(asked))  # nothing is asked for any more


def test_advice_follows_the_fields_and_a_link_gives_the_same_answer(page, browser, dashboard):
    page.goto(f"{dashboard.url}/advise")
    at_three = big_number(page)
    fill(page, "max staleness", "31")
    wait_for(page, lambda: big_number(page) != at_three)
    fill(page, "learning rate", "2e-3")
    wait_for(page, lambda: "learning_rate=2e-3" in page.url and "max_staleness=31" in page.url)
    page.get_by_text("Risk at your rate").wait_for()
    shown = big_number(page)
    other = watched(browser, dashboard)
    other.goto(page.url)
    assert big_number(other) == shown
    field = other.get_by_role("textbox", name="max staleness")
    wait_for(other, lambda: field.input_value() == "31")
    other.close()
    assert dashboard.store.recommendations() == [], "asking keeps nothing"
    page.get_by_role("button", name="Keep this answer").click()
    wait_for(page, lambda: len(dashboard.store.recommendations()) == 1)
    kept = dashboard.store.recommendations()[0].answer["max_learning_rate"]
    assert float(shown) == pytest.approx(kept, rel=0.05)


def test_a_click_in_the_map_asks_about_that_place(page, dashboard):
    page.goto(f"{dashboard.url}/advise")
    big_number(page)
    wait_for_charts(page, 3)
    area = plot(page, "Where runs fail").locator(".nsewdrag").first
    low, high = plot(page, "Where runs fail").evaluate("plot => plot.layout.xaxis.range")
    bottom, top = plot(page, "Where runs fail").evaluate("plot => plot.layout.yaxis.range")
    box = area.bounding_box()
    assert box is not None
    area.click(position={"x": box["width"] * 0.8, "y": box["height"] * 0.4})  # once it stands still
    page.get_by_text("Risk at your rate").wait_for()
    fields = [page.get_by_role("textbox", name=n) for n in ("max staleness", "learning rate")]
    wait_for(page, lambda: all(field.input_value() for field in fields))
    staleness, rate = (float(field.input_value()) for field in fields)
    # The axes are logarithmic: what was clicked is what they said there, to two digits.
    assert staleness == round(10 ** (low + 0.8 * (high - low)) - 1)
    assert rate == pytest.approx(10 ** (bottom + 0.6 * (top - bottom)), rel=0.06)


def test_four_runs_are_compared_with_a_baseline_and_the_report_opens_offline(
    page, browser, dashboard, tmp_path
):
    runs = [run for run in dashboard.store.runs() if run.config["steps"] == 300][:4]
    page.goto(f"{dashboard.url}/compare?" + "&".join(f"runs={run.id}" for run in runs))
    wait_for_charts(page, 2)
    assert len(plot(page, "batch reward").evaluate("plot => plot.data.map(t => t.name)")) >= 4
    page.get_by_role("combobox", name="Baseline").click()
    page.get_by_role("option").nth(1).click()
    headings = page.get_by_test_id("stDataFrame").locator("th")
    wait_for(page, lambda: "Δ last" in headings.all_inner_texts())
    page.locator("[data-test-script-state=notRunning]").first.wait_for()  # a report of this page
    with page.expect_download() as downloading:
        page.get_by_role("button", name="Report").click()
    report = tmp_path / "report.html"
    downloading.value.save_as(report)
    offline = browser.new_context(offline=True).new_page()
    offline.set_default_timeout(MILLISECONDS)
    complaints: list[str] = []
    offline.on("pageerror", lambda error: complaints.append(str(error)))
    offline.on("request", lambda r: r.url.startswith("file:") or complaints.append(r.url))
    offline.goto(report.as_uri())
    offline.locator(".js-plotly-plot .main-svg").nth(3).wait_for(state="attached")
    assert offline.locator("table").count() >= 3
    assert complaints == []
    offline.close()


def test_a_run_is_started_from_the_form_stopped_resumed_and_tagged(page, dashboard):
    store = dashboard.store
    known = {run.id for run in store.runs()}
    page.goto(f"{dashboard.url}/runs")
    page.get_by_text("Start a run").click()
    rate = page.get_by_role("textbox", name="learning rate", exact=True).first
    rate.fill("3e-4")
    page.get_by_role("textbox", name="steps", exact=True).first.fill("5000")
    page.get_by_text("Start a run").click()
    rate.wait_for(state="hidden")
    page.get_by_text("Start a run").click()
    rate.wait_for()
    assert rate.input_value() == "3e-4", "a half-filled form outlives its folding"
    press(page, "Start", exact=True)
    page.get_by_text("is starting").wait_for()
    (run_id,) = {run.id for run in store.runs()} - known
    wait_for(page, lambda: (store.last_step(run_id) or 0) > 5)
    page.goto(f"{dashboard.url}/runs")
    select_rows(page, 0)  # the newest
    press(page, "Stop")
    wait_for(page, lambda: store.run(run_id).status == RunStatus.STOPPED)
    stopped_at = store.last_step(run_id)
    page.goto(f"{dashboard.url}/runs")
    select_rows(page, 0)
    fill(page, "tags", "kept, edge")
    press(page, "Save")
    wait_for(page, lambda: store.tags().get(run_id) == ("edge", "kept"))
    page.goto(f"{dashboard.url}/runs")
    select_rows(page, 0)
    press(page, "Resume")
    wait_for(page, lambda: (store.last_step(run_id) or 0) > (stopped_at or 0) + 3)
    steps = store.series(run_id, ["step"])["step"]  # read at once: the run goes on
    assert steps == list(range(len(steps))), "no step is missing, none is there twice"
    page.goto(f"{dashboard.url}/runs")
    select_rows(page, 0)
    press(page, "Stop")
    wait_for(page, lambda: store.run(run_id).status == RunStatus.STOPPED)
    page.goto(f"{dashboard.url}/runs")
    select_rows(page, 0)
    press(page, "Delete")
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    wait_for(page, lambda: run_id not in {run.id for run in store.runs()})


def test_what_is_mistyped_in_either_form_gets_a_line_each_and_starts_nothing(page, dashboard):
    known, kept = dashboard.store.runs(), dashboard.store.recommendations()
    page.goto(f"{dashboard.url}/advise")
    page.get_by_text("The rest of the setting").click()
    for label, (text, _) in ASKED_FIELDS.items():
        fill(page, label, text)
    for _, allowed in ASKED_FIELDS.values():
        page.get_by_text(allowed).wait_for()
    page.goto(f"{dashboard.url}/runs")
    page.get_by_text("Start a run").click()
    page.get_by_text("More settings").click()
    for label, (text, _) in ASKED_FIELDS.items():
        page.get_by_role("textbox", name=label, exact=True).first.fill(text)
    press(page, "Start", exact=True)
    for _, allowed in ASKED_FIELDS.values():
        page.get_by_text(allowed).wait_for()
    assert [run.id for run in dashboard.store.runs()] == [run.id for run in known]
    assert dashboard.store.recommendations() == kept


def test_what_charts_need_is_announced_with_the_pages_that_have_some(dashboard):
    def announced(page):
        with urlopen(f"{dashboard.url}/{page}") as reply:
            return re.findall("<(.+?)>; rel=", reply.headers.get("link", ""))

    assert announced("runs") == []
    for page in ("", "advise", "compare", "laws"):
        script, plotly = announced(page)
        assert (script.split("?")[0], plotly) == (
            "assets/live_plot.js",
            "assets/plotly/plotly.min.js",
        )
        for address in (script, plotly):
            with urlopen(f"{dashboard.url}/{address}") as reply:
                assert reply.status == 200
