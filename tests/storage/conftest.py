"""What the store promises it promises on SQLite and on PostgreSQL: its tests run on both."""

import pytest
from factories import seed

from storage.store import Store


@pytest.fixture
def store(either_store: Store) -> Store:
    """Give an empty archive."""
    return either_store


@pytest.fixture
def seeded(either_store: Store) -> Store:
    """Give an archive with a finished and a collapsed run."""
    return seed(either_store)


@pytest.fixture
def put(tmp_path):
    """Write a log where a trainer would."""

    def write(text, name="run-7/metrics.jsonl"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write
