"""``python -m storage copy FROM TO``: move an archive into a new file or to another database."""

import argparse
import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tqdm import tqdm

from .commandline import INTERRUPTED, print_json, tell
from .copying import copy_archive, is_empty, refuse_living, refuse_unsent
from .engine import database_url
from .liveness import PulseReader
from .models import runs
from .store import Store
from .terminal import for_progress
from .words import counted


def add_parser(commands: Any) -> None:
    """Add the command to those of ``python -m storage``; the archives stand in no option."""
    words = "copy an archive into a new file or an empty database, and compare every row"
    parser = commands.add_parser("copy", help=words, description=words)
    for name in ("from", "to"):
        parser.add_argument(name, metavar=name.upper(), help="file, sqlite:///… or postgresql+…")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def copy(options: argparse.Namespace) -> int:
    """Copy an archive; what is interrupted leaves the new one as it was.

    Raises:
        CopyRefused: the new archive holds something, or a run of the old one is alive or was not
            sent to its end.
    """
    given = vars(options)
    begun = time.monotonic()
    source = Store.open(given["from"], create=False)
    try:
        pulse = PulseReader()
        refuse_living(source, pulse)
        refuse_unsent(source)
        with _new_archive(given["to"]) as target:
            with tqdm(unit="row", unit_scale=True, disable=None, file=for_progress()) as bar:

                def progress(done: int, total: int) -> None:
                    bar.total = total
                    bar.update(done - bar.n)

                copied = copy_archive(source, target, pulse, progress)
            shown = {"from": source.shown_url, "to": target.shown_url}
    except KeyboardInterrupt:
        tell("interrupted; nothing is copied", file=sys.stderr)
        return INTERRUPTED
    finally:
        source.close()
    seconds = time.monotonic() - begun
    if options.json:
        counts = {"rows": copied.rows, "altered_rows": copied.altered}
        print_json({**shown, **counts, "seconds": seconds})
        return 0
    rows = counted(sum(copied.rows.values()), "row")
    tell(f"{rows} in {seconds:.1f} s, each compared: {shown['from']} -> {shown['to']}")
    if copied.altered:
        altered = counted(copied.altered, "row")
        tell(f"{altered} with a NUL, which PostgreSQL's text cannot hold: ␀ stands for it")
    return 0


@contextlib.contextmanager
def _new_archive(given: str) -> Iterator[Store]:
    """Open the archive to copy to; a file that was made for it goes again when nothing came of it.

    A database stays, with empty tables.
    """
    url = database_url(given)
    path = Path(str(url.database)) if url.get_backend_name() == "sqlite" else None
    is_new = path is not None and not path.exists()
    target = Store.open(given)
    try:
        yield target
    except BaseException:
        with target.reading() as connection:
            is_used = not is_empty(connection, runs)  # by somebody who waited for us to end
        target.close()
        if is_new and path is not None and not is_used:
            path.unlink()
        raise
    finally:
        target.close()
