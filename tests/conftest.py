"""Fixtures that several parts share: an open archive, a warm-started home, and two real runs.

What costs seconds is made once, for all processes that test side by side: ``etalon_home`` holds the
warm start (about 20 s), and ``archive_with_two_runs`` two real runs made through the command line
(about 15 s). Both are for reading; a test that writes uses ``store``, or gives its own ``--db``.
"""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from subprocess import Popen
from typing import Any

import postgres
import pytest
from filelock import FileLock
from processes import ended, start

from storage.store import Store

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # two cores: threads of tiny matrices only fight over them


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put what needs the warm start first: one process makes it while the others do the rest.

    ``--dist worksteal`` gives each process a stretch of this order to begin with.
    """
    items.sort(key=lambda item: "etalon_home" not in getattr(item, "fixturenames", ()))


@pytest.fixture(scope="session")
def empty_archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the file of an empty archive, to be copied, which is faster than to make its tables."""
    path = tmp_path_factory.mktemp("empty") / "archive.db"
    Store.open(str(path)).close()
    return path


@pytest.fixture
def store(tmp_path: Path, empty_archive: Path) -> Iterator[Store]:
    """Give an empty archive in a real file."""
    opened = Store.open(str(shutil.copy(empty_archive, tmp_path)))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[postgres.Server]:
    """Give a running PostgreSQL server of this process's own."""
    if lacking := postgres.missing():
        pytest.skip(lacking)
    with postgres.running() as server:
        yield server


@pytest.fixture(params=["sqlite", "postgresql"])
def either_store(
    request: pytest.FixtureRequest, tmp_path: Path, empty_archive: Path
) -> Iterator[Store]:
    """Give an empty archive in a file, then one on a PostgreSQL server."""
    with ExitStack() as ends:
        url = f"sqlite:///{shutil.copy(empty_archive, tmp_path)}"
        if request.param == "postgresql":
            server: postgres.Server = request.getfixturevalue("postgres_server")
            url = ends.enter_context(server.archive())
        opened = Store.open(url)
        ends.callback(opened.close)
        yield opened


@pytest.fixture
def fresh_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a home that is not there yet."""
    home = tmp_path / "home"
    monkeypatch.setenv("ETALON_HOME", str(home))
    monkeypatch.delenv("ETALON_DB", raising=False)
    return home


@pytest.fixture(scope="session")
def etalon_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an ETALON_HOME with the warm start of the arithmetic workload.

    ``processes.environment(etalon_home)`` is the environment of a process that shall use it.
    """
    import torch

    from trainer.warm_start import warm_started
    from trainer.workloads.arithmetic import recipe

    torch.set_num_threads(1)
    home = shared_folder(tmp_path_factory) / "etalon"
    with FileLock(f"{home}.lock"):
        warm_started(recipe(64, 2), home, progress=print)
    return home


def shared_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of this session that all processes of pytest-xdist share."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


@dataclass(frozen=True, kw_only=True)
class TwoRuns:
    """An archive with a finished run (η = 2e-4) and a collapsed one (η = 4e-3).

    Both have S = 3, 300 planned steps, seed 0, and came from ``python -m trainer run --json``.
    """

    home: Path
    url: str
    finished_returncode: int
    finished_output: str
    collapsed_returncode: int
    collapsed_output: str

    @property
    def finished_result(self) -> dict[str, Any]:
        return dict(json.loads(self.finished_output))

    @property
    def collapsed_result(self) -> dict[str, Any]:
        return dict(json.loads(self.collapsed_output))

    @property
    def finished_id(self) -> str:
        return str(self.finished_result["run_id"])

    @property
    def collapsed_id(self) -> str:
        return str(self.collapsed_result["run_id"])


@pytest.fixture(scope="session")
def archive_with_two_runs(etalon_home: Path) -> TwoRuns:
    """Give an archive with two real runs, made side by side by the command line."""
    kept = etalon_home / "two_runs.json"
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            kept.write_text(json.dumps(_two_runs(etalon_home)))
    url = f"sqlite:///{etalon_home / 'etalon.db'}"
    return TwoRuns(home=etalon_home, url=url, **json.loads(kept.read_text()))


def _two_runs(home: Path) -> dict[str, Any]:
    Store.open(f"sqlite:///{home / 'etalon.db'}").close()

    def run(learning_rate: str) -> "Popen[str]":
        setting = f"--learning-rate {learning_rate} --max-staleness 3 --steps 300 --seed 0"
        words = f"-m trainer run --workload arithmetic {setting} --json"
        return start(*words.split(), home=home)

    started = {"finished": run("2e-4"), "collapsed": run("4e-3")}
    found: dict[str, Any] = {}
    for name, process in started.items():
        done = ended(process)
        found[f"{name}_returncode"] = done.returncode
        found[f"{name}_output"] = done.stdout
    return found
