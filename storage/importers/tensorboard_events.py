"""Read TensorBoard event files: OpenRLHF, AReaL, NeMo-RL, SkyRL, slime, verl and TRL write them.

By TensorBoard's own reader, every event kept. Values are float32 there, so an imported rate of 1e-6
is 9.99999997e-07. What stands after a truncated record is not read.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..commandline import BadInput
from .logs import MOST_STEP, Log, moment, ordered

MARK = b"brain.Event:"
"""The first record of every event file names its version with this word."""
MARK_WITHIN = 64
PATTERN = "*.tfevents.*"
LACKING = "tensorboard is not installed; pip install -r requirements-tensorboard.txt"


def is_event_file(beginning: bytes) -> bool:
    """Whether a file that begins with these bytes holds TensorBoard events."""
    return MARK in beginning[:MARK_WITHIN]


def event_files(folder: Path) -> list[Path]:
    """Return the event files that lie in a folder itself, in the order they were begun."""
    return sorted(path for path in folder.glob(PATTERN) if path.is_file())


def read_events(files: list[Path], *, most_rows: int) -> Log:
    """Read the scalars of the event files of one run.

    Raises:
        BadInput: tensorboard is not there, a file is damaged, or there are more rows than allowed.
    """
    rows: dict[int, dict[str, Any]] = {}
    times: dict[int, float] = {}
    first: tuple[float, str] | None = None
    for file in files:
        for step, time, tag, value in _scalars(file):
            if not 0 <= step <= MOST_STEP:
                raise BadInput(
                    f"file: {tag!r:.60} stands at step {step}; allowed: 0 to {MOST_STEP}"
                )
            rows.setdefault(step, {})[tag] = value
            if len(rows) > most_rows:
                raise BadInput(f"rows: more than {most_rows}; allowed: at most {most_rows}")
            if (at := moment(time)) is not None:
                times[step] = at
            first = min(first or (time, tag), (time, tag))
    by_step, keys = ordered(rows)
    return Log(
        format="tensorboard",
        first=repr(first),
        rows=by_step,
        keys=keys,
        times=times,
        notes=("TensorBoard keeps values as float32",),
    )


def _scalars(file: Path) -> Iterator[tuple[int, float, str, float]]:
    """Yield (step, seconds since 1970, tag, value) in the order of the file."""
    try:
        from google.protobuf.message import DecodeError
        from tensorboard.backend.event_processing.event_file_loader import LegacyEventFileLoader
    except ImportError:
        raise BadInput(f"file: {LACKING}") from None
    faults = (ValueError, TypeError, KeyError, OSError, struct.error, DecodeError)
    sizes = (MemoryError, OverflowError)  # a record may claim any length
    try:
        for event in LegacyEventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if (number := _number(value)) is not None:
                    yield event.step, event.wall_time, value.tag, number
    except (*faults, *sizes) as error:
        what = str(error)[:80] or type(error).__name__
        raise BadInput(
            f"file: {file.name} is damaged ({what}); allowed: TensorBoard event files"
        ) from None


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
