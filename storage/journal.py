"""What a run could not send to the archive, in a file of its own until it can.

One line of JSON per write, in the order they were made. A line counts once its end is there, so a
process that is killed in the middle of one leaves those before it. Every write may be made twice:
a step replaces itself, an event that is there is not added again. So a journal is sent from its
beginning by whoever finds it, and removed when all of it was.
"""

import fcntl
import logging
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO

from .engine import journal_file, journals_folder
from .errors import JournalDamaged
from .liveness import process_gone
from .models import FactJSON
from .records import BiasProbe, Evaluation, Event, LagDrift, RunInfo, Sample, StepMetrics
from .store import Store

_JSON = FactJSON()
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunChange:
    """Fields of a run that change, such as its status."""

    run_id: str
    changes: Mapping[str, Any]


Record = StepMetrics | Evaluation | LagDrift | BiasProbe | Sample | Event | RunChange
_WRITES: dict[type[Any], Callable[[Store, Any], object]] = {
    StepMetrics: Store.append_step,
    Evaluation: Store.append_evaluation,
    LagDrift: Store.append_drift,
    BiasProbe: Store.append_bias_probe,
    Sample: lambda store, row: store.append_samples([row]),
    Event: Store.append_event,
    RunChange: lambda store, row: store.update_run(row.run_id, **row.changes),
}
_KINDS = {kind.__name__: kind for kind in _WRITES}


def write(store: Store, record: Record) -> None:
    """Send one write to the archive.

    Raises:
        ArchiveUnavailable: it does not answer, or refuses.
        RunNotFound: the run is not in the archive.
    """
    _WRITES[type(record)](store, record)


class Journal:
    """The journal of one run, written and sent by one process.

    If somebody else removes the file or cuts it short, it goes on behind what is there.
    """

    def __init__(self, path: Path) -> None:
        """Take up what is there; the file is made with the first write that it holds."""
        self.path = path
        self.size = _whole(path)  # bytes of whole lines
        self._inode = path.stat().st_ino if path.exists() else None
        self._sent = 0  # bytes that were forgotten
        self._read_to: int | None = None  # the byte behind what ``next`` returned

    @property
    def is_sent(self) -> bool:
        """Whether every write was forgotten."""
        return self._sent == self.size

    def append(self, record: Record) -> None:
        """Add a write behind all others.

        Raises:
            OSError: the disk does not take it; the journal is as it was.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        line = _line(record)
        with self.path.open("ab", buffering=0) as file:
            self._fit(file.tell())
            file.truncate(self.size)  # what a killed process, or a full disk, cut short
            if file.write(line) != len(line):
                raise OSError(f"{self.path} was not written to its end")
            self._inode = os.fstat(file.fileno()).st_ino
        self.size += len(line)

    def next(self, most: int) -> list[Record]:
        """Return the oldest writes that were not forgotten, at most so many.

        Raises:
            JournalDamaged: a line is no write.
        """
        self._fit(_length(self.path))
        if self.is_sent:
            return []
        with self.path.open("rb") as file:
            found = list(islice(_records(file, self._sent), most))
            if not found:  # the end of the line is what is damaged
                raise _damaged(file, self._sent)
        self._read_to = found[-1][1]
        return [record for record, _ in found]

    def forget(self) -> None:
        """Forget what ``next`` returned, for it was sent; the file goes with the last of it."""
        if self._read_to is None:
            return
        self._sent, self._read_to = self._read_to, None
        if self.is_sent:
            self.path.unlink(missing_ok=True)
            self.size = self._sent = 0

    def to_disk(self) -> None:
        """Let what is there outlive a power cut."""
        self._fit(_length(self.path))
        if self.size:
            with self.path.open("rb") as file:
                os.fsync(file.fileno())

    def set_aside(self) -> None:
        """Keep the file under a name by which nobody sends it: its run is another process's now."""
        if self.path.exists() and self.path.stat().st_ino == self._inode:
            self.path.rename(self.path.with_suffix(".jsonl.aside"))
        self.size = self._sent = 0
        self._read_to = None

    def _fit(self, length: int) -> None:
        if length < self.size:
            logger.warning("%s was removed or cut short by somebody else", self.path)
            self.size = min(length, _whole(self.path))
            self._sent, self._read_to = min(self._sent, self.size), None


def all_journals() -> Sequence[str]:
    """Return the ids of the runs that have a journal in ``ETALON_HOME``."""
    return sorted(path.stem for path in journals_folder().glob("*.jsonl"))


def kept_writes(run_id: str) -> int:
    """Return how many writes of a run its journal holds.

    Raises:
        JournalDamaged: a line is no write.
    """
    with suppress(FileNotFoundError), journal_file(run_id).open("rb") as file:
        return sum(1 for _ in _records(file))
    return 0


def send_journal(store: Store, run_id: str) -> int:
    """Send what a run left in its journal, remove it, and return how many writes it held.

    Only of a run that no process carries out: one that does sends its own. Of several that send one
    journal, one does, and the others wait for it: a run that went on is not written over.

    Raises:
        ArchiveUnavailable: it does not answer; the journal stays as it is.
        JournalDamaged: a line is no write; those before it are sent, and the journal stays.
        RunNotFound: the run is not in the archive.
    """
    path = journal_file(run_id)
    count = 0
    with suppress(FileNotFoundError), path.open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        is_there = os.path.samestat(os.fstat(file.fileno()), path.stat())
        if not is_there or _is_carried_out(store.run(run_id)):
            return 0
        for count, (record, _) in enumerate(_records(file), start=1):  # noqa: B007  # the result
            write(store, record)
        path.unlink()
    return count


def _is_carried_out(run: RunInfo) -> bool:
    return run.status.alive and process_gone(run) is False


def _records(file: BinaryIO, start: int = 0) -> Iterator[tuple[Record, int]]:
    """Read the whole lines from byte ``start`` on, each with the byte behind it."""
    file.seek(start)
    for line in file:
        if not line.endswith(b"\n"):
            return
        try:
            record = _record(line)
        except (AttributeError, KeyError, TypeError, ValueError):
            raise _damaged(file, start) from None
        start += len(line)
        yield record, start


def _damaged(file: BinaryIO, start: int) -> JournalDamaged:
    file.seek(0)
    number = file.read(start).count(b"\n") + 1
    return JournalDamaged(
        f"journal: {file.name}, line {number} is damaged, so it and what follows is not sent; "
        "remove that line, or move the file away, then: python -m storage check --repair"
    )


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _whole(path: Path) -> int:
    """Return the length of a file up to the end of its last whole line; 0 when there is none."""
    return path.read_bytes().rfind(b"\n") + 1 if path.exists() else 0


def _line(record: Record) -> bytes:
    entry = {type(record).__name__: asdict(record)}
    return f"{_JSON.process_bind_param(entry, None)}\n".encode()


def _record(line: bytes) -> Record:
    [(kind, values)] = _JSON.process_result_value(line.decode(), None).items()
    return _KINDS[kind](**values)  # type: ignore[no-any-return]  # one of the records
