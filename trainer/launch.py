"""Start a run as a detached process, and stop one. Imports neither torch nor transformers.

Whoever starts a run shares nothing with it but the archive: closing the dashboard ends no training.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

import psutil

from storage.engine import home
from storage.liveness import process_gone
from storage.models import SCHEMA_REVISION
from storage.records import RunInfo, RunStatus
from storage.store import Store, new_run_id

from .config import TrainerConfig

VERSION = "0.1.0"
PROJECT = Path(__file__).resolve().parent.parent


def create_run(store: Store, config: TrainerConfig) -> RunInfo:
    """Add a queued run of this configuration to the archive and return it."""
    run = queued_run(config, code_version())
    store.create_run(run)
    return run


def queued_run(config: TrainerConfig, version: str, *, kind: str = "train") -> RunInfo:
    """Describe a run that waits for a process; ``version`` is the ``code_version`` it starts at."""
    now = time.time()
    return RunInfo(
        id=new_run_id(now),
        name=config.name or default_name(config),
        kind=kind,
        status=RunStatus.QUEUED,
        created_at=now,
        config=config.model_dump(mode="json"),
        workload=config.workload,
        group=config.group,
        seed=config.seed,
        threads=config.threads,
        code_version=version,
        schema_version=SCHEMA_REVISION,
    )


def default_name(config: TrainerConfig) -> str:
    """Name a run after what usually differs."""
    return f"{config.workload} η={config.learning_rate:g} S={config.max_staleness}"


def launch(store: Store, config: TrainerConfig) -> str:
    """Start a run in a process of its own, detached from this one, and return its id.

    What the process prints goes to ``logs/RUN.log`` in ``ETALON_HOME``.
    """
    run = create_run(store, config)
    with log_file(run.id).open("wb") as log:
        process = spawn(["work", run.id], store.url, log)
    store.update_run(
        run.id,
        host=socket.gethostname(),
        pid=process.pid,
        pid_started=psutil.Process(process.pid).create_time(),
    )
    return run.id


def log_file(name: str) -> Path:
    """Return where a process writes what it prints, in a folder that exists."""
    logs = home().resolve() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    return logs / f"{name}.log"


def spawn(
    words: Sequence[str], url: str, log: IO[bytes], stdin: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    """Start ``python -m trainer WORDS`` detached from this process and its terminal.

    The archive's URL may hold a password, so it is no argument.
    """
    process = subprocess.Popen(
        [sys.executable, "-m", "trainer", *words],
        cwd=PROJECT,
        env={**os.environ, "ETALON_HOME": str(home().resolve()), "ETALON_DB": url},
        stdin=stdin,
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    threading.Thread(target=process.wait, daemon=True).start()  # leaves no zombie behind
    return process


def stop(store: Store, run_id: str) -> RunStatus:
    """Ask a run to stop after its present learner step, and return its status now.

    A run whose process is gone, or that never had one, is marked stopped at once; a run that has
    ended keeps its status.

    Raises:
        RunNotFound: there is no such run.
    """
    run = store.run(run_id)
    if not run.status.alive:
        return run.status
    store.update_run(run_id, stop_requested=True)
    gone = process_gone(run)
    if run.pid is None or gone:
        reason = "stopped before it had a process" if run.pid is None else "its process was gone"
        store.update_run(
            run_id, status=RunStatus.STOPPED, ended_at=time.time(), outcome_reason=reason
        )
        return RunStatus.STOPPED
    return run.status


def code_version() -> str:
    """Return the version of this code, with the commit when it runs from a git checkout."""
    try:
        found = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return VERSION
    return f"{VERSION}+{found.stdout.strip()}"
