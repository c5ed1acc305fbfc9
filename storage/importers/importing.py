"""Import the log of another trainer as a run: whole or not at all, and as often as it grows."""

import hashlib
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

from ..commandline import BadInput, is_text
from ..records import RunInfo, RunStatus
from ..store import Store
from .columns import Plan, step_rows
from .logs import Log
from .reading import Source, read_logs
from .stacks import Stack
from .understanding import Understanding, understanding_of

MOST_BYTES = 512 * 2**20
MOST_ROWS = 2_000_000
_NAMELESS_FROM = ("checkpoint-", "events.out")
_NAMELESS = ("metrics", "trainer_state", "trainer", "orchestrator")


@dataclass(frozen=True, slots=True, kw_only=True)
class Imported:
    """What an import did: ``rows`` learner steps lie in the file, ``written`` of them were new.

    ``mapped`` tells which key became which column. All others are kept in ``extra`` of each step:
    ``kept_against`` are those measured against a policy (proximal, reference_model, or behavior
    where it fills no column), ``unknown`` those that the stack's table does not know.
    """

    run_id: str
    rows: int
    written: int
    format: str
    stack: str | None
    mapped: Mapping[str, str]
    kept_against: Mapping[str, str]
    unknown: tuple[str, ...]
    notes: tuple[str, ...]


def import_file(
    store: Store | Callable[[], Store],
    source: Source | Sequence[Source],
    *,
    format: str = "auto",
    stack: str | None = None,
    name: str | None = None,
    group: str | None = None,
    settings: Mapping[str, Any] | None = None,
    live: bool = False,
    run_name: str | None = None,
    most_bytes: int = MOST_BYTES,
    most_rows: int = MOST_ROWS,
) -> Imported:
    """Import a log; one that was imported before, or has grown since, renews the same run.

    Args:
        store: the archive, or what opens it once the file and the settings are found sound.
        source: a path, or the content as bytes or an open binary file; several are files of one
            run, such as prime-rl's trainer and orchestrator, and the first names it.
        format: ``auto`` (by content) or one of ``reading.FORMATS``.
        stack: name in ``STACKS``; None to tell by the keys.
        name: name of the run; None for the file's or its folder's.
        group: group of the run.
        settings: the configuration, see ``told.config_told``; None leaves what was told before.
        live: whether more rows are to come, so that the run counts as running.
        run_name: name of the run in a database that holds several.
        most_bytes: largest size that is read.
        most_rows: largest number of rows that is read.

    Raises:
        BadInput: the file or an option is not allowed; then nothing is written.
    """
    one = isinstance(source, str | Path | bytes) or not isinstance(source, Sequence)
    sources = cast(Sequence[Source], [source] if one else source)
    _checked_text("name", name)
    _checked_text("group", group)
    log = read_logs(
        sources, format=format, most_bytes=most_bytes, most_rows=most_rows, run=run_name
    )
    title = name or (log.name or _name_of(sources[0]))[:120]
    understanding_of(log, settings or {}, stack, {})  # what is not allowed opens no archive
    ending = hashlib.sha256(f"{title}\0{log.format}\0{log.first}".encode()).hexdigest()[:12]
    now = _written_at(sources[0])

    def imported(there: RunInfo | None) -> tuple[RunInfo, Iterable[dict[str, Any]]]:
        run = there or RunInfo(
            id=f"{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{ending}",
            name=title,
            kind="imported",
            created_at=now,
        )
        found = understanding_of(log, settings or {}, stack, run.source)
        _keeps_columns(run, found.stack, found.plan)
        run = replace(
            run,
            status=_status(there, live),
            started_at=min(log.times.values(), default=None),
            ended_at=None if live else max(log.times.values(), default=None),
            group=group or run.group,
            config=dict(found.config),
            seed=found.config.get("seed"),
            parameters=_whole(found.config.get("parameters")) or run.parameters,
            unmeasured=_unmeasured(log, found.plan),
            source=_source(sources, log, found),
        )
        return run, step_rows(log, found.plan, run.id, run.created_at)

    archive = store if isinstance(store, Store) else store()
    run, written = archive.import_run(ending, imported)
    return _as_imported(run, log, written)


def _source(sources: Sequence[Source], log: Log, found: Understanding) -> dict[str, Any]:
    """Return what the record of a run keeps of where it came from and how that was read."""
    return {
        "files": [str(each) for each in sources if isinstance(each, str | Path)],
        "format": log.format,
        "stack": found.stack.name if found.stack else None,
        "told": dict(found.told),
        "held": dict(found.held),
        "window": log.window,
        "learner_steps_per_version": found.updates_per_version if found.stack else None,
        "columns": {key: str(each.column) for key, each in found.plan.columns.items()},
        "references": dict(found.plan.references),
        "unknown_keys": list(found.plan.unknown),
        "notes": list(found.notes),
    }


def _as_imported(run: RunInfo, log: Log, written: int) -> Imported:
    return Imported(
        run_id=run.id,
        rows=len(log.rows),
        written=written,
        format=log.format,
        stack=run.source["stack"],
        kept_against={
            key: policy
            for key, policy in run.source["references"].items()
            if key not in run.source["columns"]
        },
        mapped=run.source["columns"],
        unknown=tuple(run.source["unknown_keys"]),
        notes=tuple(run.source["notes"]),
    )


def _status(there: RunInfo | None, live: bool) -> RunStatus:
    """Return how the run stands; a verdict that it has been given stays."""
    if live:
        return RunStatus.RUNNING
    return RunStatus.FINISHED if there is None or there.status.alive else there.status


def _keeps_columns(run: RunInfo, stack: Stack | None, plan: Plan) -> None:
    """Refuse another stack than before where it would empty columns of a run.

    Raises:
        BadInput: it would.
    """
    before, now = run.source.get("stack"), stack.name if stack else None
    lost = set(run.source.get("columns", {}).values()) - {m.column for m in plan.columns.values()}
    if before and now != before and lost:
        raise BadInput(
            f"stack: {now} would empty {', '.join(sorted(lost))} of run {run.id}, which was "
            f"imported as {before}; allowed: {before}, or delete the run first"
        )


def _whole(value: Any) -> int | None:
    return None if value is None else int(value)


def _unmeasured(log: Log, plan: Plan) -> dict[str, str]:
    reasons = dict(plan.reasons)
    if not log.times:
        reasons["time"] = "the log holds no times"
    return reasons


def _written_at(source: Source) -> float:
    if isinstance(source, str | Path):
        return os.stat(source).st_mtime  # noqa: PTH116  # a str is a path here too
    return time.time()


def _name_of(source: Source) -> str:
    """Return the file's name, or its folder's where every such file is called the same."""
    if isinstance(source, bytes):
        return "imported"
    path = Path(source if isinstance(source, str | Path) else getattr(source, "name", "imported"))
    parts = [path.stem, *(part.name for part in path.absolute().parents)]
    own = (part for part in parts if part not in _NAMELESS and not part.startswith(_NAMELESS_FROM))
    return next(own, "imported")[:120] or "imported"


def _checked_text(field: str, value: str | None) -> str | None:
    if value is not None and not (0 < len(value.strip()) <= 120 and is_text(value)):
        raise BadInput(f"{field}: {value[:60]!r} is not allowed; allowed: 1 to 120 characters")
    return value
