"""Ends a run of another host that has been silent for long, once it was watched to stay so.

Only silence tells of a process on another host. Its clock and ours may differ, so an old sign of
life is not enough: the heartbeat has to stand still before the reader's own monotonic clock too.
"""

import sys
import time
from collections.abc import Callable

from tqdm import tqdm

from storage.commandline import BadInput, tell
from storage.journal import send_journal
from storage.liveness import SILENT_SECONDS, PulseReader, is_elsewhere, is_lost, last_sign
from storage.records import RunInfo, RunStatus
from storage.store import Store
from storage.terminal import for_progress
from storage.words import moment

ENDED_ELSEWHERE = "none: ended from another host"
"""In place of the mark of a process, which so learns that its run is no longer its own."""


def is_silent_elsewhere(run: RunInfo) -> bool:
    """Whether a run of another host is silent by the clocks, or these tell nothing of it.

    Its last sign of life is far from now: long ago or, by a clock that is ahead of ours, to come.
    """
    return is_elsewhere(run) and abs(time.time() - last_sign(run)) > SILENT_SECONDS


def end_silent(
    store: Store,
    run: RunInfo,
    pulse: PulseReader,
    sleep: Callable[[float], None] = time.sleep,
    waiting: Callable[[float], object] = lambda _: None,
) -> RunStatus:
    """Watch a run that ``is_elsewhere``, end it if its heartbeat stands, return its status.

    What it left in a journal here is sent first: that may tell of its end. Its process loses the
    run, so if it lives after all, its next sign of life tells it to end and write nothing more.

    Args:
        store: the archive.
        run: the run as it was read.
        pulse: times its heartbeat; one that has watched it for long enough does not wait.
        sleep: waits so many seconds.
        waiting: told how many seconds of silence are still to be waited for.

    Raises:
        JournalDamaged: what its process left cannot be read.
        RunNotFound: it was deleted meanwhile.
    """
    seen = run
    while (seconds := pulse.seconds_to_watch(run)) > 0:
        waiting(seconds)
        sleep(1.0)
        run = store.run(run.id)
        if not run.status.alive or _lives(run, seen):
            return run.status
    waiting(0.0)
    send_journal(store, run.id)
    run = store.run(run.id)
    if not run.status.alive or _lives(run, seen):
        return run.status
    sign = last_sign(run)
    ends = {
        "ended_at": sign,
        "outcome_reason": f"its process on {run.host} gave no sign of life since {moment(sign)}",
        "process_mark": ENDED_ELSEWHERE,
    }
    if store.reclaim_run(run, status=RunStatus.STOPPED, **ends):
        return RunStatus.STOPPED
    return store.run(run.id).status


def _lives(run: RunInfo, seen: RunInfo) -> bool:
    return run.heartbeat_count != seen.heartbeat_count


def end_if_silent(store: Store, run_id: str, pulse: PulseReader) -> RunStatus:
    """``end_silent`` for who must not wait: only a run that was watched for long enough is ended.

    Any other run keeps the status that is returned.
    """
    run = store.run(run_id)
    if is_elsewhere(run) and pulse.seconds_to_watch(run) <= 0:
        return end_silent(store, run, pulse)
    return run.status


def watched_to_its_end(store: Store, run: RunInfo) -> RunStatus:
    """``end_silent`` for a command: say on standard error why and for how long it waits."""
    pulse = PulseReader()
    wait = pulse.seconds_to_watch(run)
    how = f"is {run.status} on {run.host}; watching whether it is silent for {wait:.0f} s"
    if is_lost(run):
        how = f"was silent for long on {run.host}; watching {wait:.0f} s more"
    tell(f"{run.id} {how}", file=sys.stderr, flush=True)
    with tqdm(total=round(wait), unit="s", desc="silent", disable=None, file=for_progress()) as bar:

        def waiting(left: float) -> None:
            bar.update(round(wait - left) - bar.n)

        return end_silent(store, run, pulse, waiting=waiting)


def end_elsewhere(store: Store, run_id: str) -> None:
    """Let a run that shall go on here have no process on another host; watch it first.

    Of a run of this host, or one that has ended, nothing is changed.

    Raises:
        BadInput: its process lives.
        JournalDamaged, RunNotFound: as ``end_silent``.
    """
    run = store.run(run_id)
    if is_elsewhere(run) and (status := watched_to_its_end(store, run)).alive:
        raise BadInput(
            f"run: {run_id} is {status} on {run.host}, where it gave a sign of life just now; "
            f"stop it first: python -m trainer stop {run_id}"
        )
