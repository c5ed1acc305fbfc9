"""Fixtures of the dashboard: the real app under AppTest on a real archive."""

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from processes import PATIENCE, PROJECT
from streamlit.testing.v1 import AppTest

from storage.store import Store


@pytest.fixture
def archive(
    tmp_path: Path, empty_archive: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Store]:
    """Give the empty archive that the pages open."""
    opened = Store.open(str(shutil.copy(empty_archive, tmp_path)))
    monkeypatch.setenv("ETALON_DB", opened.url)
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    _forget()
    yield opened
    _forget()
    opened.close()


def _forget() -> None:
    st.cache_resource.clear()
    st.cache_data.clear()


@pytest.fixture
def visit(archive: Store) -> Callable[..., AppTest]:
    """Give a function that opens a page: ``visit("watch", run=ID)``."""

    def open_page(name: str, **query: str | list[str]) -> AppTest:
        app = AppTest.from_file(PROJECT / "app.py", default_timeout=PATIENCE)
        for key, value in query.items():
            app.query_params[key] = value
        return app.switch_page(f"advisor/dashboard/{name}.py").run()

    return open_page
