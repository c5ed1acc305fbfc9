"""What holds of every page, in whatever state the archive is."""

import re

import pytest
from pages import charts, press, words
from states import STATES

PAGES = ("watch", "advise", "compare", "laws", "runs")
PROSE = ("computed nan at step", "none has an evaluation")
"""Facts in words, and no unknown numbers."""


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("state", STATES)
def test_no_page_fails_or_shows_an_unknown_number_as_nan_or_none(archive, visit, state, page):
    STATES[state](archive)
    shown = visit(page)
    assert not shown.exception
    assert not shown.error
    text = " | ".join(words(shown))
    for sentence in PROSE:
        text = text.replace(sentence, "")
    assert not re.search(r"\b(nan|none|inf|nat)\b", text, re.IGNORECASE), text
    charts(shown)  # refuses NaN and Infinity, which no browser reads


@pytest.mark.parametrize("page", PAGES)
def test_an_archive_that_cannot_be_opened_is_one_clear_message(visit, monkeypatch, tmp_path, page):
    monkeypatch.setenv("ETALON_DB", str(tmp_path / "nowhere" / "archive.db"))
    shown = visit(page)
    assert not shown.exception
    assert len(shown.error) == 1
    assert "The archive cannot be read" in shown.error[0].value
    assert "nowhere does not exist; make it first" in shown.error[0].value
    (tmp_path / "nowhere").mkdir()
    assert not press(shown, "Try again").error
