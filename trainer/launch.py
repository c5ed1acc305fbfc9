"""Start a run as a detached process, stop one, resume one. Imports neither torch nor transformers.

Whoever starts a run shares nothing with it but the archive: closing the dashboard ends no training.
"""

import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import psutil

from storage.commandline import BadInput
from storage.engine import checkpoint_folder, home, part_of_path
from storage.journal import send_journal
from storage.liveness import is_elsewhere, process_gone, process_mark
from storage.models import SCHEMA_REVISION
from storage.patience import patiently
from storage.records import RunInfo, RunStatus
from storage.store import Store, new_run_id

from .config import TrainerConfig, checked_config
from .governing import GOVERNED, kept_by_governor

VERSION = "0.1.0"
_OUTCOME = (
    "collapse_step",
    "slide_step",
    *("reward_first", "reward_best", "reward_last", "reward_final"),
    *("gold_reward_first", "gold_reward_last", "gold_reward_final"),
)
MAY_GO_ON = "allowed: a run that was stopped, failed, or whose process is gone"
PROJECT = Path(__file__).resolve().parent.parent


def create_run(
    store: Store, config: TrainerConfig, *, kind: str = "train", **columns: Any
) -> RunInfo:
    """Add a queued run that this process is about to start, or to carry out, and return it."""
    columns |= process_columns(os.getpid())
    run = replace(queued_run(config, code_version(), kind=kind), **columns)
    store.create_run(run)
    return run


def queue_run(store: Store, config: TrainerConfig) -> RunInfo:
    """Add a run that waits until somebody starts it (``start_queued``), and return it."""
    run = queued_run(config, code_version())
    store.create_run(run)
    return run


def start_queued(store: Store, most: int) -> RunInfo | None:
    """Start the run that has waited longest, if fewer than ``most`` live here, and return it.

    Of all processes that try, one gets a run: it is taken before its process is started. While the
    archive is away it is asked again, and a run that was taken though the answer was lost is
    started: as one of this process, which lives, it would hold a place that nobody fills.
    """
    tried: set[str] = set()

    def first(alive: list[RunInfo]) -> RunInfo | None:
        if taken := [run for run in alive if run.id in tried and _is_ours(run)]:
            return taken[0]
        if sum(process_gone(run) is False for run in alive) >= most:
            return None
        waiting = [run for run in alive if _waits(run)]
        chosen = min(waiting, key=lambda run: (run.created_at, run.id), default=None)
        tried.update(() if chosen is None else [chosen.id])
        return chosen

    run = patiently(lambda: store.take_run(first, **process_columns(os.getpid())))
    if run is not None:
        columns = _detached(store, run.id)
        patiently(lambda: store.update_run(run.id, **columns))
    return run


def _waits(run: RunInfo) -> bool:
    """Whether a run waits for anybody; those of a sweep are for the sweep's own processes."""
    return run.status is RunStatus.QUEUED and run.pid is None and run.kind == "train"


def own_process() -> dict[str, Any]:
    """Return what tells this process from any other, whatever the clock says."""
    own = process_columns(os.getpid())
    return {name: own[name] for name in ("host", "pid", "process_mark")}


def _is_ours(run: RunInfo) -> bool:
    """Whether this very process has taken the run."""
    return all(getattr(run, name) == value for name, value in own_process().items())


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
    store.update_run(run.id, **_detached(store, run.id))
    return run.id


def resume(store: Store, run_id: str, steps: str | int | None = None) -> None:
    """Let a run go on from its newest checkpoint in a process of its own, detached from this one.

    Raises:
        RunNotFound: there is no such run.
        BadInput: it cannot be resumed; see ``reopen``.
    """
    run = reopen(store, run_id, RunStatus.QUEUED, steps)
    store.update_run(run.id, **_detached(store, run.id))


def _detached(store: Store, run_id: str) -> dict[str, Any]:
    """Start the process of a run and return the columns that tell it."""
    try:
        with log_file(run_id).open("ab") as log:
            process = spawn(["work", run_id], store.url, log)
    except OSError as error:
        why = f"it could not be started: {error}"
        store.update_run(
            run_id, status=RunStatus.FAILED, ended_at=time.time(), outcome_reason=why, error=why
        )
        raise BadInput(f"run: {run_id} is failed, {why}") from error
    return process_columns(process.pid)


def process_columns(pid: int) -> dict[str, Any]:
    """Return the columns of a run that tell its process from any other."""
    return {
        "host": socket.gethostname(),
        "pid": pid,
        "pid_started": psutil.Process(pid).create_time(),
        "process_mark": process_mark(pid),
    }


def claim(store: Store, run_id: str) -> bool:
    """Take a queued run for this process; False when it is not to be had.

    Asked again, as after an answer that was lost, it is still ours.
    """
    now, run = time.time(), store.run(run_id)
    if run.status is RunStatus.RUNNING and _is_ours(run):
        return True
    return store.claim_run(
        run_id,
        started_at=run.started_at or now,
        heartbeat_at=now,
        **process_columns(os.getpid()),
    )


