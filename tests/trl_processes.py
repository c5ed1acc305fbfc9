"""One of several processes of a training by TRL: ``python trl_processes.py FOLDER SHAPE``.

Started as ``torchrun`` starts it, with the rank in the environment. ``dies``: process 1 is killed
at a learner step. ``gone``: the archive is deleted at one. ``alone``: nothing is attached.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from trl_trainings import trl_trainer, weights

from advisor.attach import attach

AT_STEP = 6


class Witness(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Keeps the weights before each learner step and what TRL logged of it in this process."""

    def __init__(self, trainer: Any) -> None:
        self.trainer, self.thetas, self.logs = trainer, [], []
        trainer.add_callback(self)

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.thetas.append(weights(self.trainer))

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.logs.append(dict(kwargs["logs"]))


class Fault(TrainerCallback):  # type: ignore[misc]  # transformers has no types
    """Kills its process, as the kernel does where memory lacks, or deletes the archive."""

    def __init__(self, archive: Path, shape: str) -> None:
        self.archive, self.shape = archive, shape

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == AT_STEP and self.shape == "dies":
            os.kill(os.getpid(), signal.SIGKILL)
        if state.global_step == AT_STEP:
            for file in self.archive.parent.glob(f"{self.archive.name}*"):
                file.unlink()


def main() -> None:
    """Train, and save what the witness saw."""
    folder, shape, rank = Path(sys.argv[1]), sys.argv[2], os.environ["RANK"]
    archive = folder / "archive.db"
    trainer = trl_trainer(folder, max_steps=12)
    witness = Witness(trainer)
    recorder = None if shape == "alone" else attach(trainer, db=str(archive))
    if shape in ("dies", "gone") and rank == "1":
        trainer.add_callback(Fault(archive, shape))
    trainer.train()
    seen = {
        "thetas": torch.stack([*witness.thetas, weights(trainer)]),
        "logs": witness.logs,
        "run": recorder and recorder.run_id,
    }
    torch.save(seen, folder / f"{shape} {rank}.pt")


if __name__ == "__main__":
    main()
