"""Remove a run for good: its rows, then what lies of it in ``ETALON_HOME``."""

import shutil

from .engine import checkpoint_folder, journal_file
from .store import Store


def remove_run(store: Store, run_id: str) -> None:
    """Remove a run, every row of it, its checkpoints and its journal; log and final policy stay.

    Raises:
        RunNotFound: there is no such run.
    """
    store.delete_run(run_id)
    shutil.rmtree(checkpoint_folder(run_id), ignore_errors=True)
    journal_file(run_id).unlink(missing_ok=True)
