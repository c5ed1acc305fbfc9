"""Ends a run of another host that has been silent for long, once it was watched to stay so.

Only silence tells of a process on another host. Its clock and ours may differ, so an old sign of
life is not enough: the heartbeat has to stand still before the reader's own monotonic clock too.
"""

import time
from collections.abc import Callable

from storage.liveness import PulseReader, is_lost, process_gone
from storage.records import RunInfo, RunStatus
from storage.store import Store
from storage.words import moment

from .launch import brought_in


def is_silent_elsewhere(run: RunInfo) -> bool:
    """Whether a living run has a process on another host and, by the clocks, is lost."""
    return run.status.alive and process_gone(run) is None and run.pid is not None and is_lost(run)


def end_silent(
    store: Store,
    run: RunInfo,
    pulse: PulseReader,
    sleep: Callable[[float], None] = time.sleep,
) -> RunStatus:
    """Watch a run that ``is_silent_elsewhere``, end it if its heartbeat stands, return its status.

    What it left in a journal here is sent first: that may tell of its end. Its process loses the
    run, so if it lives after all, its next sign of life tells it to end and write nothing more.

    Args:
        store: the archive.
        run: the run as it was read.
        pulse: times its heartbeat; one that has not seen it yet watches ``LOST_AFTER_SECONDS``.
        sleep: waits so many seconds.

    Raises:
        JournalDamaged: what its process left cannot be read.
        RunNotFound: it was deleted meanwhile.
    """
    seen = run
    while pulse.status(run) is not RunStatus.LOST:
        sleep(1.0)
        run = store.run(run.id)
        if not run.status.alive or _lives(run, seen):
            return run.status
    run = brought_in(store, run)
    if not run.status.alive or _lives(run, seen):
        return run.status
    sign = run.heartbeat_at or run.created_at
    ends = {
        "ended_at": sign,
        "outcome_reason": f"its process on {run.host} gave no sign of life since {moment(sign)}",
        "process_mark": "none: ended from another host",
    }
    if store.reclaim_run(run, status=RunStatus.STOPPED, **ends):
        return RunStatus.STOPPED
    return store.run(run.id).status


def _lives(run: RunInfo, seen: RunInfo) -> bool:
    return run.heartbeat_count != seen.heartbeat_count
