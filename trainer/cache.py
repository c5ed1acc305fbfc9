"""Folders that are made once: named by the hash of everything they depend on.

A folder is published by a rename, complete with its card; a process that dies half-way leaves
nothing under the final name, and of two that make the same one the first wins. What it leaves under
another, hidden name, which says whose it is, goes when the next folder is made.
"""

import contextlib
import hashlib
import json
import logging
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from storage.liveness import process_mark

ABANDONED_SECONDS = 24 * 3600
logger = logging.getLogger(__name__)


def cached_folder(
    shelf: Path,
    card: str,
    identity: Mapping[str, Any],
    make: Callable[[Path], Mapping[str, Any]],
) -> Path:
    """Return the folder of this identity, made first if it is not there.

    Args:
        shelf: folder of folders.
        card: name of the JSON file that holds the identity and what ``make`` returned.
        identity: everything the contents depend on.
        make: fills the empty folder it is given and returns what is worth knowing about it.
    """
    key = hashlib.sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest()[:16]
    folder = shelf / key
    if (folder / card).exists():
        return folder
    shelf.mkdir(parents=True, exist_ok=True)
    _clear(shelf)
    making = Path(tempfile.mkdtemp(prefix=f".{key}-{_owner(os.getpid())}-", dir=shelf))
    try:
        found = make(making)
        (making / card).write_text(json.dumps({**identity, **found}, indent=1))
        _publish(making, folder, card)
    finally:
        shutil.rmtree(making, ignore_errors=True)
    return folder


def _owner(pid: int) -> str:
    """Name a process as none before or after it on any host, as far as a file name goes."""
    return f"{_short(socket.gethostname())}-{pid}-{_short(str(process_mark(pid)))}"


def _short(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def _clear(shelf: Path) -> None:
    """Remove half-made folders whose process is gone from this host, or that are a day old."""
    for folder in shelf.glob(".*-*"):
        with contextlib.suppress(FileNotFoundError):  # its process has just finished it
            old = time.time() - folder.stat().st_mtime > ABANDONED_SECONDS
            if old or _abandoned(folder.name):
                logger.info("removing %s, which was never finished", folder)
                shutil.rmtree(folder, ignore_errors=True)


def _abandoned(name: str) -> bool:
    match name.split("-"):
        case [_, host, pid, mark, _] if host == _short(socket.gethostname()):
            try:
                return _owner(int(pid)) != f"{host}-{pid}-{mark}"
            except PermissionError:  # another user's process, which may live
                return False
    return False


def read_card(folder: Path, card: str) -> dict[str, Any]:
    """Return what is known about a cached folder."""
    known: dict[str, Any] = json.loads((folder / card).read_text())
    return known


def _publish(making: Path, folder: Path, card: str) -> None:
    """Rename into place; another process may have finished the same folder first.

    A folder without its card has lost part of what it held, and is replaced.
    """
    try:
        making.replace(folder)
    except OSError:
        if (folder / card).exists():
            logger.info("another run made the same first: %s", folder)
            return
        shutil.rmtree(folder)
        making.replace(folder)


def content_key(folder: Path) -> str:
    """Return the hash of a model's files: the same contents anywhere, the same key."""
    digest = hashlib.sha256()
    for file in sorted(file for file in folder.iterdir() if file.is_file()):
        digest.update(file.name.encode() + b"\0")
        with file.open("rb") as stream:
            digest.update(hashlib.file_digest(stream, "sha256").digest())
    return digest.hexdigest()[:16]
