"""The store: the only place that knows SQL. Records go in, records come out, rows never leave.

Every write is one short transaction; every read opens and closes its own, because a long reader
stops SQLite from checkpointing its log. Writing a step or an evaluation twice leaves one row.
"""

import math
import secrets
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, fields, replace
from difflib import get_close_matches
from typing import Any

from sqlalchemy import Connection, Engine, RowMapping, Table, func, select, text, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import DBAPIError, IntegrityError

from .engine import open_engine
from .errors import ArchiveUnavailable, CalibrationNotFound, RunExists, RunNotFound
from .models import (
    bias_probes,
    calibrations,
    drifts,
    evaluations,
    events,
    recommendations,
    runs,
    steps,
)
from .records import (
    BiasProbe,
    Calibration,
    Evaluation,
    Event,
    LagDrift,
    Recommendation,
    RunInfo,
    RunStatus,
    StepMetrics,
)

_INSERT = {"sqlite": sqlite.insert, "postgresql": postgresql.insert}
_REPLACED = (runs, steps, evaluations, drifts, bias_probes)
"""Tables in which a row of the same key replaces the one that is there."""


def new_run_id(now: float | None = None) -> str:
    """Return a fresh id whose text order is the order of creation (UTC second, then chance)."""
    moment = time.gmtime(time.time() if now is None else now)
    return f"{time.strftime('%Y%m%d-%H%M%S', moment)}-{secrets.token_hex(3)}"


