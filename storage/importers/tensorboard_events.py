"""Read TensorBoard event files: OpenRLHF, AReaL, NeMo-RL, SkyRL, slime, verl and TRL write them.

By TensorBoard's own reader, every event kept, and the settings that some write beside. Values are
float32 there, so an imported rate of 1e-6 is 9.99999997e-07. A record that is still being written
is left for later, and said so; a damaged one is refused.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..commandline import BadInput
from .logs import MOST_STEP, Log, Rows, decoded, moment

MARK = b"brain.Event:"
"""The first record of every event file names its version with this word."""
MARK_WITHIN = 64
PATTERN = "*.tfevents.*"
LENGTH = struct.Struct("<Q")
FRAME = LENGTH.size + 2 * 4
"""Bytes of the length and the two checksums around a record."""
HPARAMS = "_hparams_/session_start_info"
"""What ``SummaryWriter.add_hparams`` writes, as NeMo-RL does, into a folder below the scalars'."""
ARGUMENTS = "args/text_summary"
"""The arguments of a trainer of transformers and TRL, as JSON."""
LACKING = "tensorboard is not installed; pip install -r requirements-tensorboard.txt"


def is_event_file(beginning: bytes) -> bool:
    """Whether a file that begins with these bytes holds TensorBoard events."""
    return MARK in beginning[:MARK_WITHIN]


def event_files(folder: Path) -> list[Path]:
    """Return the event files that lie in a folder itself, in the order they were begun.

    After them come those in folders below that hold settings.
    """
    own = sorted(path for path in folder.glob(PATTERN) if path.is_file())
    below = (path for path in folder.glob(f"*/{PATTERN}") if path.is_file())
    settings = (path for path in below if HPARAMS.encode() in _beginning(path))
    return own + sorted(settings) if own else []


def _beginning(file: Path) -> bytes:
    with file.open("rb") as opened:
        return opened.read(64 * 1024)


def read_events(files: list[Path], *, most_rows: int) -> Log:
    """Read the scalars of the event files of one run.

    Raises:
        BadInput: tensorboard is not there, a file is damaged, or there are more rows than allowed.
    """
    rows = Rows()
    settings: dict[str, Any] = {}
    times: dict[int, float] = {}
    first: tuple[float, str] | None = None
    notes = ["TensorBoard keeps values as float32"]
    for file in files:
        for step, time, tag, value in _scalars(file, settings, notes):
            if not 0 <= step <= MOST_STEP:
                raise BadInput(
                    f"file: {file.name}: {tag!r:.60} has step {step}; allowed: 0 to {MOST_STEP}"
                )
            rows.add(step, {tag: value})
            if len(rows) > most_rows:
                raise BadInput(f"rows: more than {most_rows}; allowed: at most {most_rows}")
            if (at := moment(time)) is not None:
                times[step] = at
            first = min(first or (time, tag), (time, tag))
    return Log(
        format="tensorboard",
        first=repr(first),
        rows=rows.ordered,
        keys=rows.keys,
        times=times,
        notes=(*notes, *rows.notes),
        settings=settings,
    )


def _scalars(
    file: Path, settings: dict[str, Any], notes: list[str]
) -> Iterator[tuple[int, float, str, float]]:
    """Yield (step, seconds since 1970, tag, value) in the order of the file; gather the rest."""
    try:
        from google.protobuf.message import DecodeError
        from tensorboard.compat.proto.event_pb2 import Event
    except ImportError:
        raise BadInput(f"file: {LACKING}") from None
    faults = (ValueError, TypeError, KeyError, OSError, struct.error, DecodeError)
    sizes = (MemoryError, OverflowError)  # a record may claim any length
    try:
        for record in _records(file, notes):
            event = Event.FromString(record)
            for value in event.summary.value:
                if value.tag in (HPARAMS, ARGUMENTS):
                    settings |= _settings(value)
                elif (number := _number(value)) is not None:
                    yield event.step, event.wall_time, value.tag, number
    except (*faults, *sizes) as error:
        what = str(error)[:80] or type(error).__name__
        raise BadInput(
            f"file: {file.name} is damaged ({what}); allowed: TensorBoard event files"
        ) from None


def _records(file: Path, notes: list[str]) -> Iterator[bytes]:
    """Yield the whole records of a file; a note tells of one that is not finished, or of none.

    TensorBoard's loader ends at a damaged record as it does at the end, so its reader is asked.

    Raises:
        ValueError: a record before the end is not what its checksum says.
    """
    from tensorboard.compat.tensorflow_stub.errors import DataLossError, OutOfRangeError
    from tensorboard.compat.tensorflow_stub.pywrap_tensorflow import PyRecordReader_New

    reader, read = PyRecordReader_New(str(file)), 0
    try:
        while True:
            reader.GetNext()
            read += len(reader.record()) + FRAME
            yield reader.record()
    except OutOfRangeError:
        pass
    except DataLossError as error:
        if not _is_unfinished(file, read, length_is_right="header crc32" not in str(error)):
            raise ValueError(f"a wrong checksum after byte {read}") from None
        notes.append(f"the last record of {file.name} is not finished: left for the next import")
    if not read:
        notes.append(f"{file.name} holds no whole record")


def _is_unfinished(file: Path, read: int, *, length_is_right: bool) -> bool:
    """Whether what is behind the whole records is one that its writer did not end.

    The file ends in it, or in the zeros that a crash of the machine leaves.
    """
    with file.open("rb") as opened:
        opened.seek(read)
        rest = opened.read()
    if length_is_right and len(rest) >= LENGTH.size:
        return len(rest) <= int(LENGTH.unpack_from(rest)[0]) + FRAME
    return length_is_right or not rest.strip(b"\0")


def _settings(value: Any) -> dict[str, Any]:
    """Return the settings that a summary holds; none where they are not readable."""
    from tensorboard.plugins.hparams.plugin_data_pb2 import HParamsPluginData

    if value.tag == HPARAMS:
        content = HParamsPluginData.FromString(value.metadata.plugin_data.content)
        held = content.session_start_info.hparams.items()
        return {name: getattr(each, each.WhichOneof("kind") or "null_value") for name, each in held}
    try:
        found = decoded(value.tensor.string_val[0].decode())
    except (ValueError, IndexError):
        return {}
    return found if isinstance(found, dict) else {}


def _number(value: Any) -> float | None:
    """Return the number of a scalar; None of a histogram, an image, a text.

    Only one number is ever decoded: a shape of a few bytes may claim terabytes.
    """
    from tensorboard.compat.tensorflow_stub import dtypes
    from tensorboard.util import tensor_util

    if value.HasField("simple_value"):
        return float(value.simple_value)
    if not value.HasField("tensor") or any(d.size != 1 for d in value.tensor.tensor_shape.dim):
        return None
    kind = dtypes.as_dtype(value.tensor.dtype)
    if not (kind.is_floating or kind.is_integer):
        return None
    return float(tensor_util.make_ndarray(value.tensor).reshape(()))
