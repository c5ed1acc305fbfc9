"""The archive goes away while it is looked at, and comes back."""

import pytest
from browsing import (
    CHARTS_OF_A_RUN,
    a_browser,
    a_dashboard,
    step_shown,
    text_of,
    wait_for,
    wait_for_charts,
    watched,
)
from factories import a_step
from factories import fill as fill_run
from states import live

from storage.records import RunStatus
from storage.store import Store

pytestmark = pytest.mark.browser


def test_the_database_disappears_and_comes_back(tmp_path):
    Store.open(str(tmp_path / "etalon.db")).close()
    with a_browser() as browser, a_dashboard(tmp_path, "--no-demo") as dashboard:
        look(watched(browser, dashboard), dashboard)
        assert [error for error in dashboard.errors if not is_an_answer_that_is_due(error)] == []


def is_an_answer_that_is_due(error):
    """A chart that asks for its newest points while the archive is away is told so: 503."""
    return "/feed/" in error and "503" in error


def look(page, dashboard):
    store = dashboard.store
    run = live(id="20991231-235959-000000")
    fill_run(store, run, steps=40)
    page.goto(f"{dashboard.url}/?run={run.id}")
    wait_for(page, lambda: step_shown(page) == 40)
    wait_for_charts(page, CHARTS_OF_A_RUN)
    files = [dashboard.home / f"etalon.db{end}" for end in ("", "-wal", "-shm")]
    for file in files:
        file.rename(file.with_name(f"away-{file.name}"))
    wait_for(page, lambda: "The archive cannot be read" in text_of(page))
    assert page.locator(".js-plotly-plot:has(.main-svg)").count() >= CHARTS_OF_A_RUN
    page.wait_for_timeout(3000)
    assert not files[0].exists(), "nobody made an empty one in its place"
    for file in reversed(files):  # whoever finds the archive without its log begins another
        file.with_name(f"away-{file.name}").rename(file)
    store.append_step(a_step(run.id, 40))
    wait_for(page, lambda: step_shown(page) == 41)
    wait_for(page, lambda: "The archive cannot be read" not in text_of(page))
    store.update_run(run.id, status=RunStatus.FINISHED)
