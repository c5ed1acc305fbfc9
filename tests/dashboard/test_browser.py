"""One journey through the running program: real server, real trainer, real browser."""

import re
import shutil
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, Route, sync_playwright
from processes import ended, start, wait_until

from advisor.serve import free_port
from storage.records import RunStatus
from storage.store import Store
from trainer.launch import stop

pytestmark = [pytest.mark.browser, pytest.mark.timeout(600)]  # its fixtures train two runs

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PATIENCE = 60_000
"""Milliseconds that a page may take on a busy machine."""
CHARTS_OF_A_RUN = 13
ROW, CHECKBOX = 35, 17
"""Height of a table row, and where in it the box lies that selects it; in pixels."""


@dataclass
class Dashboard:
    """A running server with an archive of its own, and what went wrong in the browser."""

    url: str
    store: Store
    errors: list[str] = field(default_factory=list)


@pytest.fixture
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, NAMES)), None)
        if found is None and not Path(playwright.chromium.executable_path).exists():
            pytest.fail(
                "no browser was found: install chromium (sudo apt-get install chromium), "
                "or run tools/browser.sh, as `make test` does"
            )
        opened = playwright.chromium.launch(executable_path=found, args=ARGUMENTS)
        yield opened
        opened.close()


@pytest.fixture
def dashboard(tmp_path: Path, etalon_home: Path) -> Iterator[Dashboard]:
    """Serve a home that knows the warm start and has no archive yet, as after an installation."""
    shutil.copytree(etalon_home / "warm_starts", tmp_path / "warm_starts")
    port = free_port(8700)
    server = start("-m", "advisor.serve", "--port", str(port), home=tmp_path)
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: server.poll() is not None or answers(f"{url}/_stcore/health"))
    store = Store.open(str(tmp_path / "etalon.db"), create=False)
    yield Dashboard(url=url, store=store)
    for run in store.runs():
        stop(store, run.id)
    wait_until(lambda: not any(run.status.alive for run in store.runs()))
    store.close()
    server.terminate()
    printed = ended(server, timeout=30)
    logs = "\n".join(log.read_text() for log in (tmp_path / "logs").iterdir())
    said = printed.stdout + printed.stderr + logs
    assert "demonstration run" in printed.stdout
    assert not re.search(r"traceback|exception|locked|error", said, re.IGNORECASE), said


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def watched(browser: Browser, dashboard: Dashboard) -> Page:
    """Open a page whose every complaint is kept."""
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(PATIENCE)
    page.on("pageerror", lambda error: dashboard.errors.append(f"page error: {error}"))
    page.on("requestfailed", lambda r: dashboard.errors.append(f"failed: {r.url} {r.failure}"))
    page.on("response", lambda r: r.ok or dashboard.errors.append(f"{r.status}: {r.url}"))
    page.on(
        "console",
        lambda said: (
            dashboard.errors.append(f"console: {said.text}") if said.type == "error" else None
        ),
    )
    return page


def step_shown(page: Page) -> int:
    """The learner step in the header of Watch, -1 before there is one."""
    found = re.search(r"step ([\d,]+) of", page.locator("[data-testid=stMain]").inner_text())
    return int(found[1].replace(",", "")) if found else -1


def wait_for(page: Page, true: Callable[[], bool]) -> None:
    """Wait as ``wait_until`` does, and let the browser work meanwhile."""
    for _ in range(PATIENCE // 100):
        if true():
            return
        page.wait_for_timeout(100)
    raise AssertionError("it did not happen in time")


def late(route: Route) -> None:
    """Let plotly.js come late, so that several refreshes wait for it and none may be in the way."""
    route.request.frame.page.wait_for_timeout(4000)
    route.continue_()


def go_to(page: Page, name: str) -> None:
    page.get_by_role("link", name=name, exact=True).click()


def plot(page: Page, title: str) -> Locator:
    return page.locator(f".etalon-plot[aria-label^='{title}']")


def wait_for_charts(page: Page, count: int) -> None:
    drawn = page.locator(".js-plotly-plot:has(.main-svg)")
    drawn.nth(count - 1).wait_for(state="attached")


def range_of(page: Page, title: str) -> list[float]:
    return [round(x, 3) for x in plot(page, title).evaluate("plot => plot.layout.xaxis.range")]


def last_step_of(page: Page, title: str) -> float:
    return float(plot(page, title).evaluate("plot => plot.data.at(-1).x.at(-1)"))


def see_a_run_move(page: Page) -> None:
    wait_for(page, lambda: step_shown(page) > 20)
    seen = step_shown(page)
    wait_for(page, lambda: step_shown(page) > seen)
    wait_for_charts(page, CHARTS_OF_A_RUN)
    assert page.get_by_text("The chart cannot be drawn").all_inner_texts() == []


def zoom_and_keep_it(page: Page) -> None:
    title = "Raw gradient norm"
    plot(page, title).scroll_into_view_if_needed()
    box = plot(page, title).locator(".nsewdrag").first.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=4)
    page.mouse.up()
    wait_for(page, lambda: range_of(page, title)[0] > 0)  # the axis started at 0
    zoomed, last = range_of(page, title), last_step_of(page, title)
    wait_for(page, lambda: last_step_of(page, title) > last)
    assert range_of(page, title) == zoomed


