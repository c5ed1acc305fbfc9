"""Everything a page does to the archive or starts: the one place, and for operators alone.

Pages draw and read; what they change goes through here, so a role holds whatever they offer.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from advisor import answer
from advisor.advice import Advice, Question
from advisor.dashboard.access import operators_only
from advisor.dashboard.archive import pulse_reader
from storage.commandline import BadInput
from storage.importers.importing import Imported, import_file
from storage.marks import checked_note, checked_tags
from storage.records import RunInfo, RunStatus
from storage.removal import remove_run
from storage.store import Store
from trainer import launch
from trainer.config import checked_config
from trainer.silence import end_if_silent

MOST_FILES = 8
MOST_BYTES = 50 * 2**20
MOST_ROWS = 200_000


@operators_only
def start(store: Store, settings: Mapping[str, Any]) -> str:
    """Start a run of these settings and return its id.

    Raises:
        NotAnOperator, BadInput: it may not be started; one line per fault.
    """
    return launch.launch(store, checked_config(settings))


@operators_only
def keep(store: Store, question: Question, advice: Advice, run_id: str | None = None) -> None:
    """Keep an answer, and which run followed it."""
    given = answer.keep(store, question, advice)
    if run_id is not None:
        store.update_run(run_id, recommendation_id=given)


@operators_only
def stop(store: Store, run_id: str) -> RunStatus:
    """Ask a run to stop after its present learner step, and return its status now.

    One that pages have watched to be silent on another host is ended.
    """
    launch.stop(store, run_id)
    return end_if_silent(store, run_id, pulse_reader())


@operators_only
def resume(store: Store, run_id: str) -> None:
    """Let a run go on from its newest checkpoint.

    Raises:
        NotAnOperator, BadInput: it may not; of another host's only one that pages have watched to
            be silent may.
    """
    launch.config_to_resume(store, run_id)  # before anything is ended
    end_if_silent(store, run_id, pulse_reader())
    launch.resume(store, run_id)


@operators_only
def archive(store: Store, run_id: str, archived: bool) -> None:
    """Put a run away, or bring it back."""
    store.update_run(run_id, archived=archived)


@operators_only
def delete(store: Store, run_id: str) -> None:
    """Remove a run and every row of it, for good."""
    remove_run(store, run_id)


@operators_only
def mark(store: Store, runs: Sequence[RunInfo], tags: str, note: str | None) -> None:
    """Tag runs in place of the tags they have in common, and note something; None: no note.

    Raises:
        NotAnOperator, BadInput: a tag or the note is not allowed.
    """
    words = checked_tags(word for word in tags.split(",") if word.strip())
    text = None if note is None else checked_note(note)
    known = store.tags()
    common = set.intersection(*(set(known.get(run.id, ())) for run in runs))
    for run in runs:
        store.tag_run(run.id, [*(t for t in known.get(run.id, ()) if t not in common), *words])
        if note is not None:
            store.update_run(run.id, notes=text)


@operators_only
def import_log(
    store: Store,
    files: Sequence[Any],
    *,
    name: str,
    stack: str | None,
    settings: Mapping[str, str],
) -> Imported:
    """Make a run of uploaded files.

    Raises:
        NotAnOperator, BadInput: they are too many or too large, or hold no log.
    """
    if len(files) > MOST_FILES:
        raise BadInput(f"log: {len(files)} files; allowed: at most {MOST_FILES} of one run")
    size = sum(file.size for file in files)
    if size > MOST_BYTES:
        raise BadInput(f"log: {size} bytes in all; allowed: at most {MOST_BYTES}")
    return import_file(
        store,
        [file.getvalue() for file in files],
        name=name,
        stack=stack,
        settings=settings,
        most_bytes=MOST_BYTES,
        most_rows=MOST_ROWS // len(files),
    )
