"""Is a run alive? Derived on reading, never written: a reader may be wrong, a row may not.

The heartbeat is a counter. A reader times its changes by its own monotonic clock, so clocks that
differ or are set back deceive nobody. A process is known by its id *and* its mark, because ids are
used again, after a reboot too, and a zombie is gone.
"""

import socket
import time
from collections.abc import Callable
from pathlib import Path

import psutil

from .records import RunInfo, RunStatus

LOST_AFTER_SECONDS = 30.0
SILENT_SECONDS = 300.0
"""A run on another host, whose clock may differ, counts as lost after this long without a sign."""
START_TIME_TOLERANCE = 2.0
"""Of a process without a mark: psutil derives start times from a boot time that is corrected."""
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_STATE, _STARTED = 0, 19
"""Where /proc/PID/stat has the state and the start of a process, behind its name in brackets."""


def process_mark(pid: int) -> str | None:
    """Return what tells a process from any other that has or had its id on this host.

    That is the boot of the machine and the start of the process in clock ticks after it, so setting
    the clock changes nothing.

    Returns:
        None where there is no such process, where it is a zombie, or on a system without /proc.

    Raises:
        OSError: it cannot be told: no file descriptor is left, the process is another user's.
    """
    try:
        after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = _BOOT_ID.read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if after_name[_STATE] in "ZX" else f"{boot} {after_name[_STARTED]}"


def process_gone(run: RunInfo) -> bool | None:
    """Whether the process of a run has ended.

    None when it ran on another host, never began, or this machine does not tell.
    """
    if run.pid is None or run.host != socket.gethostname():
        return None
    try:
        if run.process_mark is not None:
            return process_mark(run.pid) != run.process_mark
        process = psutil.Process(run.pid)
        same = run.pid_started is None or (
            abs(process.create_time() - run.pid_started) < START_TIME_TOLERANCE
        )
        return not same or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
    except (OSError, psutil.AccessDenied):
        return None


def is_elsewhere(run: RunInfo) -> bool:
    """Whether a living run has a process of which this host cannot tell whether it lives."""
    return run.status.alive and run.pid is not None and process_gone(run) is None


def last_sign(run: RunInfo) -> float:
    """Return when a run gave its last sign of life, by the clock of its host."""
    return run.heartbeat_at or run.created_at


def is_lost(run: RunInfo) -> bool:
    """Whether nobody carries out a living run; of one on another host only silence tells."""
    gone = process_gone(run)
    if gone is not None or run.pid is None:
        return gone is True
    return time.time() - last_sign(run) > SILENT_SECONDS


class PulseReader:
    """Watches heartbeat counters; keep one per reading process."""

    def __init__(
        self,
        monotonic: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        """Begin without having seen any run."""
        self._monotonic, self._wall_clock = monotonic, wall_clock
        self._seen: dict[str, tuple[int, float]] = {}

    def status(self, run: RunInfo) -> RunStatus:
        """Return the stored status, or ``lost`` when the run's counter stands and nobody is home.

        At first sight of a run whose process is gone from this host, the stored heartbeat time
        stands in for what this reader did not see.
        """
        if not run.status.alive:
            return run.status
        gone = process_gone(run)
        if gone is False or (gone is None and run.pid is None):
            return run.status
        standing = self._standing_seconds(run, gone is True)
        return RunStatus.LOST if standing >= LOST_AFTER_SECONDS else run.status

    def seconds_to_watch(self, run: RunInfo) -> float:
        """Return for how much longer a heartbeat must stand until its run may be taken for dead.

        Of a run that ``is_elsewhere`` neither the clocks, which may differ, nor a short pause are
        enough: it has to be silent for ``LOST_AFTER_SECONDS`` before this reader, and for
        ``SILENT_SECONDS`` in all, before this reader or by the clocks.

        Returns:
            Seconds; 0 or less when it may be taken for dead.
        """
        seen = self.silent_seconds(run)
        by_the_clocks = self._wall_clock() - last_sign(run)
        return max(LOST_AFTER_SECONDS - seen, SILENT_SECONDS - max(seen, by_the_clocks))

    def silent_seconds(self, run: RunInfo) -> float:
        """Return for how long a run has given no sign of life, as far as this reader saw it."""
        return self._standing_seconds(run, process_gone(run) is True)

    def _standing_seconds(self, run: RunInfo, gone_from_here: bool) -> float:
        now = self._monotonic()
        count, since = self._seen.get(run.id, (None, now))
        if count == run.heartbeat_count:
            return now - since
        if count is None and gone_from_here:
            since = now - max(0.0, self._wall_clock() - last_sign(run))
        else:
            since = now
        self._seen[run.id] = (run.heartbeat_count, since)
        return now - since
