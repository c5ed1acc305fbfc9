"""Real processes for tests: ``python -m …`` in the project, with a home and archive of its own."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
PATIENCE = 240.0
"""Seconds that something may take on a busy machine; only what never happens takes them."""


def environment(home: Path) -> dict[str, str]:
    """Return the environment of a process whose archive and warm starts lie in ``home``."""
    ours = ("ETALON_DB", "ETALON_HOME", "PYTHONWARNINGS")
    kept = {name: value for name, value in os.environ.items() if name not in ours}
    return {**kept, "ETALON_HOME": str(home), "HF_HUB_OFFLINE": "1"}


def start(*words: str, home: Path) -> "subprocess.Popen[str]":
    """Start ``python WORDS`` and return at once."""
    return subprocess.Popen(
        [sys.executable, *words],
        cwd=PROJECT,
        env=environment(home),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def command(
    *words: str, home: Path, timeout: float = PATIENCE
) -> "subprocess.CompletedProcess[str]":
    """Run ``python WORDS`` to its end."""
    return ended(start(*words, home=home), timeout)


def ended(
    process: "subprocess.Popen[str]", timeout: float = PATIENCE
) -> "subprocess.CompletedProcess[str]":
    """Wait for a started process; one that hangs is killed and fails the test."""
    try:
        out, err = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, out, err)


def wait_until(true: Callable[[], bool], seconds: float = PATIENCE) -> None:
    """Wait for something another process does."""
    until = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < until, "it did not happen in time"
        time.sleep(0.05)


@contextmanager
def own_port() -> Iterator[int]:
    """Give a port that a server may listen at and that nobody else is given meanwhile.

    It is bound here, without listening, so that the system hands it to no other process; a server
    that may reuse an address, as all do on Linux, binds it beside.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]
