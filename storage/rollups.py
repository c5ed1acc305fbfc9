"""Extremes of each metric over blocks of learner steps, so that a million steps open at once.

A block is ``BLOCK`` steps. Of each metric it keeps the lowest and the highest finite value, the
steps at which they are, and a step at which the value was not finite. The entry named ``step``
marks a block as rolled up. A block without it is read row by row, so rollups save time and are
never needed.
"""

import math
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, delete, func, select

from .models import rollups, steps
from .records import METRIC_NAMES

BLOCK = 512
RAW_ROWS_PER_POINT = 32
"""Above so many stored rows per wanted point the rollups are fine enough to stand for them."""

Point = tuple[int, float]
Line = tuple[list[int], list[float]]


def newest_step(connection: Connection, run_id: str) -> int | None:
    """Return the last stored step of a run; None when it has none."""
    return connection.execute(
        select(func.max(steps.c.step)).where(steps.c.run_id == run_id)
    ).scalar()


def rolled_up(connection: Connection, run_id: str) -> set[int]:
    """Return the blocks of a run that have their extremes."""
    query = select(rollups.c.block).where(rollups.c.run_id == run_id, rollups.c.metric == "step")
    return set(connection.execute(query).scalars())


def missing_blocks(connection: Connection, run_id: str, newest: int) -> set[int]:
    """Return the whole blocks up to the newest step that hold steps and have no extremes."""
    there = rolled_up(connection, run_id)
    whole = (newest + 1) // BLOCK
    if len(there) >= whole:
        return set()
    within = (steps.c.run_id == run_id) & (steps.c.step < whole * BLOCK)
    query = select(steps.c.step // BLOCK).where(within).distinct()
    return set(connection.execute(query).scalars()) - there


def roll_up(connection: Connection, run_id: str, blocks: Collection[int]) -> None:
    """Write the extremes of these blocks anew, inside the transaction of the caller."""
    for first, last in _stretches(blocks):
        these = (rollups.c.run_id == run_id) & rollups.c.block.between(first, last)
        connection.execute(delete(rollups).where(these))
        if found := list(extremes(connection, run_id, first, last)):
            connection.execute(rollups.insert(), found)


def extremes(
    connection: Connection, run_id: str, first: int, last: int
) -> Iterator[dict[str, Any]]:
    """Compute the rollup rows of the blocks ``first`` … ``last`` from their steps."""
    columns = [steps.c[name] for name in METRIC_NAMES]
    query = select(steps.c.step, steps.c.non_finite, *columns).where(
        steps.c.run_id == run_id, steps.c.step.between(first * BLOCK, last * BLOCK + BLOCK - 1)
    )
    rows = connection.execute(query.order_by(steps.c.step))
    for block, members in groupby(rows, key=lambda row: row[0] // BLOCK):
        at, non_finite, *values = zip(*members, strict=True)
        not_finite_at: dict[str, int] = {}
        for step, names in zip(at, non_finite, strict=True):
            for name in names or ():
                not_finite_at.setdefault(name, step)
        for name, column in (("step", at), *zip(METRIC_NAMES, values, strict=True)):
            found = _extremes_of(at, column)
            if found or name in not_finite_at:
                (low, low_step), (high, high_step) = found or ((None, None), (None, None))
                yield {
                    "run_id": run_id,
                    "metric": name,
                    "block": block,
                    "low": low,
                    "low_step": low_step,
                    "high": high,
                    "high_step": high_step,
                    "not_finite_step": not_finite_at.get(name),
                }


def _extremes_of(
    at: Sequence[int], column: Sequence[float | None]
) -> tuple[tuple[float, int], tuple[float, int]] | None:
    finite = [v for v in column if v is not None and -math.inf < v < math.inf]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    return (low, at[column.index(low)]), (high, at[column.index(high)])


def overview(
    connection: Connection,
    run_id: str,
    names: Sequence[str],
    *,
    first: int,
    last: int | None,
    points: int,
) -> dict[str, Line]:
    """Return the lines of some metrics in few points; see ``Store.overview``."""
    newest = newest_step(connection, run_id)
    last = -1 if newest is None else newest if last is None else min(last, newest)
    lines: dict[str, list[Point]] = {name: [] for name in names}
    if not names or first > last:
        return {name: ([], []) for name in names}
    stored = _rows_within(connection, run_id, first, last, RAW_ROWS_PER_POINT * points + 1)
    if stored <= RAW_ROWS_PER_POINT * points:
        _add_rows(connection, run_id, lines, first, last)
    else:
        _add_blocks(connection, run_id, lines, first, last)
    if stored > 4 * points:
        lines = {name: _coarse(line, first, last, points) for name, line in lines.items()}
    return {name: ([s for s, _ in line], [v for _, v in line]) for name, line in lines.items()}


def _rows_within(connection: Connection, run_id: str, first: int, last: int, enough: int) -> int:
    """Count the stored steps of a range, but no further than ``enough``."""
    within = select(steps.c.step).where(steps.c.run_id == run_id, steps.c.step.between(first, last))
    counted = select(func.count()).select_from(within.limit(enough).subquery())
    return connection.execute(counted).scalar_one()


def _add_rows(
    connection: Connection, run_id: str, lines: dict[str, list[Point]], first: int, last: int
) -> None:
    """Append the stored values of the steps ``first`` … ``last``, those not measured left out."""
    query = select(steps.c.step, steps.c.non_finite, *(steps.c[name] for name in lines)).where(
        steps.c.run_id == run_id, steps.c.step.between(first, last)
    )
    for step, non_finite, *values in connection.execute(query.order_by(steps.c.step)):
        for (name, line), value in zip(lines.items(), values, strict=True):
            if value is not None:
                line.append((step, value))
            elif non_finite and name in non_finite:
                line.append((step, math.nan))


def _add_blocks(
    connection: Connection, run_id: str, lines: dict[str, list[Point]], first: int, last: int
) -> None:
    """Append the extremes of whole blocks, and row by row what is in no rolled-up whole block."""
    lowest, highest = -(-first // BLOCK), (last + 1) // BLOCK - 1
    query = select(
        rollups.c.metric,
        rollups.c.block,
        rollups.c.low_step,
        rollups.c.low,
        rollups.c.high_step,
        rollups.c.high,
        rollups.c.not_finite_step,
    ).where(
        rollups.c.run_id == run_id,
        rollups.c.metric.in_(["step", *lines]),
        rollups.c.block.between(lowest, highest),
    )
    found: dict[int, dict[str, list[Point]]] = {}
    for metric, block, low_step, low, high_step, high, not_finite in connection.execute(query):
        points = {} if low is None else {low_step: low, high_step: high}
        if not_finite is not None:
            points[not_finite] = math.nan
        found.setdefault(block, {})[metric] = sorted(points.items())
    here = first
    for block in sorted(block for block, metrics in found.items() if "step" in metrics):
        if here < block * BLOCK:
            _add_rows(connection, run_id, lines, here, block * BLOCK - 1)
        for name, line in lines.items():
            line.extend(found[block].get(name, []))
        here = (block + 1) * BLOCK
    if here <= last:
        _add_rows(connection, run_id, lines, here, last)


def _coarse(line: list[Point], first: int, last: int, points: int) -> list[Point]:
    """Keep the lowest, the highest and one non-finite value of each of equally wide ranges."""
    strange = any(not math.isfinite(value) for _, value in line)
    ranges = max(1, 2 * points // 3 if strange else points)
    width = -(-(last + 1 - first) // ranges)
    kept: list[Point] = []
    for _, members in groupby(line, key=lambda point: (point[0] - first) // width):
        these = list(members)
        finite = [point for point in these if math.isfinite(point[1])]
        chosen = {point[0]: point[1] for point in these if not math.isfinite(point[1])}
        chosen = dict(list(chosen.items())[:1])
        if finite:
            for choose in (min, max):
                step, value = choose(finite, key=lambda point: point[1])
                chosen[step] = value
        kept += sorted(chosen.items())
    return kept


def _stretches(blocks: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Join neighboring blocks to (first, last), at most 64 of them, so that few rows are held."""
    first = last = None
    for block in sorted(set(blocks)):
        if first is None or last is None:
            first = last = block
        elif block == last + 1 and last - first < 63:
            last = block
        else:
            yield first, last
            first = last = block
    if first is not None and last is not None:
        yield first, last
