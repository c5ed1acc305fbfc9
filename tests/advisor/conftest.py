"""Fixtures of the tests of alerts: a receiver, and a run to be told of."""

import pytest
from factories import a_run
from receivers import receiving


@pytest.fixture
def receiver():
    with receiving() as server:
        yield server


@pytest.fixture
def run(store):
    run = a_run(name="night")
    store.create_run(run)
    return run
