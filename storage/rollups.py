"""Outline of each metric over blocks of learner steps, so that a million steps open at once.

A block is ``BLOCK`` steps. Of each metric it keeps the lowest and the highest finite value, the
steps at which they are, the mean of the finite ones, and a step at which the value was not finite.
The entry named ``step`` marks a block as rolled up. A block without it is read row by row, so
rollups save time and are never needed.
"""

import math
from bisect import bisect_left
from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import groupby
from typing import Any

from sqlalchemy import Connection, delete, func, select

from .models import rollups, steps
from .records import METRIC_NAMES

BLOCK = 512
RAW_ROWS_PER_POINT = 32
"""Above so many stored rows per wanted point the rollups are fine enough to stand for them."""

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
    here = (steps.c.run_id == run_id) & steps.c.step.between(
        first * BLOCK, last * BLOCK + BLOCK - 1
    )
    counts = select(*(func.count(steps.c[name]) for name in METRIC_NAMES)).where(here)
    held = dict(zip(METRIC_NAMES, connection.execute(counts).one(), strict=True))
    columns = [steps.c[name] for name in METRIC_NAMES if held[name]]  # most are empty in a log
    query = select(steps.c.step, steps.c.non_finite, *columns).where(here)
    for block, members in groupby(
        connection.execute(query.order_by(steps.c.step)).all(), key=lambda row: row[0] // BLOCK
    ):
        at, non_finite, *columns_of_block = zip(*members, strict=True)
        not_finite_at: dict[str, int] = {}
        for step, names in zip(at, non_finite, strict=True):
            for name in names or ():
                not_finite_at.setdefault(name, step)
        values_of = dict(
            zip(("step", *(c.name for c in columns)), (at, *columns_of_block), strict=True)
        )
        for name in ("step", *METRIC_NAMES):
            found = _extremes_of(at, values_of.get(name, ()))
            if found or name in not_finite_at:
                low, low_step, high, high_step, mean = found or (None,) * 5
                yield {
                    "run_id": run_id,
                    "metric": name,
                    "block": block,
                    "low": low,
                    "low_step": low_step,
                    "high": high,
                    "high_step": high_step,
                    "mean": mean,
                    "not_finite_step": not_finite_at.get(name),
                }


def _extremes_of(
    at: Sequence[int], values: Sequence[Any]
) -> tuple[float, int, float, int, float] | None:
    measured = [v for v in values if v is not None] if None in values else values
    finite = measured if _all_finite(measured) else [v for v in measured if math.isfinite(v)]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    mean = sum(value / len(finite) for value in finite)  # a sum of large ones may overflow
    return low, at[values.index(low)], high, at[values.index(high)], mean


def _all_finite(values: Sequence[Any]) -> bool:
    """Whether a sum shows at once that all are finite; one that overflows shows nothing."""
    return math.isfinite(sum(values))


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
    lines: dict[str, Line] = {name: ([], []) for name in names}
    if not names or first > last:
        return lines
    most = RAW_ROWS_PER_POINT * points
    stored = _rows_within(connection, run_id, first, last, most + 1)
    if stored <= most:
        _add_rows(connection, run_id, lines, first, last)
    else:
        _add_blocks(connection, run_id, lines, first, last)
    if stored <= 4 * points:
        return lines
    return {name: _coarse(line, first, last, points) for name, line in lines.items()}


def first_step_beyond(connection: Connection, run_id: str) -> int:
    """Return the first learner step of a run that lies in no block from which all are rolled up."""
    whole = rolled_up(connection, run_id)
    return BLOCK * next((n for n in range(len(whole) + 1) if n not in whole), 0)


