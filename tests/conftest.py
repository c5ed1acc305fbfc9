"""Fixtures that several parts share: an open archive, a warm-started home, and two real runs.

What costs seconds is made once per session: ``etalon_home`` holds the warm start (about 20 s), and
``archive_with_two_runs`` two real runs made through the command line (about 15 s). Both are for
reading; a test that writes uses ``store``, or gives its own ``--db``.
"""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess, Popen
from typing import Any

import pytest
from processes import ended, start

from storage.store import Store

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["OMP_NUM_THREADS"] = "1"  # two cores: threads of tiny matrices only fight over them


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    """Give an empty archive in a real file."""
    opened = Store.open(str(tmp_path / "archive.db"))
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def etalon_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give an ETALON_HOME with the warm start of the arithmetic workload.

    ``processes.environment(etalon_home)`` is the environment of a process that shall use it.
    """
    import torch

    from trainer.warm_start import warm_started
    from trainer.workloads.arithmetic import recipe

    torch.set_num_threads(1)
    home = tmp_path_factory.mktemp("etalon")
    warm_started(recipe(64, 2), home, progress=print)
    return home


@dataclass(frozen=True, kw_only=True)
class TwoRuns:
    """An archive with a finished run (η = 2e-4) and a collapsed one (η = 4e-3).

    Both have S = 3, 300 planned steps, seed 0, and came from ``python -m trainer run --json``.
    """

    home: Path
    url: str
    finished: "CompletedProcess[str]"
    collapsed: "CompletedProcess[str]"

    @property
    def finished_returncode(self) -> int:
        return self.finished.returncode

    @property
    def collapsed_returncode(self) -> int:
        return self.collapsed.returncode

    @property
    def finished_result(self) -> dict[str, Any]:
        return dict(json.loads(self.finished.stdout))

    @property
    def collapsed_result(self) -> dict[str, Any]:
        return dict(json.loads(self.collapsed.stdout))

    @property
    def finished_id(self) -> str:
        return str(self.finished_result["run_id"])

    @property
    def collapsed_id(self) -> str:
        return str(self.collapsed_result["run_id"])


@pytest.fixture(scope="session")
def archive_with_two_runs(etalon_home: Path) -> TwoRuns:
    """Give an archive with two real runs, made side by side by the command line."""
    url = f"sqlite:///{etalon_home / 'etalon.db'}"
    Store.open(url).close()

    def run(learning_rate: str) -> "Popen[str]":
        setting = f"--learning-rate {learning_rate} --max-staleness 3 --steps 300 --seed 0"
        words = f"-m trainer run --workload arithmetic {setting} --json"
        return start(*words.split(), home=etalon_home)

    finished, collapsed = run("2e-4"), run("4e-3")
    return TwoRuns(home=etalon_home, url=url, finished=ended(finished), collapsed=ended(collapsed))