def add_runs(source: str, store: Store) -> None:
    """Bring the runs of another archive into this one."""
    other = Store.open(source, create=False)
    for run in other.runs():
        store.create_run(run)
        for row in other.steps(run.id):
            store.append_step(row)
        for evaluation in other.evaluations(run.id):
            store.append_evaluation(evaluation)
    other.close()


def ask_for_advice(page: Page, store: Store) -> None:
    go_to(page, "Advise")
    page.get_by_role("button", name="Advise").click()
    value = page.get_by_test_id("stMetric").filter(has_text="Largest safe learning rate")
    shown = value.get_by_test_id("stMetricValue").inner_text()
    largest = store.recommendations()[0].answer["max_learning_rate"]
    assert float(shown) == pytest.approx(largest, rel=0.05)
    wait_for_charts(page, 3)


def compare(page: Page) -> None:
    go_to(page, "Compare")  # the two runs that have ended are chosen
    differs = page.get_by_test_id("stDataFrame").first.locator("td")
    differs.nth(2).wait_for(state="attached")
    assert differs.all_inner_texts()[0] == "learning rate"
    assert set(differs.all_inner_texts()[1:]) == {"0.0002", "0.004"}
    wait_for_charts(page, 1)


def start_a_run(page: Page, store: Store) -> str:
    go_to(page, "Runs")
    known = {run.id for run in store.runs()}
    page.get_by_text("Start a run").click()
    page.get_by_role("textbox", name="learning rate").fill("3e-4")
    page.get_by_role("textbox", name="steps", exact=True).fill("5000")
    page.get_by_role("button", name="Start", exact=True).click()
    page.get_by_text("is starting").wait_for()
    (run_id,) = {run.id for run in store.runs()} - known
    page.get_by_role("link", name="Watch it").click()
    wait_for(page, lambda: step_shown(page) > 0)
    assert f"run={run_id}" in page.url
    assert store.run(run_id).config["learning_rate"] == 3e-4
    return run_id


def select_first_row(page: Page) -> None:
    """Click the box of the newest run; the table is a canvas, so by its place."""
    page.get_by_test_id("stDataFrame").locator("canvas").first.wait_for()
    page.get_by_test_id("stDataFrame").locator("td").first.wait_for(state="attached")
    box = page.get_by_test_id("stDataFrame").bounding_box()
    assert box is not None
    page.mouse.click(box["x"] + CHECKBOX, box["y"] + ROW + ROW / 2)


def stop_and_archive(page: Page, store: Store, run_id: str) -> None:
    go_to(page, "Runs")
    select_first_row(page)  # the newest
    page.get_by_role("button", name="Stop").click()
    wait_for(page, lambda: store.run(run_id).status == RunStatus.STOPPED)
    page.get_by_role("button", name="Archive", exact=True).click()
    wait_for(page, lambda: store.run(run_id).archived)
    page.get_by_text("Select a row").wait_for()  # nothing is selected in the rows that are left
    assert not any(run.archived for run in store.runs() if run.id != run_id)


def test_a_journey_from_the_first_page_to_an_archived_run(
    browser, dashboard, archive_with_two_runs
):
    page = watched(browser, dashboard)
    page.route("**/plotly.min.js", late)
    page.goto(dashboard.url)
    see_a_run_move(page)
    zoom_and_keep_it(page)
    add_runs(archive_with_two_runs.url, dashboard.store)
    ask_for_advice(page, dashboard.store)
    compare(page)
    run_id = start_a_run(page, dashboard.store)
    stop_and_archive(page, dashboard.store, run_id)
    assert not page.get_by_test_id("stException").count()
    assert dashboard.errors == []
