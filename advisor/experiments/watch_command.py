"""``python -m advisor watch``: judge live runs again and again, and start those that wait."""

import argparse
import signal
import time
from collections.abc import Iterator
from contextlib import closing

import psutil

from storage.commandline import BadInput, print_json
from storage.patience import patiently
from storage.records import RunInfo
from storage.store import Store
from trainer.launch import start_queued
from trainer.sweep import MOST_JOBS

from .watch import Watcher

DEFAULT_SECONDS = 5.0


def add_watch_options(parser: argparse.ArgumentParser) -> None:
    """Add how often to look, and when to end."""
    parser.add_argument(
        "--every", metavar="SECONDS", default=str(DEFAULT_SECONDS), help="between looks (5)"
    )
    parser.add_argument(
        "--until-idle", action="store_true", help="end when no run is alive any more"
    )
    words = "start runs that were added with trainer run --later, so many at a time"
    parser.add_argument("--max-parallel", metavar="N", help=words)
    parser.add_argument("--beside", metavar="PID", help="end when this process is gone")


def run(options: argparse.Namespace) -> int:
    """Carry out ``watch`` and return its exit code."""
    every = _seconds(options.every)
    most = None if options.max_parallel is None else _count(options.max_parallel)
    beside = None if options.beside is None else _process(options.beside)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like an interrupt
    stored = 0
    with closing(Store.open(options.db)) as store:
        watcher = Watcher(store)
        while True:
            if most is not None:
                for run in _started(store, most):
                    if not options.json:
                        print(f"{run.id} is starting", flush=True)
            alive, events = patiently(watcher.look, stopped=lambda: _is_over(beside))
            stored += len(events)
            if not options.json:
                for event in events:
                    print(f"{event.run_id} step {event.step}: {event.message}", flush=True)
            if options.until_idle and not alive:
                break
            if _is_over(beside):
                break
            time.sleep(every)
    if options.json:
        print_json({"events": stored})
    return 0


def _started(store: Store, most: int) -> Iterator[RunInfo]:
    """Start runs that wait until as many live here as may."""
    while (run := start_queued(store, most)) is not None:
        yield run


def _count(text: str) -> int:
    if text.isdecimal() and 1 <= int(text) <= MOST_JOBS:
        return int(text)
    raise BadInput(
        f"max-parallel: {text!r} is not allowed; "
        f"allowed: whole number, 1 <= max-parallel <= {MOST_JOBS}"
    )


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.1 <= value <= 3600:
        raise BadInput(f"every: {text!r} is not allowed; allowed: 0.1 <= every <= 3600, in seconds")
    return value


def _process(text: str) -> psutil.Process:
    try:
        return psutil.Process(int(text))
    except (ValueError, psutil.NoSuchProcess):
        raise BadInput(
            f"beside: {text!r} is not allowed; allowed: the id of a running process"
        ) from None


def _is_over(process: psutil.Process | None) -> bool:
    """Whether the process beside has ended, if there is one; a zombie has."""
    try:
        return process is not None and (
            not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
        )
    except psutil.NoSuchProcess:
        return True