def reopen(
    store: Store,
    run_id: str,
    status: RunStatus,
    steps: str | int | None = None,
    *,
    governed: bool = False,
) -> RunInfo:
    """Take a run that has come to a halt for this process, and return it as it is now.

    One whose process is on another host has to be ended first, see ``silence``.

    Args:
        store: the archive.
        run_id: a run that was stopped, failed, or whose process is gone.
        status: what it shall be: running here, or queued for a process that claims it.
        steps: a longer horizon; None for the one it had.
        governed: a governor will keep it; one that is kept by a governor goes on under none else.

    Raises:
        RunNotFound: there is no such run.
        BadInput: it lives or has come to its end, has no checkpoint, its configuration cannot be
            used, or another process was first.
    """
    config = config_to_resume(store, run_id, steps, governed=governed)
    run = store.run(run_id)
    if run.status.alive and not process_gone(run):
        raise BadInput(f"run: {run_id} is {run.status} on {run.host}; {MAY_GO_ON}")
    ends = dict.fromkeys(("ended_at", "error", "outcome", "outcome_reason", *_OUTCOME))
    changes = {"stop_requested": False, "config": config.model_dump(mode="json"), **ends}
    if not store.reclaim_run(run, status=status, **process_columns(os.getpid()), **changes):
        raise BadInput(f"run: {run_id} was taken up by another process just now")
    return store.run(run_id)


def config_to_resume(
    store: Store, run_id: str, steps: str | int | None = None, *, governed: bool = False
) -> TrainerConfig:
    """Return the configuration with which a run that has come to a halt would go on.

    What its process left in its journal is brought in first: it may tell of the end of the run.
    One whose process is on another host is looked at as if that were gone.

    Raises:
        RunNotFound, BadInput: as ``reopen``, but for a process that lives elsewhere or is first.
        JournalDamaged: what its process left cannot be read.
    """
    run = brought_in(store, store.run(run_id))
    if fault := _resume_fault(store, run, governed=governed):
        raise BadInput(f"run: {run_id} {fault}")
    planned = int(run.config["steps"])
    config = checked_config({**run.config, "steps": planned if steps is None else steps})
    if fault := _horizon_fault(config, planned):
        raise BadInput(f"steps: {fault}")
    return config


def brought_in(store: Store, run: RunInfo) -> RunInfo:
    """Send what a run that nobody carries out has in its journal, and return it as it is then."""
    if (run.status.alive and not process_gone(run)) or run.pid is None:
        return run
    send_journal(store, run.id)
    return store.run(run.id)


def _resume_fault(  # noqa: PLR0911 – one line per fault
    store: Store, run: RunInfo, *, governed: bool
) -> str | None:
    if governed != (run.kind == GOVERNED):
        return "is kept by no governor" if governed else f"is {kept_by_governor(run.id)}"
    if run.status.alive and not process_gone(run) and not is_elsewhere(run):
        return f"is {run.status}; {MAY_GO_ON}"
    if not run.status.alive and run.status not in (RunStatus.STOPPED, RunStatus.FAILED):
        return f"has come to its end, {run.status}; {MAY_GO_ON}"
    if run.archived:
        return "is archived; allowed: a run that is not"
    if run.kind in ("imported", "attached"):
        return f"was {run.kind}, so it has nothing to go on from; allowed: a run of this trainer"
    if not has_checkpoint(run.id) and store.steps(run.id, last=1):
        return f"has no checkpoint in {checkpoint_folder(run.id)}; start it again with trainer run"
    return None


def _horizon_fault(config: TrainerConfig, planned: int) -> str | None:
    if config.steps == planned:
        return None
    if config.steps < planned:
        return f"{config.steps} is below the {planned} that were planned; allowed: at least those"
    for name in ("ramp_from", "bias_study"):
        if getattr(config, name) is not None:
            return f"{config.steps} is not allowed with {name}, which was set for {planned} steps"
    return None


def has_checkpoint(run_id: str) -> bool:
    """Whether a run has any checkpoint, sound or not."""
    folder = checkpoint_folder(run_id)
    return folder.is_dir() and any(each.name.isdigit() for each in folder.iterdir())


def log_file(name: str) -> Path:
    """Return where a process writes what it prints, in a folder that exists."""
    logs = home().resolve() / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    return logs / f"{part_of_path(name)}.log"


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
    ended keeps its status. One with a process on another host is asked alone, see ``silence``.

    Raises:
        JournalDamaged: what its process left cannot be read.
        RunNotFound: there is no such run.
    """
    run = store.run(run_id)
    if not run.status.alive:
        return run.status
    store.update_run(run_id, stop_requested=True)
    run = store.run(run_id)
    if run.pid is not None and not process_gone(run):
        return run.status
    run = brought_in(store, run)
    if not run.status.alive:
        return run.status
    reason = "stopped before it had a process" if run.pid is None else "its process was gone"
    ends = {"ended_at": time.time(), "outcome_reason": reason}
    if store.reclaim_run(run, status=RunStatus.STOPPED, **ends):
        return RunStatus.STOPPED
    return store.run(run_id).status  # it came to its end, or was taken up, just now


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
