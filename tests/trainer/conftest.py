"""Fixtures of the trainer's tests: a home of one's own, a warm-started learner, a Ray cluster.

Learners here train on the CPU, where a seed decides every bit. What must hold on every device takes
the fixture ``device`` and runs on a GPU too, where there is one.
"""

import shutil
from collections.abc import Callable, Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import torch
from factories import a_config
from ray_nodes import Nodes

from trainer.lockstep import Lockstep
from trainer.workloads.arithmetic import arithmetic


@pytest.fixture
def own_home(tmp_path: Path, etalon_home: Path) -> Path:
    """Give an ETALON_HOME with the warm start and no archive; the test may write into it."""
    home = tmp_path / "home"
    shutil.copytree(etalon_home / "warm_starts", home / "warm_starts")
    return home


@pytest.fixture
def learner(etalon_home: Path) -> Callable[..., Lockstep]:
    """Make a learner at its start, on one thread; keyword arguments are configuration fields."""
    torch.set_num_threads(1)

    def make(**changes: Any) -> Lockstep:
        config = a_config(**({"device": "cpu"} | changes))
        task, start = arithmetic(config, etalon_home, print)
        return Lockstep("a run", config, task, start)

    return make


@pytest.fixture(params=["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
def device(request: pytest.FixtureRequest) -> str:
    """Give every device that there is, one after the other."""
    return str(request.param)


@pytest.fixture(scope="session")
def nodes() -> Iterator[Nodes]:
    """Give a Ray cluster whose nodes a test adds, and takes away again."""
    if find_spec("ray") is None:
        pytest.skip("no ray; pip install -r requirements-ray.txt")
    made = Nodes()
    yield made
    made.end()
