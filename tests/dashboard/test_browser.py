"""The first visit: an installation whose archive is empty, watched for a while."""

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from browsing import (
    CHARTS_OF_A_RUN,
    Dashboard,
    a_browser,
    a_dashboard,
    last_step_of,
    plot,
    range_of,
    step_shown,
    text_of,
    wait_for,
    wait_for_charts,
    wait_for_rest,
    watched,
)
from playwright.sync_api import Page, Route

pytestmark = pytest.mark.browser

ZOOMED = "Raw gradient norm"
WATCHED_SECONDS = 10
"""Five refreshes of the page, ten of its charts."""
LONGER = """
import sys
from advisor.serve import DEMONSTRATION, main
from storage.commandline import run_command
DEMONSTRATION["steps"] = 1_000_000
sys.exit(run_command(main, sys.argv[1:]))
"""
"""The program, whose demonstration shall not end while it is looked at, however slowly."""


@pytest.fixture
def dashboard(tmp_path: Path, etalon_home: Path) -> Iterator[Dashboard]:
    """Serve a home that knows the warm start and has no archive yet, as after an installation."""
    shutil.copytree(etalon_home / "warm_starts", tmp_path / "warm_starts")
    with a_dashboard(tmp_path, program=("-c", LONGER)) as opened:
        yield opened


def late(route: Route) -> None:
    """Let plotly.js come late, so that several refreshes wait for it and none may be in the way."""
    route.request.frame.page.wait_for_timeout(4000)
    route.continue_()


def see_a_run_move(page: Page) -> None:
    wait_for(page, lambda: step_shown(page) > 20)
    seen = step_shown(page)
    wait_for(page, lambda: step_shown(page) > seen)
    wait_for_charts(page, CHARTS_OF_A_RUN)
    assert page.get_by_text("The chart cannot be drawn").all_inner_texts() == []


def top_of(page: Page, title: str) -> float:
    """Where a chart lies in the window, in pixels from its top."""
    box = plot(page, title).bounding_box()
    assert box is not None
    return box["y"]


def legend(page: Page, title: str) -> set[tuple[str, object]]:
    """Which curves of a chart are shown."""
    shown = plot(page, title).evaluate("plot => plot._fullData.map(t => [t.name, t.visible])")
    return {(name, visible) for name, visible in shown}


def hide_second_curve(page: Page, title: str) -> None:
    plot(page, title).locator(".legendtoggle").nth(1).click()
    wait_for(page, lambda: any(visible == "legendonly" for _, visible in legend(page, title)))


def zoom(page: Page) -> list[float]:
    plot(page, ZOOMED).scroll_into_view_if_needed()
    box = plot(page, ZOOMED).locator(".nsewdrag").first.bounding_box()
    assert box is not None
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] * 0.2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] * 0.6, middle, steps=4)
    page.mouse.up()
    wait_for(page, lambda: range_of(page, ZOOMED)[0] > 0)  # the axis started at 0
    return range_of(page, ZOOMED)


def test_a_first_visit_shows_a_living_run_and_nothing_the_reader_did_is_lost(browser, dashboard):
    page = watched(browser, dashboard)
    sizes: list[int] = []
    page.on(
        "response",
        lambda r: sizes.append(int(r.headers["content-length"])) if "/feed/" in r.url else None,
    )
    loads: list[str] = []
    page.on("request", lambda r: loads.append(r.url) if "plotly.min.js" in r.url else None)
    page.route("**/plotly.min.js", late)
    page.goto(dashboard.url)
    see_a_run_move(page)

    page.get_by_text("Where these numbers come from").click()
    hide_second_curve(page, "Active clipping")
    zoomed = zoom(page)
    place = top_of(page, ZOOMED)
    last, begun = last_step_of(page, ZOOMED), step_shown(page)
    page.wait_for_timeout(1000 * WATCHED_SECONDS)

    wait_for(page, lambda: last_step_of(page, ZOOMED) > last)  # new points arrive
    wait_for(page, lambda: step_shown(page) > begun)
    assert range_of(page, ZOOMED) == zoomed
    assert abs(top_of(page, ZOOMED) - place) < 10, "what is looked at stays where it is"
    assert "clip criterion" in text_of(page), "the expander is still open"
    assert legend(page, "Active clipping") == {
        ("clipped low", True),
        ("clipped high", "legendonly"),
    }, "the legend is as it was left"
    assert len(loads) == 1, "plotly.js comes once"
    assert len(sizes) > 3
    assert max(sizes) < 50_000

    page.get_by_text("Pause", exact=True).click()
    wait_for_rest(page, lambda: (step_shown(page), len(sizes)))
    assert re.search(r"run=\d{8}-", page.url), "the address leads to this run"
    assert not page.get_by_test_id("stException").count()
    assert dashboard.errors == []


@pytest.fixture
def browser() -> Iterator[object]:
    with a_browser() as opened:
        yield opened
