"""From the files of a run to its rows: size, content, and the format, which the content tells."""

import codecs
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

from ..commandline import BadInput
from .jsonl import read_jsonl
from .logs import Log, TooDeep, decoded, merged
from .tensorboard_events import event_files, is_event_file, read_events
from .trackio_database import is_database, read_trackio
from .trainer_state import read_trainer_state
from .wandb_file import is_wandb_file, read_wandb

Source = str | Path | bytes | BinaryIO
FORMATS = ("jsonl", "tensorboard", "trainer_state", "trackio", "wandb")
_OF_TEXT = {"jsonl": read_jsonl, "trainer_state": read_trainer_state}
ALLOWED = (
    "a JSONL log, a trainer_state.json, TensorBoard event files or their folder, the database "
    "of a trackio project, or a run-….wandb file"
)


def read_logs(
    sources: Sequence[Source],
    *,
    format: str,
    most_bytes: int,
    most_rows: int,
    run: str | None = None,
) -> Log:
    """Read the files of one run, their rows merged by step: what a later file says holds.

    Args:
        sources: paths, contents as bytes, or open binary files; at least one.
        format: ``auto`` (by content) or one of ``FORMATS``.
        most_bytes: largest size of a file.
        most_rows: largest number of rows of a file.
        run: name of the run where a file holds several.

    Raises:
        BadInput: a file is not allowed; where it has a name that stands before each fault.
    """
    if format not in ("auto", *FORMATS):
        raise BadInput(f"format: {format!r} is not allowed; allowed: auto | {' | '.join(FORMATS)}")
    logs = []
    for source in sources:
        try:
            logs.append(_read(source, format, most_bytes, most_rows, run))
        except BadInput as error:
            if not isinstance(source, str | Path):
                raise
            raise BadInput(*(_named(source, line) for line in str(error).splitlines())) from None
    return merged(logs)


def _named(source: str | Path, fault: str) -> str:
    return fault if str(source) in fault else f"file: {source}: {fault.removeprefix('file: ')}"


def _read(source: Source, format: str, most_bytes: int, most_rows: int, run: str | None) -> Log:
    if source == "":
        raise BadInput(f"file: '' names none; allowed: {ALLOWED}")
    if isinstance(source, str | Path) and Path(source).is_dir():
        log = _read_folder(Path(source), format, most_bytes, most_rows)
    else:
        content = _content(source, most_bytes)
        found = _format_of(content) if format == "auto" else _as_said(format, content)
        if found in _OF_TEXT:
            text = _text(content)
            del content  # as large as the text, and as long as that is read
            log = _OF_TEXT[found](text, most_rows=most_rows)
            if found == "jsonl" and isinstance(source, str | Path):
                settings, notes = _config_beside(Path(source), most_bytes)
                log = replace(log, settings=settings, notes=(*log.notes, *notes))
        elif found == "wandb":
            log = read_wandb(content, most_rows=most_rows)
        else:
            with _as_file(source, content) as file:
                if found == "tensorboard":
                    log = read_events([file], most_rows=most_rows)
                else:
                    log = read_trackio(file, most_bytes=most_bytes, most_rows=most_rows, run=run)
    if not log.rows:
        raise BadInput("file: holds no row; allowed: a log with at least one row")
    return log


def _config_beside(file: Path, most_bytes: int) -> tuple[dict[str, Any], list[str]]:
    """Return the settings that tinker-cookbook writes beside its metrics.jsonl, and notes."""
    config = file.with_name("config.json")
    if file.name != "metrics.jsonl" or not config.is_file():
        return {}, []
    try:
        found = decoded(_text(_content(config, most_bytes)))
    except ValueError as error:
        return {}, [f"config.json beside the log is not read: {str(error)[:80]}"]
    if not isinstance(found, dict):
        return {}, ["config.json beside the log is not read: it is no JSON object"]
    return found, []


def _read_folder(folder: Path, format: str, most_bytes: int, most_rows: int) -> Log:
    files = event_files(folder) if format in ("auto", "tensorboard") else []
    if not files:
        raise BadInput(
            f"file: {folder} is a folder without TensorBoard event files; allowed: {ALLOWED}"
        )
    size = sum(file.stat().st_size for file in files)
    if size > most_bytes:
        raise BadInput(f"file: {size} bytes in {folder}; allowed: at most {most_bytes} bytes")
    return read_events(files, most_rows=most_rows)


def _content(source: Source, most_bytes: int) -> bytes:
    if isinstance(source, bytes):
        content = source
    elif isinstance(source, str | Path):
        path = Path(source)
        if not path.is_file():
            raise BadInput(f"file: {path} does not exist; allowed: {ALLOWED}")
        with path.open("rb") as opened:
            content = opened.read(most_bytes + 1)
    else:
        content = source.read(most_bytes + 1)
    if len(content) > most_bytes:
        raise BadInput(f"file: larger than allowed; allowed: at most {most_bytes} bytes")
    return content


@contextmanager
def _as_file(source: Source, content: bytes) -> Iterator[Path]:
    """Give a file for readers that take no bytes; an uploaded one lives as long as it is read."""
    if isinstance(source, str | Path):
        yield Path(source)
        return
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "uploaded"
        file.write_bytes(content)
        yield file


def _format_of(content: bytes) -> str:
    """Tell the format of a log by its content.

    Raises:
        BadInput: it is none of ``FORMATS``.
    """
    if is_event_file(content):
        return "tensorboard"
    if is_database(content):
        return "trackio"
    if is_wandb_file(content):
        return "wandb"
    return format_of(_text(content))


def _as_said(format: str, content: bytes) -> str:
    """Return the format that was told, once the file begins as that does.

    Raises:
        BadInput: it begins otherwise.
    """
    begins = {"tensorboard": is_event_file, "wandb": is_wandb_file, "trackio": is_database}
    if format in begins and not begins[format](content):
        raise BadInput(f"file: is not of format {format}; allowed: one that is, or --format auto")
    return format


def _text(content: bytes) -> str:
    """Return a file as text; a character that its very end has cut is left out.

    Raises:
        BadInput: it is no text, or empty.
    """
    try:
        text = codecs.getincrementaldecoder("utf-8-sig")().decode(content)
    except UnicodeDecodeError as error:
        raise BadInput(
            f"file: byte {error.start} is no UTF-8 text; allowed: {ALLOWED}, not compressed"
        ) from None
    if not text or text.isspace():
        raise BadInput("file: empty; allowed: a log with at least one row")
    return text


def format_of(text: str) -> str:
    """Tell the format of a log that is text: ``jsonl`` or ``trainer_state``.

    Raises:
        BadInput: it is neither.
    """
    begin = text.lstrip()
    end = begin.find("\n")
    line = begin if end < 0 else begin[:end]
    first, why = None, ""
    try:
        first = decoded(line.strip())
    except TooDeep as error:
        why = f", it is {error}"
    except ValueError:
        pass
    if isinstance(first, dict) and "log_history" not in first:
        return "jsonl"
    if line.startswith("{") and '"log_history"' in text:
        return "trainer_state"
    raise BadInput(f"file: {line[:60]!r} begins no known log{why}; allowed: {ALLOWED}")