class Store:
    """An open archive. One instance per process; safe to share between its threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        insert = _INSERT[engine.dialect.name]
        self._upserts = {table: _upsert(insert, table) for table in _REPLACED}

    @classmethod
    def open(cls, url: str | None = None, *, create: bool = True) -> "Store":
        """Open the archive at a URL or path (None: the configured default); see ``open_engine``."""
        return cls(open_engine(url, create=create))

    @property
    def url(self) -> str:
        """The URL under which another process opens the same archive."""
        return self._engine.url.render_as_string(hide_password=False)

    def close(self) -> None:
        """Return every connection."""
        self._engine.dispose()

    # -- runs ---------------------------------------------------------------------------------

    def create_run(self, run: RunInfo) -> None:
        """Add a run.

        Raises:
            RunExists: a run of that id is there already.
        """
        try:
            with self.writing() as connection:
                connection.execute(runs.insert(), _to_row(run))
        except IntegrityError:
            raise RunExists(f"run: {run.id} is in the archive already") from None

    def update_run(self, run_id: str, **changes: Any) -> None:
        """Change some fields of a run.

        Raises:
            RunNotFound: there is no such run.
        """
        this = runs.c.id == run_id
        with self.writing() as connection:
            found = connection.execute(select(runs.c.non_finite).where(this)).first()
            if found is not None:
                kept = [name for name in found.non_finite or () if name not in changes]
                values = _storable(changes)
                values["non_finite"] = kept + (values["non_finite"] or []) or None
                connection.execute(update(runs).where(this).values(values))
        if found is None:
            raise self._not_found(run_id)

    def run(self, run_id: str) -> RunInfo:
        """Return one run.

        Raises:
            RunNotFound: there is no such run; the message names the nearest ids.
        """
        with self.reading() as connection:
            row = connection.execute(select(runs).where(runs.c.id == run_id)).mappings().first()
        if row is None:
            raise self._not_found(run_id)
        return _run_info(row)

    def runs(self, *, archived: bool | None = None, group: str | None = None) -> list[RunInfo]:
        """Return the runs, newest first; ``archived`` and ``group`` filter, None keeps all."""
        query = select(runs).order_by(runs.c.id.desc())
        if archived is not None:
            query = query.where(runs.c.archived.is_(archived))
        if group is not None:
            query = query.where(runs.c.group == group)
        with self.reading() as connection:
            return [_run_info(row) for row in connection.execute(query).mappings()]

    def claim_run(self, run_id: str, **changes: Any) -> bool:
        """Mark a queued run as running, with these changes; False when it is not to be had.

        Of all processes that try, one gets it. A run that was put away is not to be had.
        """
        queued = (runs.c.id == run_id) & (runs.c.status == RunStatus.QUEUED) & ~runs.c.archived
        values = {"status": RunStatus.RUNNING, **changes}
        with self.writing() as connection:
            return connection.execute(update(runs).where(queued).values(values)).rowcount == 1

    def revise_group(
        self, group: str, revised: Callable[[list[RunInfo]], Iterable[RunInfo]]
    ) -> None:
        """Write what ``revised`` makes of the runs of a group, newest first, in one transaction.

        A record of a new id is added, one of a known id replaced. Nobody else writes a run in
        between, so two processes that add what is missing do not add it twice.
        """
        query = select(runs).where(runs.c.group == group).order_by(runs.c.id.desc())
        with self.writing() as connection:
            if connection.dialect.name == "postgresql":  # SQLite has one writer anyway
                connection.execute(text("LOCK TABLE runs IN SHARE ROW EXCLUSIVE MODE"))
            found = [_run_info(row) for row in connection.execute(query).mappings()]
            for run in revised(found):
                connection.execute(self._upserts[runs], _to_row(run))

    def heartbeat(self, run_id: str, now: float) -> bool:
        """Count one sign of life of a run and return whether somebody asked it to stop."""
        with self.writing() as connection:
            connection.execute(
                update(runs)
                .where(runs.c.id == run_id)
                .values(heartbeat_count=runs.c.heartbeat_count + 1, heartbeat_at=now)
            )
            asked = connection.execute(select(runs.c.stop_requested).where(runs.c.id == run_id))
            return bool(asked.scalar())

    def _not_found(self, run_id: str) -> RunNotFound:
        with self.reading() as connection:
            known = list(connection.execute(select(runs.c.id)).scalars())
        near = get_close_matches(run_id, known, n=3, cutoff=0.5)
        hint = f"nearest: {', '.join(near)}" if near else f"the archive holds {len(known)} runs"
        return RunNotFound(f"run: {run_id!r} is not in the archive; {hint}")

    # -- steps --------------------------------------------------------------------------------

    def append_step(self, row: StepMetrics) -> None:
        """Write one learner step in one transaction; the same step again replaces it.

        Raises:
            RunNotFound: the run is not in the archive.
        """
        self._replace(steps, row)

    def steps(self, run_id: str, *, after: int = -1, last: int | None = None) -> list[StepMetrics]:
        """Return the steps of a run beyond ``after`` in order; only the ``last`` n if given."""
        query = select(steps).where(steps.c.run_id == run_id, steps.c.step > after)
        query = query.order_by(steps.c.step.desc() if last is not None else steps.c.step)
        with self.reading() as connection:
            rows = connection.execute(query.limit(last)).mappings().all()
        found = [_from_row(StepMetrics, row) for row in rows]
        return found[::-1] if last is not None else found

    def series(self, run_id: str, names: Sequence[str], *, after: int = -1) -> dict[str, list[Any]]:
        """Return whole columns of a run by name, ordered by step; None and NaN are kept apart."""
        columns = [steps.c[name] for name in names]
        query = select(steps.c.non_finite, *columns).where(
            steps.c.run_id == run_id, steps.c.step > after
        )
        series: dict[str, list[Any]] = {name: [] for name in names}
        with self.reading() as connection:
            for non_finite, *values in connection.execute(query.order_by(steps.c.step)):
                for name, value in zip(names, values, strict=True):
                    is_nan = value is None and non_finite and name in non_finite
                    series[name].append(math.nan if is_nan else value)
        return series

    def step_counts(self) -> dict[str, int]:
        """Return the number of stored learner steps of every run that has any."""
        query = select(steps.c.run_id, func.count()).group_by(steps.c.run_id)
        with self.reading() as connection:
            return {run_id: int(count) for run_id, count in connection.execute(query)}

    # -- evaluations, events, recommendations ----------------------------------------------------

    def append_evaluation(self, row: Evaluation) -> None:
        """Write one evaluation of the current policy; the same step again replaces it.

        Raises:
            RunNotFound: the run is not in the archive.
        """
        self._replace(evaluations, row)

    def evaluations(self, run_id: str) -> list[Evaluation]:
        """Return the evaluations of a run in the order of their steps."""
        query = select(evaluations).where(evaluations.c.run_id == run_id)
        with self.reading() as connection:
            rows = connection.execute(query.order_by(evaluations.c.step)).mappings()
            return [_from_row(Evaluation, row) for row in rows]

    def append_drift(self, row: LagDrift) -> None:
        """Write how far the weights went over one lag; the same step and lag again replaces it.

        Raises:
            RunNotFound: the run is not in the archive.
        """
        self._replace(drifts, row)

    def drifts(self, run_id: str) -> list[LagDrift]:
        """Return the drifts of a run by lag, in the order of their steps."""
        query = select(drifts).where(drifts.c.run_id == run_id)
        with self.reading() as connection:
            rows = connection.execute(query.order_by(drifts.c.step, drifts.c.lag)).mappings()
            return [_from_row(LagDrift, row) for row in rows]

    def append_bias_probe(self, row: BiasProbe) -> None:
        """Write one bias estimate; the same step, staleness and correction again replaces it.

        Raises:
            RunNotFound: the run is not in the archive.
        """
        self._replace(bias_probes, row)

    def bias_probes(self, run_id: str, *, last: int | None = None) -> list[BiasProbe]:
        """Return the bias estimates of a run in the order of their steps; only the last n."""
        order = (bias_probes.c.step.desc(), bias_probes.c.staleness, bias_probes.c.correction)
        query = select(bias_probes).where(bias_probes.c.run_id == run_id).order_by(*order)
        with self.reading() as connection:
            rows = connection.execute(query.limit(last)).mappings().all()
        return sorted((_from_row(BiasProbe, row) for row in rows), key=lambda probe: probe.step)

    def append_event(self, event: Event) -> int:
        """Write one event and return its id.

        Raises:
            RunNotFound: the run is not in the archive.
        """
        values = {k: v for k, v in asdict(event).items() if k != "id"}
        try:
            with self.writing() as connection:
                done = connection.execute(events.insert().values(values))
        except IntegrityError:
            raise self._not_found(event.run_id) from None
        return int(done.inserted_primary_key[0])  # type: ignore[index]  # one row was inserted

    def events(self, run_id: str | None = None, *, last: int = 200) -> list[Event]:
        """Return the newest events, oldest of them first, of one run or of all."""
        query = select(events).order_by(events.c.id.desc()).limit(last)
        if run_id is not None:
            query = query.where(events.c.run_id == run_id)
        with self.reading() as connection:
            return [Event(**row) for row in connection.execute(query).mappings()][::-1]

    def save_recommendation(self, given: Recommendation) -> int:
        """Write what was advised and return its id."""
        values = {k: v for k, v in asdict(given).items() if k != "id"}
        with self.writing() as connection:
            done = connection.execute(recommendations.insert().values(values))
            return int(done.inserted_primary_key[0])  # type: ignore[index]  # one row was inserted

    def recommendations(self, *, last: int = 20) -> list[Recommendation]:
        """Return the newest recommendations, newest first."""
        query = select(recommendations).order_by(recommendations.c.id.desc()).limit(last)
        with self.reading() as connection:
            rows = connection.execute(query).mappings()
            return [Recommendation(**{**row, "evidence": tuple(row["evidence"])}) for row in rows]

    # -- calibrations ----------------------------------------------------------------------------

    def save_calibration(self, found: Calibration) -> None:
        """Write what a probe found out."""
        with self.writing() as connection:
            connection.execute(calibrations.insert().values(asdict(found)))

    def calibration(self, calibration_id: str) -> Calibration:
        """Return one calibration.

        Raises:
            CalibrationNotFound: it is not in the archive.
        """
        found = [each for each in self.calibrations() if each.id == calibration_id]
        if not found:
            raise CalibrationNotFound(
                f"calibration: {calibration_id!r} is not in the archive; "
                "python -m advisor probe makes one"
            )
        return found[0]

    def calibrations(self) -> list[Calibration]:
        """Return every calibration, newest first."""
        query = select(calibrations).order_by(calibrations.c.time.desc(), calibrations.c.id.desc())
        with self.reading() as connection:
            return [
                Calibration(
                    **{
                        **row,
                        "segments": tuple(row["segments"]),
                        "run_ids": tuple(row["run_ids"]),
                    }
                )
                for row in connection.execute(query).mappings()
            ]

    # -- transactions -------------------------------------------------------------------------

    @contextmanager
    def writing(self) -> Iterator[Connection]:
        """Open one write transaction; for this package only."""
        with self._translated(), self._engine.connect() as connection:
            connection.execution_options(etalon_writes=True)
            with connection.begin():
                yield connection

    @contextmanager
    def reading(self) -> Iterator[Connection]:
        """Open one read transaction; for this package only."""
        with self._translated(), self._engine.connect() as connection:
            connection.execution_options(etalon_writes=False)
            with connection.begin():
                yield connection

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except IntegrityError:
            raise
        except DBAPIError as error:
            raise ArchiveUnavailable(
                f"db: {self._engine.url.render_as_string()} does not answer: {error.orig}"
            ) from error

    def _replace(self, table: Table, row: StepMetrics | Evaluation | LagDrift | BiasProbe) -> None:
        try:
            with self.writing() as connection:
                connection.execute(self._upserts[table], _to_row(row))
        except IntegrityError:
            raise self._not_found(row.run_id) from None


def _upsert(insert: Any, table: Table) -> Any:
    """Build "insert, or replace the row of the same key" once; both databases speak it alike."""
    keys = [column.name for column in table.primary_key]
    statement = insert(table)
    rest = {c.name: statement.excluded[c.name] for c in table.columns if c.name not in keys}
    return statement.on_conflict_do_update(index_elements=keys, set_=rest)


def _to_row(record: Any) -> dict[str, Any]:
    return _storable({item.name: getattr(record, item.name) for item in fields(record)})


def _storable(values: Mapping[str, Any]) -> dict[str, Any]:
    """Send NaN to NULL, which SQLite would do anyway, and name it in ``non_finite``."""
    row = dict(values)
    non_finite = [n for n, v in row.items() if isinstance(v, float) and not math.isfinite(v)]
    row.update({name: None for name in non_finite if math.isnan(row[name])})
    row["non_finite"] = non_finite or None
    for name in ("reasons", "extra"):  # empty in most of a run's many rows
        if name in row:
            row[name] = dict(row[name]) or None
    return row


def _from_row(record: type[Any], row: RowMapping) -> Any:
    values = dict(row)
    for name in values.pop("non_finite") or ():
        if values[name] is None:
            values[name] = math.nan
    for name in ("reasons", "extra"):
        if name in values:
            values[name] = values[name] or {}
    return record(**values)


def _run_info(row: RowMapping) -> RunInfo:
    run: RunInfo = _from_row(RunInfo, row)
    return replace(run, status=RunStatus(run.status))
