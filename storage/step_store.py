"""The store's half about learner steps: written one by one or in bulk, read whole or in outline."""

import math
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from dataclasses import asdict
from itertools import islice
from typing import Any

from sqlalchemy import ColumnElement, Connection, delete, func, select
from sqlalchemy.exc import IntegrityError

from .models import bias_probes, drifts, evaluations, rollups, runs, samples, steps
from .records import RunInfo, StepMetrics
from .rollups import (
    BLOCK,
    Line,
    block_means,
    first_step_beyond,
    missing_blocks,
    newest_step,
    overview,
    roll_up,
    rolled_up,
)
from .rows import Upsert, from_row, run_info, storable, to_row
from .run_store import RunStore
from .transactions import only_writer

_ROWS_AT_ONCE = 5000
IN_ONE_QUERY = 500


class StepStore(RunStore):
    """What the archive knows of the learner steps of runs."""

    def append_step(self, row: StepMetrics) -> None:
        """Write one learner step in one transaction; the same step again replaces it.

        Raises:
            RunNotFound: the run is not in the archive.
        """
        try:
            if self._engine.dialect.name == "sqlite" and self._needs_no_rollup(row):
                self.write_alone(steps, row)
                newest = row.step
            else:
                with self.writing() as connection:
                    only_writer(connection, row.run_id)
                    self._upserts[steps].write(connection, [row])
                    newest = self._roll_up_after(connection, row)
        except IntegrityError:
            raise self._not_found(row.run_id) from None
        self._newest[row.run_id] = newest

    def append_steps(self, rows: Iterable[StepMetrics]) -> int:
        """Write many learner steps in one transaction, all or none, and return how many.

        A step that is there already is replaced.

        Raises:
            RunNotFound: a run is not in the archive.
        """
        touched: dict[str, set[int]] = {}
        try:
            with self.writing() as connection:
                count = self._write_steps(connection, rows, touched)
        except IntegrityError:
            raise self._not_found(next(reversed(touched))) from None
        for run_id in touched:
            self._newest.pop(run_id, None)
        return count

    def import_run(
        self,
        ending: str,
        imported: Callable[[RunInfo | None], tuple[RunInfo, Iterable[dict[str, Any]]]],
    ) -> tuple[RunInfo, int]:
        """Add or renew the imported run whose id has this ending, with its steps, all or nothing.

        ``imported`` makes the run and its steps, each as what ``StepMetrics`` is made of, out of
        the run that is there, if any. Rows that are there already as they are stay untouched.
        Returns the run and how many were written.
        """
        query = select(runs).where(runs.c.kind == "imported", runs.c.id.like(f"%-{ending}"))
        with self.writing() as connection:
            only_writer(connection, f"imported {ending}")
            found = connection.execute(query).mappings().first()
            run, rows = imported(run_info(found) if found else None)
            connection.execute(self._run_upsert, to_row(run))
            if found:
                rows = _other_rows(connection, run.id, rows)
            count = self._write_imported(connection, run.id, rows)
        self._newest.pop(run.id, None)
        return run, count

    def steps(self, run_id: str, *, after: int = -1, last: int | None = None) -> list[StepMetrics]:
        """Return the steps of a run beyond ``after`` in order; only the ``last`` n if given."""
        query = select(steps).where(steps.c.run_id == run_id, steps.c.step > after)
        query = query.order_by(steps.c.step.desc() if last is not None else steps.c.step)
        with self.reading() as connection:
            rows = connection.execute(query.limit(last)).mappings().all()
        found = [from_row(StepMetrics, row) for row in rows]
        return found[::-1] if last is not None else found

    def series(
        self, run_id: str, names: Sequence[str], *, after: int = -1, until: int | None = None
    ) -> dict[str, list[Any]]:
        """Return columns of a run by name, ordered by step; None and NaN are kept apart.

        Of the steps beyond ``after`` up to and with ``until``, if given.
        """
        within = steps.c.step > after
        if until is not None:
            within &= steps.c.step <= until
        with self.reading() as connection:
            return _series(connection, run_id, names, [within])

    def series_at(
        self, run_id: str, names: Sequence[str], at: Iterable[int]
    ) -> dict[str, list[Any]]:
        """Return columns of a run as ``series`` does, of these learner steps alone."""
        wanted = sorted(set(at))
        portions = [wanted[i : i + IN_ONE_QUERY] for i in range(0, len(wanted), IN_ONE_QUERY)]
        with self.reading() as connection:
            return _series(connection, run_id, names, [steps.c.step.in_(p) for p in portions])

    def sums_at(self, run_id: str, name: str, at: Sequence[int]) -> list[float | None]:
        """Return the sum of a metric over all learner steps up to and with each of these.

        It is None from the first step on at which the metric was not measured, because what
        follows is unknown too.

        Args:
            run_id: the run.
            name: a scalar column.
            at: learner steps, ascending.
        """
        column = steps.c[name]
        sums: list[float | None] = []
        total: float | None = 0.0
        after = -1
        with self.reading() as connection:
            for step in at:
                query = select(func.count(), func.count(column), func.sum(column)).where(
                    steps.c.run_id == run_id, steps.c.step > after, steps.c.step <= step
                )
                rows, measured, added = connection.execute(query).one()
                total = None if total is None or measured < rows else total + (added or 0.0)
                sums.append(total)
                after = step
        return sums

    def overview(
        self,
        run_id: str,
        names: Sequence[str],
        *,
        first: int = 0,
        last: int | None = None,
        points: int = 1000,
    ) -> dict[str, Line]:
        """Return metrics over the steps ``first`` … ``last`` in at most about 4·points points.

        Up to 4·points stored steps come as they are. Of more, at most 2·points remain: in each of
        equally wide ranges the lowest and the highest value, and one that is not finite, each at
        its own step, so no spike is lost. A non-finite value that a rollup stands for comes as
        NaN, whichever it was. Steps at which a metric was not measured are left out.

        Args:
            run_id: the run; of an unknown one every line is empty.
            names: scalar columns, of ``METRIC_NAMES``.
            first: first learner step.
            last: last learner step; None for the newest.
            points: resolution, at least 1.

        Returns:
            For each name its steps, ascending, and its values.
        """
        with self.reading() as connection:
            return overview(connection, run_id, names, first=first, last=last, points=points)

    def first_step_beyond_blocks(self, run_id: str) -> int:
        """Return the first learner step of a run beyond its whole blocks of 512 steps."""
        with self.reading() as connection:
            return first_step_beyond(connection, run_id)

    def block_means(self, run_id: str, names: Sequence[str], *, before: int) -> dict[str, Line]:
        """Return the mean of metrics over the whole blocks before a step, at their middles.

        Returns:
            For each name steps and means of the finite values; a block in which it was not
            measured is left out.
        """
        with self.reading() as connection:
            return block_means(connection, run_id, names, before=before)

    def last_step(self, run_id: str) -> int | None:
        """Return the newest learner step of a run; None before the first."""
        query = select(func.max(steps.c.step)).where(steps.c.run_id == run_id)
        with self.reading() as connection:
            return connection.execute(query).scalar()

    def last_steps(self) -> dict[str, int]:
        """Return the newest learner step of every run that has any; one look into the index each.

        Counting the steps of an archive takes as long as it has steps; this does not.
        """
        newest = select(func.max(steps.c.step)).where(steps.c.run_id == runs.c.id).scalar_subquery()
        with self.reading() as connection:
            found = connection.execute(select(runs.c.id, newest))
            return {run_id: step for run_id, step in found if step is not None}

    def step_counts(self, run_ids: Collection[str] | None = None) -> dict[str, int]:
        """Return the number of stored learner steps of these runs, or of all, that have any."""
        query = select(steps.c.run_id, func.count()).group_by(steps.c.run_id)
        if run_ids is not None:
            query = query.where(steps.c.run_id.in_(run_ids))
        with self.reading() as connection:
            return {run_id: int(count) for run_id, count in connection.execute(query)}

    def delete_steps_after(self, run_id: str, step: int) -> None:
        """Forget in one transaction what a run measured beyond a learner step, as on resuming.

        Steps, evaluations, drifts, bias estimates and rollouts of later steps go; events stay.

        Raises:
            RunNotFound: there is no such run.
        """
        with self.writing() as connection:
            only_writer(connection, run_id)
            known = connection.execute(select(runs.c.id).where(runs.c.id == run_id)).first()
            for table in (steps, evaluations, drifts, bias_probes, samples):
                later = (table.c.run_id == run_id) & (table.c.step > step)
                connection.execute(delete(table).where(later))
            cut = (rollups.c.run_id == run_id) & (rollups.c.block >= (step + 1) // BLOCK)
            connection.execute(delete(rollups).where(cut))
        self._newest.pop(run_id, None)
        if known is None:
            raise self._not_found(run_id)

    def build_rollups(self) -> int:
        """Roll up every whole block that is not, run by run, and return how many there were."""
        with self.reading() as connection:
            known = list(connection.execute(select(runs.c.id)).scalars())
        built = 0
        for run_id in known:
            with self.writing() as connection:
                only_writer(connection, run_id)
                newest = newest_step(connection, run_id)
                built += _roll_up_missing(connection, run_id, -1 if newest is None else newest)
        return built

    def _write_steps(
        self, connection: Connection, rows: Iterable[StepMetrics], touched: dict[str, set[int]]
    ) -> int:
        """Write rows in portions, then roll up; ``touched`` gathers the blocks of each run."""
        remaining, count = iter(rows), 0
        while portion := list(islice(remaining, _ROWS_AT_ONCE)):
            for row in portion:
                touched.setdefault(row.run_id, set()).add(row.step // BLOCK)
            for run_id in sorted({row.run_id for row in portion}):
                only_writer(connection, run_id)
            self._upserts[steps].write(connection, portion)
            count += len(portion)
        for run_id, blocks in touched.items():
            newest = newest_step(connection, run_id) or 0
            roll_up(connection, run_id, {b for b in blocks if (b + 1) * BLOCK <= newest + 1})
            _roll_up_missing(connection, run_id, newest)
        return count

    def _write_imported(
        self, connection: Connection, run_id: str, rows: Iterable[dict[str, Any]]
    ) -> int:
        """Write steps of one run that name what they have, then roll up; return how many."""
        remaining, blocks, count = iter(rows), set[int](), 0
        while portion := list(islice(remaining, _ROWS_AT_ONCE)):
            names = sorted({name for row in portion for name in row} | {"non_finite"})
            blocks |= {row["step"] // BLOCK for row in portion}
            writer = Upsert(self._insert, steps, connection.dialect, names)
            lacking = dict.fromkeys(names)
            writer.write_rows(connection, (storable(lacking | row) for row in portion))
            count += len(portion)
        newest = newest_step(connection, run_id) or 0
        roll_up(connection, run_id, {b for b in blocks if (b + 1) * BLOCK <= newest + 1})
        _roll_up_missing(connection, run_id, newest)
        return count

    def _needs_no_rollup(self, row: StepMetrics) -> bool:
        """Whether a row lies behind all others of its run, as far as known, and ends no block."""
        newest = self._newest.get(row.run_id)
        return newest is not None and row.step > newest and (row.step + 1) % BLOCK != 0

    def _roll_up_after(self, connection: Connection, row: StepMetrics) -> int:
        """Keep the rollups true after one written row; return the newest step of its run.

        A row behind all others costs nothing but a look into memory until it completes a block.
        The first row that this store writes into a run also repairs what older code left out.
        """
        block, ends = divmod(row.step + 1, BLOCK)
        newest = self._newest.get(row.run_id)
        if newest is not None and row.step > newest:
            if ends == 0:
                roll_up(connection, row.run_id, {block - 1})
            return row.step
        if row.step // BLOCK in rolled_up(connection, row.run_id) or ends == 0:
            roll_up(connection, row.run_id, {row.step // BLOCK})
        if newest is None:
            newest = newest_step(connection, row.run_id) or 0
            _roll_up_missing(connection, row.run_id, newest)
        return newest


def _other_rows(
    connection: Connection, run_id: str, rows: Iterable[dict[str, Any]]
) -> Iterator[dict[str, Any]]:
    """Leave out of the steps of a run, which ascend, those that are there as they are."""
    remaining = iter(rows)
    while portion := list(islice(remaining, _ROWS_AT_ONCE)):
        within = steps.c.step.between(portion[0]["step"], portion[-1]["step"])
        query = select(steps).where(steps.c.run_id == run_id, within)
        there = connection.execute(query).mappings()
        known = {row["step"]: from_row(StepMetrics, row) for row in there}
        for row in portion:
            if not _alike(known.get(row["step"]), StepMetrics(**row)):
                yield row


def _alike(one: Any, other: Any) -> bool:
    """Whether two rows say the same; NaN is as good as NaN."""
    if one == other:
        return True
    if isinstance(one, StepMetrics) and isinstance(other, StepMetrics):
        return _alike(asdict(one), asdict(other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(_alike(one[k], other[k]) for k in one)
    both = isinstance(one, float) and isinstance(other, float)
    return both and math.isnan(one) and math.isnan(other)


def _series(
    connection: Connection, run_id: str, names: Sequence[str], parts: Sequence[ColumnElement[bool]]
) -> dict[str, list[Any]]:
    columns = [steps.c[name] for name in names]
    series: dict[str, list[Any]] = {name: [] for name in names}
    for part in parts:
        query = select(steps.c.non_finite, *columns).where(steps.c.run_id == run_id, part)
        for non_finite, *values in connection.execute(query.order_by(steps.c.step)):
            for name, value in zip(names, values, strict=True):
                is_nan = value is None and non_finite and name in non_finite
                series[name].append(math.nan if is_nan else value)
    return series


def _roll_up_missing(connection: Connection, run_id: str, newest: int) -> int:
    """Roll up the whole blocks up to the newest step that are not, and return how many."""
    missing = missing_blocks(connection, run_id, newest)
    roll_up(connection, run_id, missing)
    return len(missing)
