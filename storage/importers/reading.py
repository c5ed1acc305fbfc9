"""From the files of a run to its rows: size, text, and the format, which the content tells."""

from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO

from ..commandline import BadInput
from .jsonl import read_jsonl
from .logs import Log, decoded, merged
from .trainer_state import read_trainer_state

Source = str | Path | bytes | BinaryIO
_READERS = {"jsonl": read_jsonl, "trainer_state": read_trainer_state}


def read_logs(sources: Sequence[Source], *, format: str, most_bytes: int, most_rows: int) -> Log:
    """Read the files of one run, their rows merged by step: what a later file says holds.

    Args:
        sources: paths, contents as bytes, or open binary files; at least one.
        format: ``auto`` (by content), ``jsonl`` or ``trainer_state``.
        most_bytes: largest size of a file.
        most_rows: largest number of rows of a file.

    Raises:
        BadInput: a file is not allowed; with several its name stands before each fault.
    """
    logs = []
    for source in sources:
        try:
            logs.append(_read(_text(source, most_bytes), format, most_rows))
        except BadInput as error:
            if len(sources) == 1 or not isinstance(source, str | Path):
                raise
            raise BadInput(*(f"{source}: {line}" for line in str(error).splitlines())) from None
    return merged(logs)


def _text(source: Source, most_bytes: int) -> str:
    if isinstance(source, bytes):
        content = source
    elif isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            what = "is a folder" if path.is_dir() else "does not exist"
            raise BadInput(f"file: {path} {what}; allowed: a JSONL log or a trainer_state.json")
        with path.open("rb") as opened:
            content = opened.read(most_bytes + 1)
    else:
        content = source.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise BadInput(f"file: larger than allowed; allowed: at most {most_bytes} bytes")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise BadInput(
            f"file: byte {error.start} is no UTF-8 text; allowed: a JSONL log or a "
            "trainer_state.json, not compressed"
        ) from None


def format_of(text: str) -> str:
    """Tell the format of a log by its content: ``jsonl`` or ``trainer_state``.

    Raises:
        BadInput: it is neither.
    """
    lines = text.lstrip().split("\n", maxsplit=1)
    try:
        first = decoded(lines[0].strip())
    except (ValueError, RecursionError):
        first = None
    if isinstance(first, dict) and "log_history" not in first:
        return "jsonl"
    if lines[0].startswith("{") and '"log_history"' in text:
        return "trainer_state"
    raise BadInput(
        f"file: {lines[0][:60]!r} begins no known log; allowed: JSON objects, one a line, or a "
        "trainer_state.json"
    )


def _read(text: str, format: str, most_rows: int) -> Log:
    if format not in ("auto", *_READERS):
        raise BadInput(f"format: {format!r} is not allowed; allowed: auto | {' | '.join(_READERS)}")
    if not text.strip():
        raise BadInput("file: empty; allowed: a log with at least one row")
    log = _READERS[format_of(text) if format == "auto" else format](text, most_rows=most_rows)
    if not log.rows:
        raise BadInput("file: holds no row; allowed: a log with at least one row")
    return log
