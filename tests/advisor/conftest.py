"""Fixtures of the advisor's tests: archives, a receiver of alerts, a trainer of TRL."""

import pytest
from factories import a_run, seeded_store
from receivers import receiving


@pytest.fixture
def seeded(tmp_path):
    opened = seeded_store(tmp_path)
    yield opened
    opened.close()


@pytest.fixture
def receiver():
    with receiving() as server:
        yield server


@pytest.fixture
def run(store):
    run = a_run(name="night")
    store.create_run(run)
    return run


@pytest.fixture
def trainer(tmp_path):
    from trl_trainings import trl_trainer

    return lambda **changes: trl_trainer(tmp_path, **changes)


@pytest.fixture
def db(tmp_path):
    return str(tmp_path / "archive.db")
