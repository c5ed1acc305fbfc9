"""With a login: who is let in, and what a viewer can and cannot do, in a real browser."""

import pytest
from browsing import MILLISECONDS, a_browser, go_to, select_rows, text_of, wait_for

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def browser():
    with a_browser() as opened:
        yield opened


@pytest.fixture
def logged_in(browser, locked):
    """Give a function that logs somebody in and returns their page."""
    contexts = []

    def visit(who):
        contexts.append(browser.new_context(viewport={"width": 1280, "height": 800}))
        page = contexts[-1].new_page()
        page.set_default_timeout(MILLISECONDS)
        page.goto(locked.url)
        page.get_by_role("button", name="Log in").click()
        page.get_by_role("link", name=who).click()
        page.get_by_role("link", name="Runs", exact=True).wait_for()
        return page

    yield visit
    for each in contexts:
        each.close()


def test_who_has_not_logged_in_sees_nothing_but_the_login(browser, locked):
    page = browser.new_page()
    page.set_default_timeout(MILLISECONDS)
    page.goto(f"{locked.url}/watch?run={locked.run_id}")
    page.get_by_role("button", name="Log in").wait_for()
    assert locked.run_id not in page.content()
    assert "the only run" not in page.content()
    page.close()


def test_a_viewer_sees_the_runs_and_is_offered_no_way_to_change_them(logged_in, locked):
    page = logged_in("vera")
    wait_for(page, lambda: "the only run" in text_of(page) and "viewer" in text_of(page))
    go_to(page, "Runs")
    select_rows(page, 0)
    page.get_by_role("link", name="Advise").last.wait_for()
    buttons = page.get_by_role("button").all_inner_texts()
    assert not {"Start", "Stop", "Archive", "Delete", "Save", "Import"} & set(buttons)
    page.get_by_role("button", name="Log out").click()
    page.get_by_role("button", name="Log in").wait_for()


def test_an_operator_may(logged_in, locked):
    page = logged_in("olga")
    wait_for(page, lambda: "operator" in text_of(page))
    go_to(page, "Runs")
    select_rows(page, 0)
    page.get_by_role("button", name="Archive").click()
    wait_for(page, lambda: locked.store.run(locked.run_id).archived)
    locked.store.update_run(locked.run_id, archived=False)
