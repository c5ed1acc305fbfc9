"""The store: the only place that knows SQL. Records go in, records come out, rows never leave.

Every write is one short transaction; every read opens and closes its own, because a long reader
stops SQLite from checkpointing its log. Writing a step or an evaluation twice leaves one row.
"""

from collections.abc import Iterable
from dataclasses import asdict

from sqlalchemy import Table, select
from sqlalchemy.exc import IntegrityError

from .alert_store import AlertStore
from .errors import CalibrationNotFound
from .models import (
    bias_probes,
    calibrations,
    drifts,
    evaluations,
    events,
    recommendations,
    samples,
)
from .records import (
    BiasProbe,
    Calibration,
    Evaluation,
    Event,
    LagDrift,
    Recommendation,
    Sample,
)
from .rows import from_row
from .run_store import new_run_id
from .step_store import StepStore

__all__ = ["Store", "new_run_id"]


class Store(StepStore, AlertStore):
    """The whole archive: runs, the facts of their steps, what was advised and alerted."""

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
            return [from_row(Evaluation, row) for row in rows]

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
            return [from_row(LagDrift, row) for row in rows]

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
        return sorted((from_row(BiasProbe, row) for row in rows), key=lambda probe: probe.step)

    def append_samples(self, rows: Iterable[Sample]) -> None:
        """Write some rollouts; one of the same step and number is replaced.

        Raises:
            RunNotFound: the run is not in the archive.
        """
        given = list(rows)
        if not given:
            return
        try:
            with self.writing() as connection:
                self._upserts[samples].write(connection, given)
        except IntegrityError:
            raise self._not_found(given[0].run_id) from None

    def samples(self, run_id: str, *, step: int | None = None) -> list[Sample]:
        """Return the kept rollouts of a run, or of one step of it, in order."""
        query = select(samples).where(samples.c.run_id == run_id)
        if step is not None:
            query = query.where(samples.c.step == step)
        with self.reading() as connection:
            rows = connection.execute(query.order_by(samples.c.step, samples.c.number)).mappings()
            return [from_row(Sample, row) for row in rows]

    def sampled_steps(self, run_id: str) -> list[int]:
        """Return the steps of a run of which rollouts are kept, in order."""
        query = select(samples.c.step).where(samples.c.run_id == run_id).distinct()
        with self.reading() as connection:
            return list(connection.execute(query.order_by(samples.c.step)).scalars())

    def append_event(self, event: Event) -> int:
        """Write one event and return its id; one that is there already, time and all, is that.

        Raises:
            RunNotFound: the run is not in the archive.
        """
        values = {k: v for k, v in asdict(event).items() if k != "id"}
        same = [events.c[name] == values[name] for name in ("run_id", "time", "kind", "message")]
        try:
            with self.writing() as connection:
                there = connection.execute(select(events.c.id).where(*same)).scalar()
                if there is not None:
                    return int(there)
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

    def _replace(self, table: Table, row: Evaluation | LagDrift | BiasProbe) -> None:
        try:
            with self.writing() as connection:
                self._upserts[table].write(connection, [row])
        except IntegrityError:
            raise self._not_found(row.run_id) from None
