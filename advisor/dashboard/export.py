"""What Compare gives to take away: curves as CSV or Parquet, and a report in one HTML file."""

import io
from collections.abc import Mapping, Sequence
from typing import Any

import plotly.offline

from advisor.compare import ALIGNMENTS, curve
from advisor.dashboard.curves import WATCHED, columns_of, compared_columns
from advisor.drawing import Figure
from advisor.figures import compare_figure
from advisor.report import html_report
from storage.records import RunInfo
from storage.store import Store
from storage.words import counted


def curves_as(form: str, store: Store, runs: Sequence[RunInfo]) -> bytes:
    """Return every watched column of these runs, one row per run and step, as csv or parquet.

    What was not measured is empty, or null; a computed NaN is nan.
    """
    import pyarrow  # slow to import, and only here
    from pyarrow import csv, parquet

    names = [name for name in WATCHED if name != "time"]
    columns: dict[str, list[Any]] = {name: [] for name in ("run", "name", *names)}
    for run in runs:
        found = columns_of(store, run.id)
        count = len(found["step"])
        columns["run"] += [run.id] * count
        columns["name"] += [run.name] * count
        for name in names:
            columns[name] += found[name]
    table = pyarrow.table(
        {name: pyarrow.array(values, from_pandas=False) for name, values in columns.items()}
    )
    written = io.BytesIO()
    if form == "csv":
        csv.write_csv(table, written)
    else:
        parquet.write_table(table, written)
    return written.getvalue()


def report(
    store: Store,
    labels: Mapping[str, str],
    tables: Mapping[str, Sequence[Mapping[str, Any]]],
    metrics: Sequence[str],
    align: str,
) -> bytes:
    """Return the comparison as one HTML file."""
    runs = [store.run(run_id) for run_id in labels]
    figures = [chart for name in metrics if (chart := overlay(store, runs, labels, name, align))]
    return html_report(
        title=f"Comparison of {counted(len(labels), 'run')}",
        opening=f"Runs: {', '.join(labels.values())}. Curves along: {ALIGNMENTS[align]}.",
        tables=tables,
        figures=figures,
        plotly_js=plotly.offline.get_plotlyjs(),
    ).encode()


def overlay(
    store: Store,
    runs: Sequence[RunInfo],
    labels: Mapping[str, str],
    name: str,
    align: str,
    baseline: str | None = None,
) -> Figure | None:
    """Draw a metric of all runs that measured it; None if none did."""
    curves = []
    for run in runs:
        staleness = run.config.get("max_staleness")
        x, y = curve(compared_columns(store, run, name), name, align, staleness)
        if any(a is not None and b is not None for a, b in zip(x, y, strict=True)):
            curves.append((labels[run.id], x, y))
    pinned = None if baseline is None else labels.get(baseline)
    return compare_figure(name, curves, ALIGNMENTS[align], pinned) if curves else None
