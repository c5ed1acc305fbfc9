"""``python -m storage import|export``: runs from the logs of other trainers, and runs as files."""

import argparse
import contextlib
from dataclasses import asdict
from pathlib import Path

from .commandline import print_json
from .export import export_run
from .importers.importing import import_file
from .importers.told import pairs
from .store import Store


def import_log(options: argparse.Namespace) -> int:
    """Import a log into the archive, which is opened only when the log is sound."""
    told = pairs(options.set or [])
    with contextlib.ExitStack() as opened:

        def archive() -> Store:
            store = Store.open(options.db)
            opened.callback(store.close)
            return store

        done = import_file(
            archive,
            options.paths,
            format=options.format,
            stack=options.stack,
            name=options.name,
            group=options.group,
            settings=told,
        )
    if options.json:
        reason = {} if done.stack else {"stack_reason": "no key tells which stack wrote the log"}
        print_json({**asdict(done), **reason})
        return 0
    print(f"{done.run_id}  {done.rows} steps, {done.written} of them new  {done.stack or ''}")
    for key, column in done.mapped.items():
        print(f"  {_printable(key)} -> {column}")
    if done.unknown:
        print(f"kept as they are, not known: {_printable(', '.join(done.unknown))}")
    for line in done.notes:
        print(f"note: {line}")
    return 0


def _printable(key: str) -> str:
    """Return a key of a log as text; JSON can hold halves of characters, a terminal cannot."""
    return key.encode(errors="backslashreplace").decode()


def export(store: Store, options: argparse.Namespace) -> int:
    """Write a run into a file."""
    file = Path(options.to)
    rows = export_run(store, options.run, file, force=options.force)
    if options.json:
        print_json({"run_id": options.run, "file": str(file), "rows": rows})
    else:
        print(f"{options.run}: {rows} steps in {file}")
    return 0
