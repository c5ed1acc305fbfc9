"""Read the ``run-*.wandb`` file that W&B keeps of a run, offline or not; as best effort.

W&B has no reader of its own for it. The file is a head, then LevelDB's log format: blocks of 32 KiB
of pieces, each with the CRC-32 of its kind and content, its length, and whether it is a whole
record or the first, a middle or the last piece of one. A record is a protobuf message of the
installed wandb, which promises nothing about other versions. What a killed run left half written at
the end is not read, and said so.
"""

import struct
import zlib
from collections.abc import Iterator
from typing import Any

from ..commandline import BadInput
from .logs import MOST_STEP, Log, Rows, decoded, moment, whole_step

MARK = b":W&B"
HEAD = 7
BLOCK = 32 * 1024
PIECE = struct.Struct("<IHB")
"""CRC-32, length, kind of a piece."""
WHOLE, FIRST, MIDDLE, LAST = 1, 2, 3, 4
LACKING = "wandb is not installed; pip install -r requirements-wandb.txt"
STEP_KEYS = ("train/global_step", "_step")
"""Trainers of transformers and TRL log under W&B's own counter, and their step beside it."""


def is_wandb_file(beginning: bytes) -> bool:
    """Whether a file that begins with these bytes is one of W&B."""
    return beginning.startswith(MARK)


def read_wandb(content: bytes, *, most_rows: int) -> Log:
    """Read the history and the configuration of a run.

    Raises:
        BadInput: wandb is not there, the file is damaged, or there are more rows than allowed.
    """
    try:
        from google.protobuf.message import DecodeError
        from wandb.proto.wandb_internal_pb2 import Record
    except ImportError:
        raise BadInput(f"file: {LACKING}") from None
    rows, times = Rows(), dict[int, float]()
    settings: dict[str, Any] = {}
    name, run_id, notes = None, "", [f"read as wandb {_version()} writes it, as best effort"]
    try:
        for number, text in enumerate(_records(content, notes), start=1):
            record = Record.FromString(text)
            if record.HasField("run"):
                name, run_id = record.run.display_name or name, record.run.run_id
                settings |= _values(record.run.config.update)
            elif record.HasField("config"):
                settings |= _values(record.config.update)
            elif record.HasField("history"):
                _add(record.history, f"record {number}", rows, times)
            if len(rows) > most_rows:
                raise BadInput(f"rows: more than {most_rows}; allowed: at most {most_rows}")
    except DecodeError as error:
        raise BadInput(
            f"file: a record is none of wandb {_version()} ({error!s:.60}); allowed: its own files"
        ) from None
    return Log(
        format="wandb",
        first=run_id,
        rows=rows.ordered,
        keys=rows.keys,
        times=times,
        name=name,
        notes=(*notes, *rows.notes),
        settings={key: value for key, value in settings.items() if key != "_wandb"},
    )


def _version() -> str:
    import wandb

    return str(wandb.__version__)


def _records(content: bytes, notes: list[str]) -> Iterator[bytes]:
    """Yield the whole records of a file; a note tells of one that was not finished.

    Raises:
        BadInput: a piece is not what its checksum says.
    """
    at, pieces = HEAD, list[bytes]()
    while at < len(content):
        if (left := BLOCK - at % BLOCK) < PIECE.size:  # too little for a piece is filled up
            at += left
            continue
        if at + PIECE.size > len(content):
            break
        checksum, length, kind = PIECE.unpack_from(content, at)
        begin, end = at + PIECE.size, at + PIECE.size + length
        if end > len(content) or not (checksum or length or kind):
            break
        piece = content[begin:end]
        if zlib.crc32(piece, zlib.crc32(bytes([kind]))) != checksum:
            raise BadInput(f"file: damaged at byte {at}; allowed: a file that W&B has written")
        if kind in (WHOLE, FIRST):
            pieces.clear()
        pieces.append(piece)
        at = end
        if kind in (WHOLE, LAST):
            yield b"".join(pieces)
            pieces.clear()
    if at < len(content) or pieces:
        notes.append("the last record is not finished and is left for the next import")


def _values(items: Any) -> dict[str, Any]:
    """Return values by key, nested keys joined by dots; what is no JSON is left out."""
    found = {}
    for item in items:
        try:
            value = decoded(item.value_json)
        except ValueError:
            continue
        found[".".join(item.nested_key) or item.key] = value
    return found


def _add(history: Any, where: str, rows: Rows, times: dict[int, float]) -> None:
    """Add a row of the history: its numbers, at its own step.

    Raises:
        BadInput: the step is none.
    """
    values = {
        k: float(v) if v in ("NaN", "Infinity", "-Infinity") else v
        for k, v in _values(history.item).items()
    }
    told = (values.get(key) for key in STEP_KEYS)
    at = next((each for each in told if each is not None and each == each), history.step.num)  # noqa: PLR0124  # NaN alone is not itself
    step = whole_step(at)
    if step is None:
        allowed = f"allowed: a whole number from 0 to {MOST_STEP}"
        raise BadInput(f"file: {where}: step {at!r:.40}; {allowed}")
    if (time := moment(values.get("_timestamp"))) is not None:
        times[step] = time
    rows.add(
        step,
        {
            key: value
            for key, value in values.items()
            if isinstance(value, int | float) and not key.startswith("_") and key != STEP_KEYS[0]
        },
    )