def block_means(
    connection: Connection, run_id: str, names: Sequence[str], *, before: int
) -> dict[str, Line]:
    """Return the mean of each metric at the middles of the rolled-up blocks before a step."""
    query = select(rollups.c.metric, rollups.c.block, rollups.c.mean).where(
        rollups.c.run_id == run_id,
        rollups.c.metric.in_(names),
        rollups.c.block < before // BLOCK,
        rollups.c.mean.is_not(None),
    )
    lines: dict[str, Line] = {name: ([], []) for name in names}
    for metric, block, mean in connection.execute(query.order_by(rollups.c.block)):
        lines[metric][0].append(block * BLOCK + BLOCK // 2)
        lines[metric][1].append(mean)
    return lines


def _rows_within(connection: Connection, run_id: str, first: int, last: int, enough: int) -> int:
    """Count the stored steps of a range, but no further than ``enough``."""
    within = select(steps.c.step).where(steps.c.run_id == run_id, steps.c.step.between(first, last))
    counted = select(func.count()).select_from(within.limit(enough).subquery())
    return connection.execute(counted).scalar_one()


def _add_rows(
    connection: Connection, run_id: str, lines: dict[str, Line], first: int, last: int
) -> None:
    """Append the stored values of the steps ``first`` … ``last``, those not measured left out."""
    query = select(steps.c.step, steps.c.non_finite, *(steps.c[name] for name in lines)).where(
        steps.c.run_id == run_id, steps.c.step.between(first, last)
    )
    rows = connection.execute(query.order_by(steps.c.step)).all()
    if not rows:
        return
    at, non_finite, *columns = zip(*rows, strict=True)
    for (name, (to_steps, to_values)), column in zip(lines.items(), columns, strict=True):
        if None not in column:
            to_steps.extend(at)
            to_values.extend(column)
            continue
        for step, value, names in zip(at, column, non_finite, strict=True):
            if value is not None or (names and name in names):
                to_steps.append(step)
                to_values.append(math.nan if value is None else value)


def _add_blocks(
    connection: Connection, run_id: str, lines: dict[str, Line], first: int, last: int
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
    found: dict[int, dict[str, list[tuple[int, float]]]] = {}
    rows = connection.execute(query).all()
    for metric, block, low_step, low, high_step, high, not_finite in rows:
        points = {} if low is None else {low_step: low, high_step: high}
        if not_finite is not None:
            points[not_finite] = math.nan
        found.setdefault(block, {})[metric] = sorted(points.items())
    here = first
    for block in sorted(block for block, metrics in found.items() if "step" in metrics):
        if here < block * BLOCK:
            _add_rows(connection, run_id, lines, here, block * BLOCK - 1)
        for name, (to_steps, to_values) in lines.items():
            for step, value in found[block].get(name, ()):
                to_steps.append(step)
                to_values.append(value)
        here = (block + 1) * BLOCK
    if here <= last:
        _add_rows(connection, run_id, lines, here, last)


def _coarse(line: Line, first: int, last: int, points: int) -> Line:
    """Keep the lowest, the highest and one non-finite value of each of equally wide ranges."""
    at, values = line
    ranges = points if _all_finite(values) else max(1, 2 * points // 3)
    width = -(-(last + 1 - first) // ranges)
    kept: Line = ([], [])
    begin = 0
    while begin < len(at):
        edge = first + ((at[begin] - first) // width + 1) * width
        end = bisect_left(at, edge, begin)
        chosen = _peaks(at[begin:end], values[begin:end])
        kept[0].extend(chosen)
        kept[1].extend(chosen.values())
        begin = end
    return kept


def _peaks(at: list[int], values: list[float]) -> dict[int, float]:
    """Return the extremes of a range and its first non-finite value, by step, ascending."""
    chosen: dict[int, float] = {}
    if not _all_finite(values):
        chosen = {s: v for s, v in zip(at, values, strict=True) if not math.isfinite(v)}
        chosen = dict(list(chosen.items())[:1])
    if found := _extremes_of(at, values):
        low, low_step, high, high_step, _ = found
        chosen |= {low_step: low, high_step: high}
    return dict(sorted(chosen.items()))


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
