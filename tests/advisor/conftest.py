"""Fixtures of the advisor's tests: a receiver of alerts, a run to be told of, a trainer of TRL."""

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


@pytest.fixture
def trainer(tmp_path):
    from trl_trainings import trl_trainer

    return lambda **changes: trl_trainer(tmp_path, **changes)


@pytest.fixture
def db(tmp_path):
    return str(tmp_path / "archive.db")
