"""``python -m storage import|export``: runs from the logs of other trainers, and runs as files."""

import argparse
import contextlib
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

from .commandline import BadInput, print_json, tell
from .export import export_run
from .importers.importing import Imported, import_file
from .importers.told import pairs
from .store import Store
from .words import counted, in_a_line

FOLLOW_SECONDS = 5.0
READING_SHARE = 0.1
"""Of the time, at most; a log that takes long to read is read more seldom."""


def import_log(options: argparse.Namespace) -> int:
    """Import a log into the archive, which is opened only when the log is sound."""
    with contextlib.ExitStack() as opened:
        stores: list[Store] = []

        def archive() -> Store:
            if not stores:
                stores.append(Store.open(options.db))
                opened.callback(stores[0].close)
            return stores[0]

        if not options.follow:
            _say(_imported(options, archive, live=False), options)
            return 0
        _follow(options, archive)
    return 0


def _follow(options: argparse.Namespace, archive: Callable[[], Store]) -> None:
    """Import a log again whenever it has grown, until interrupted; then the run has ended."""
    seen: object = None
    said = False
    try:
        while True:
            began, now = time.monotonic(), _looks(options.paths)
            if now != seen:
                seen = now
                try:
                    done = _imported(options, archive, live=True)
                except BadInput as fault:
                    if not said:
                        raise
                    tell(f"read again when it changes: {fault}", file=sys.stderr, flush=True)
                else:
                    _say_growth(done, options, said=said)
                    said = True
            time.sleep(max(FOLLOW_SECONDS, (time.monotonic() - began) / READING_SHARE))
    finally:
        if said:
            _imported(options, archive, live=False)


def _say_growth(done: Imported, options: argparse.Namespace, *, said: bool) -> None:
    if not said:
        _say(done, options)
    elif not options.json and done.written:
        tell(f"{done.run_id}  {counted(done.rows, 'step')}, {done.written} of them new", flush=True)


def _looks(paths: Sequence[str]) -> object:
    """Return what changes when a log grows: of every file its size and time."""
    beside = [Path(f"{path}-wal") for path in paths]  # of a database, what is newest
    files = [sorted(p.iterdir()) if p.is_dir() else [p] for p in [*map(Path, paths), *beside]]
    states = [(file, file.stat()) for each in files for file in each if file.exists()]
    return [(str(file), state.st_size, state.st_mtime_ns) for file, state in states]


def _imported(options: argparse.Namespace, archive: Callable[[], Store], *, live: bool) -> Imported:
    return import_file(
        archive,
        options.paths,
        format=options.format,
        stack=options.stack,
        name=options.name,
        group=options.group,
        settings=pairs(options.set or []),
        live=live,
        run_name=options.run,
    )


def _say(done: Imported, options: argparse.Namespace) -> None:
    if options.json:
        reason = {} if done.stack else {"stack_reason": "no key tells which stack wrote the log"}
        print_json({**asdict(done), **reason})
        return
    steps = counted(done.rows, "step")
    tell(f"{done.run_id}  {steps}, {done.written} of them new  {done.stack or ''}")
    for key, column in done.mapped.items():
        tell(in_a_line(f"  {key} -> {column}"))
    for key, policy in done.kept_against.items():
        tell(in_a_line(f"  {key} is kept as it is: against the {policy} policy"))
    if done.unknown:
        tell(in_a_line(f"kept as they are, not known: {', '.join(done.unknown)}"))
    for line in done.notes:
        tell(f"note: {line}")
    sys.stdout.flush()


def export(store: Store, options: argparse.Namespace) -> int:
    """Write a run into a file."""
    file = Path(options.to)
    rows = export_run(store, options.run, file, force=options.force)
    if options.json:
        print_json({"run_id": options.run, "file": str(file), "rows": rows})
    else:
        tell(f"{options.run}: {counted(rows, 'step')} in {file}")
    return 0
