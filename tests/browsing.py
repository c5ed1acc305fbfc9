"""A real server with an archive of its own, and a real browser that looks at it."""

import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Locator, Page, sync_playwright
from processes import PATIENCE, ended, own_port, start, wait_until

from storage.store import Store
from trainer.launch import stop

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
MILLISECONDS = 1000 * PATIENCE
"""That a page may take on a busy machine."""
LEFT = "net::ERR_ABORTED"
"""What is still on its way when a page is left."""
CHARTS_OF_A_RUN = 13
ROW, CHECKBOX = 35, 17
"""Height of a table row, and where in it the box lies that selects it; in pixels."""


@dataclass
class Dashboard:
    """A running server with an archive of its own, and what went wrong in the browser."""

    url: str
    store: Store
    home: Path
    errors: list[str] = field(default_factory=list)


@contextmanager
def a_browser() -> Iterator[Browser]:
    """Open a browser, the system's if there is one."""
    with sync_playwright() as playwright:
        found = next(filter(None, map(shutil.which, NAMES)), None)
        if found is None and not Path(playwright.chromium.executable_path).exists():
            pytest.fail(
                "no browser was found: install chromium (sudo apt-get install chromium), "
                "or run tools/browser.sh, as `make test` does"
            )
        opened = playwright.chromium.launch(
            executable_path=found, args=ARGUMENTS, timeout=MILLISECONDS
        )
        yield opened
        opened.close()


@contextmanager
def a_dashboard(
    home: Path, *words: str, program: Sequence[str] = ("-m", "advisor.serve")
) -> Iterator[Dashboard]:
    """Serve a home; at the end stop its runs, and look for complaints in what was printed."""
    with own_port() as port:
        server = start(*program, "--port", str(port), *words, home=home)
        url = f"http://127.0.0.1:{port}"
        wait_until(lambda: server.poll() is not None or answers(f"{url}/_stcore/health"))
        store = Store.open(str(home / "etalon.db"), create=False)
        yield Dashboard(url=url, store=store, home=home)
        for run in store.runs():
            if run.pid is not None:
                stop(store, run.id)
        wait_until(lambda: not any(run.status.alive and run.pid for run in store.runs()))
        store.close()
        server.terminate()
        printed = ended(server)
    logs = "\n".join(log.read_text() for log in (home / "logs").iterdir())
    said = printed.stdout + printed.stderr + logs
    assert not re.search(r"traceback|exception|locked|error", said, re.IGNORECASE), said


def answers(url: str) -> bool:
    """Whether a server answers."""
    try:
        with urllib.request.urlopen(url, timeout=20) as reply:
            return bool(reply.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def watched(browser: Browser, dashboard: Dashboard) -> Page:
    """Open a page whose every complaint is kept.

    Where a link leads below the root, Streamlit itself looks for its server there first.
    """
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    page.set_default_timeout(MILLISECONDS)
    keep = dashboard.errors.append
    page.on("pageerror", lambda error: keep(f"page error: {error}"))
    page.on("requestfailed", lambda r: r.failure == LEFT or keep(f"failed: {r.url} {r.failure}"))
    page.on("response", lambda r: r.ok or "/_stcore/" in r.url or keep(f"{r.status}: {r.url}"))
    page.on(
        "console",
        lambda said: (
            keep(f"console: {said.text} {said.location}")
            if said.type == "error" and "/_stcore/" not in str(said.location)
            else None
        ),
    )
    return page


def wait_for(page: Page, true: Callable[[], bool]) -> None:
    """Wait as ``wait_until`` does, and let the browser work meanwhile."""
    until = time.monotonic() + PATIENCE
    while not true():
        assert time.monotonic() < until, "it did not happen in time"
        page.wait_for_timeout(100)


def wait_for_rest(page: Page, seen: Callable[[], object], seconds: float = 5.0) -> None:
    """Wait until something that would change has not changed for so many seconds."""
    until = time.monotonic() + PATIENCE
    before, since = seen(), time.monotonic()
    while time.monotonic() - since < seconds:
        assert time.monotonic() < until, "it goes on and on"
        page.wait_for_timeout(100)
        if (now := seen()) != before:
            before, since = now, time.monotonic()


def press(page: Page, name: str, *, exact: bool = False) -> None:
    """Click the button of this name once the script of the page has not run for a second.

    Where a click meets a script that runs, Streamlit loses one of sixty on a busy machine.
    """
    app = page.get_by_test_id("stApp")
    wait_for_rest(page, lambda: app.get_attribute("data-test-script-state"), 1.0)
    wait_for(page, lambda: app.get_attribute("data-test-script-state") == "notRunning")
    page.get_by_role("button", name=name, exact=exact).click()


def text_of(page: Page) -> str:
    """Return what a page shows."""
    return page.locator("[data-testid=stMain]").inner_text()


def step_shown(page: Page) -> int:
    """Return the learner step in the header of Watch, -1 before there is one."""
    found = re.search(r"step ([\d,]+)(?: of|\s)", text_of(page))
    return int(found[1].replace(",", "")) if found else -1


def go_to(page: Page, name: str) -> None:
    """Follow the navigation."""
    page.get_by_role("link", name=name, exact=True).click()


def plot(page: Page, title: str) -> Locator:
    """Return the chart whose description begins so."""
    return page.locator(f".etalon-plot[aria-label^='{title}']")


def wait_for_charts(page: Page, count: int) -> None:
    """Wait until so many charts are drawn."""
    page.locator(".js-plotly-plot:has(.main-svg)").nth(count - 1).wait_for(state="attached")


def range_of(page: Page, title: str) -> list[float]:
    """Return the range of a chart's x axis."""
    return [round(x, 3) for x in plot(page, title).evaluate("plot => plot.layout.xaxis.range")]


def last_step_of(page: Page, title: str) -> float:
    """Return the newest x of a chart's last curve."""
    return float(plot(page, title).evaluate("plot => plot.data.at(-1).x.at(-1)"))


def fill(page: Page, label: str, text: str) -> None:
    """Type into a field and leave it."""
    box = page.get_by_role("textbox", name=label, exact=True).first
    box.fill(text)
    box.press("Enter")


def select_rows(page: Page, *rows: int) -> None:
    """Click the boxes of some rows; the table is a canvas, so by their place."""
    table = page.get_by_test_id("stDataFrame").first
    table.locator("td").first.wait_for(state="attached")
    for row in rows:
        place = {"x": CHECKBOX, "y": ROW * (row + 1) + ROW / 2}
        table.locator(".dvn-scroller").click(position=place)  # once it stands still
        table.locator(f"tr[aria-rowindex='{row + 2}'][aria-selected=true]").wait_for(
            state="attached"
        )
