"""The task and the starting policy of whatever workload a configuration names."""

from collections.abc import Callable
from pathlib import Path

from ..config import TrainerConfig
from ..rollout import Task
from .arithmetic import arithmetic
from .custom import custom
from .preference import preference


def task_and_start(
    config: TrainerConfig, home: Path, progress: Callable[[str], None]
) -> tuple[Task, Path]:
    """Return the task and the folder of its starting policy, made first where that is needed.

    Args:
        config: names the workload.
        home: where what is made once is kept.
        progress: told in words about long work.
    """
    prepare = {"arithmetic": arithmetic, "preference": preference, "custom": custom}
    return prepare[config.workload](config, home, progress)
