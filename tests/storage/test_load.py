"""``benchmarks.load`` in its short form: many writers and readers at once, and no row lost."""

import pytest

from benchmarks.load import measured
from storage.store import Store


@pytest.mark.slow  # processes of their own, which import the store first
def test_many_writers_and_readers_lose_no_row_and_meet_no_error(store: Store):
    writers, readers = (64, 16) if store.url.startswith("postgresql") else (8, 4)
    found = measured(store.url, writers, readers, 2.0, together=32)
    assert found.errors == []
    assert (found.lost_rows, found.inconsistencies) == (0, [])
    assert found.steps > writers
    assert {"append a step", "list of runs"} <= set(found.milliseconds)
