"""Remove a run for good: its rows, then what lies of it in ``ETALON_HOME``."""

import shutil

from .engine import checkpoint_folder, journal_file
from .store import Store


def remove_run(store: Store, run_id: str) -> None:
    """Remove a run, every row of it, its checkpoints and its journal; log and final policy stay.

    Raises:
        RunNotFound: there is no such run.
        PathOutside: its id names no folder of its own; then nothing is removed.
    """
    checkpoints = checkpoint_folder(run_id)
    store.delete_run(run_id)
    shutil.rmtree(checkpoints, ignore_errors=True)
    journal_file(run_id).unlink(missing_ok=True)
