"""``python -m storage check|migrate|archive|delete|tag|note``: keep the archive in order."""

import argparse
import sys
import time
from collections.abc import Sequence

from sqlalchemy.exc import DBAPIError

from .check import inconsistencies
from .commandline import BadInput, print_json, tell
from .engine import shown, unchecked_engine
from .errors import ArchiveUnavailable
from .liveness import PulseReader
from .marks import checked_note, checked_tags
from .records import RunInfo
from .removal import remove_run
from .repair import repair
from .store import Store
from .words import counted, in_a_line


def check(store: Store, options: argparse.Namespace) -> int:
    """Print every inconsistency of the archive, or mend them; 1 when there is one in the end."""
    if options.repair:
        return _repair(store, options)
    found = inconsistencies(store)
    if options.json:
        print_json({"inconsistencies": found, "checked_at": time.time()})
    else:
        tell("\n".join(found) or "no inconsistency found")
    return 1 if found else 0


def _repair(store: Store, options: argparse.Namespace) -> int:
    told = repair(store)
    if options.json:
        none = {} if told.copy else {"copy_reason": "nothing was wrong, so nothing was changed"}
        copy = None if told.copy is None else str(told.copy)
        print_json({"copy": copy, **none, "done": told.done, "inconsistencies": told.left})
        return 1 if told.left else 0
    if told.copy is None:
        tell("no inconsistency found")
        return 0
    tell(f"the archive as it was is kept in {told.copy}")
    for line in told.done:
        tell(line)
    for line in told.left:
        tell(f"not mended: {line}")
    return 1 if told.left else 0


def migrate(options: argparse.Namespace) -> int:
    """Bring an archive to the newest schema, and give old runs the outlines they lack.

    Raises:
        ArchiveUnavailable: the database does not let itself be migrated.
    """
    from .migrate import upgrade  # alembic is slow to import

    engine = unchecked_engine(options.db)
    try:
        before, after = upgrade(engine)
        Store(engine).build_rollups()
    except DBAPIError as error:
        raise ArchiveUnavailable(f"db: cannot migrate {shown(engine.url)}: {error.orig}") from error
    finally:
        engine.dispose()
    if options.json:
        reason = {"before_reason": "empty"} if before is None else {}
        print_json({"before": before, "after": after, **reason})
    else:
        tell(f"schema {before or 'none'} -> {after}")
    return 0


def archive(store: Store, options: argparse.Namespace) -> int:
    """Put a run away, or bring it back."""
    store.update_run(options.run, archived=not options.undo)
    if options.json:
        print_json({"run_id": options.run, "archived": not options.undo})
    else:
        tell(f"{options.run} is {'back in the lists' if options.undo else 'archived'}")
    return 0


def delete(store: Store, options: argparse.Namespace) -> int:
    """Remove runs and every row of them, once all may go and it is confirmed.

    Raises:
        BadInput: one is alive, or nobody confirmed.
        RunNotFound: one is not in the archive.
    """
    given = list(dict.fromkeys(map(store.run_id_of, options.runs)))
    pulse = PulseReader()
    runs = [store.run(run_id) for run_id in given]
    faults = [
        f"run: {run.id} is {run.status}; stop it first: python -m trainer stop {run.id}"
        for run in runs
        if _alive(run, pulse)
    ]
    if faults:
        raise BadInput(*faults)
    steps = sum(store.step_counts(given).values())
    words = f"{counted(len(given), 'run')} with {counted(steps, 'step')}"
    if not options.yes and not _confirmed(words, runs):
        tell("nothing is deleted", file=sys.stderr)
        return 0
    for run_id in given:
        remove_run(store, run_id)
    if options.json:
        print_json({"deleted": given, "steps": steps})
    else:
        tell(f"deleted {words}")
    return 0


def _alive(run: RunInfo, pulse: PulseReader) -> bool:
    """Whether a process still writes this run; an imported log that grows has none of ours."""
    return pulse.status(run).alive and not (run.kind == "imported" and run.pid is None)


def _confirmed(words: str, runs: Sequence[RunInfo]) -> bool:
    if not sys.stdin.isatty():
        raise BadInput(f"yes: not given, and nobody to ask; add --yes to delete {words} for good")
    for run in runs:
        tell(in_a_line(f"{run.id}  {run.name}"), file=sys.stderr)
    tell(f"delete {words} for good? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def tag(store: Store, options: argparse.Namespace) -> int:
    """Give a run these tags and no others.

    Raises:
        BadInput: a tag is empty or too long.
    """
    words = checked_tags(options.words)
    run = store.run(options.run)
    store.tag_run(run.id, words)
    if options.json:
        print_json({"run_id": run.id, "tags": words})
    else:
        tell(f"{run.id}: {', '.join(words) or 'no tags'}")
    return 0


def note(store: Store, options: argparse.Namespace) -> int:
    """Write a note on a run in place of the one that is there; an empty one takes it away.

    Raises:
        BadInput: it is too long.
    """
    text = checked_note(options.text)
    store.update_run(options.run, notes=text)
    if options.json:
        reason = {"notes_reason": "taken away"} if text is None else {}
        print_json({"run_id": options.run, "notes": text, **reason})
    else:
        tell(f"{options.run}: {text or 'no note'}")
    return 0
