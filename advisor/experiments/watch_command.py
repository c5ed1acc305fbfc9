"""``python -m advisor watch``: judge live runs again and again, and say what changed."""

import argparse
import signal
import time
from contextlib import closing

import psutil

from storage.commandline import BadInput, print_json
from storage.store import Store

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
    parser.add_argument("--beside", metavar="PID", help="end when this process is gone")


def run(options: argparse.Namespace) -> int:
    """Carry out ``watch`` and return its exit code."""
    every = _seconds(options.every)
    beside = None if options.beside is None else _process(options.beside)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like an interrupt
    stored = 0
    with closing(Store.open(options.db)) as store:
        watcher = Watcher(store)
        while True:
            alive, events = watcher.look()
            stored += len(events)
            if not options.json:
                for event in events:
                    print(f"{event.run_id} step {event.step}: {event.message}", flush=True)
            if options.until_idle and not alive:
                break
            if beside is not None and _is_gone(beside):
                break
            time.sleep(every)
    if options.json:
        print_json({"events": stored})
    return 0


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


def _is_gone(process: psutil.Process) -> bool:
    """Whether a process has ended; one that nobody has waited for yet has."""
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True
