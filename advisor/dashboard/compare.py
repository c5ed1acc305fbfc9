"""Compare: runs side by side, any number of them. Page script of Streamlit."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import streamlit as st

from advisor.compare import (
    ALIGNMENTS,
    by_run,
    curve,
    differing_configuration,
    outcome_rows,
    summary,
    summary_rows,
)
from advisor.dashboard.archive import SYMBOLS, open_archive, run_label, status_of
from advisor.dashboard.curves import compared_columns
from advisor.dashboard.export import curves_as, overlay, report
from advisor.dashboard.live_plot import live_plot
from advisor.dashboard.run_filter import filtered_runs
from advisor.dashboard.samples import show_samples
from advisor.glossary import GLOSSARY, label_of
from advisor.wording import literal, shortened
from storage.records import RunInfo
from storage.store import Store

METRICS = (
    "reward_mean",
    "gold_reward_mean",
    "cycle_drift",
    "displacement",
    "approx_kl",
    "kl_to_start",
    "clip_fraction_low",
    "clip_fraction_high",
    "ess_fraction",
    "sequence_ess_fraction",
    "entropy",
    "grad_norm",
    "learning_rate",
)
FIRST_METRICS = ["reward_mean", "displacement"]
NO_BASELINE = "no baseline"


def page() -> None:
    """Choose runs, then show what differs, how they ended, their curves and what they said."""
    store = open_archive()
    runs = store.runs()
    st.title("Compare", anchor=False)
    if len(runs) < 2:
        st.info("Two runs are needed to compare. Start another on the **Runs** page.")
        return
    chosen, baseline = _chosen(store, runs)
    if len(chosen) < 2:
        st.info("Choose at least two runs.")
        return
    labels = {run.id: f"{shortened(run.name)} ({run.id[-6:]})" for run in chosen}
    metrics, align = _axes()
    tables = _tables(store, chosen, labels, metrics, baseline)
    _curves(store, chosen, labels, metrics, align, baseline, tables)
    show_samples(store, chosen)
    _take_away(store, chosen, labels, tables, metrics, align)


def _chosen(store: Store, runs: Sequence[RunInfo]) -> tuple[list[RunInfo], str | None]:
    by_id = {run.id: run for run in runs}
    if "compare-runs" not in st.session_state:
        asked = [run_id for run_id in st.query_params.get_all("runs") if run_id in by_id]
        ended = [run.id for run in runs if not status_of(run).alive]
        st.session_state["compare-runs"] = asked or (ended or list(by_id))[:2]
    found = filtered_runs(store, runs)
    kept = [run_id for run_id in st.session_state["compare-runs"] if run_id in by_id]
    options = list(dict.fromkeys([*(run.id for run in found), *kept]))
    left, right = st.columns([3, 1], vertical_alignment="bottom")
    ids = left.multiselect(
        "Runs",
        options,
        format_func=lambda run_id: run_label(by_id[run_id]),
        key="compare-runs",
    )
    st.query_params["runs"] = ids
    baseline = right.selectbox(
        "Baseline",
        [NO_BASELINE, *ids],
        format_func=lambda each: each if each == NO_BASELINE else shortened(by_id[each].name),
        key="compare-baseline",
        help="The other runs are shown by what they differ from it.",
    )
    return [by_id[run_id] for run_id in ids], None if baseline == NO_BASELINE else baseline


def _axes() -> tuple[list[str], str]:
    left, right = st.columns([3, 2])
    metrics = left.multiselect(
        "Metrics", METRICS, default=FIRST_METRICS, format_func=label_of, key="metrics"
    )
    align = right.selectbox(
        "Along",
        list(ALIGNMENTS),
        format_func=ALIGNMENTS.__getitem__,
        key="along",
        bind="query-params",
    )
    return metrics, align


def _tables(
    store: Store,
    runs: Sequence[RunInfo],
    labels: Mapping[str, str],
    metrics: Sequence[str],
    baseline: str | None,
) -> dict[str, Any]:
    differing = by_run(differing_configuration(runs), "setting", labels)
    ended = by_run(outcome_rows(runs), "outcome", labels)
    for run, row in zip(runs, ended, strict=True):
        row["status"] = f"{SYMBOLS[status_of(run)]} {status_of(run)}"
    tables = {"What differs": differing, "How they ended": ended}
    if len(differing[0]) == 1:
        tables["What differs"] = []
    pinned = None if baseline is None else labels[baseline]
    for name in metrics:
        found = {
            labels[run.id]: summary(compared_columns(store, run, name), name, run.collapse_step)
            for run in runs
        }
        tables[label_of(name).capitalize()] = summary_rows(found, pinned)
    for title in ("What differs", "How they ended"):
        st.subheader(title, anchor=False)
        if tables[title]:
            st.dataframe(tables[title], hide_index=True)
        else:
            st.info("Nothing: the configurations are the same, the seed included.")
    return tables


def _curves(
    store: Store,
    runs: Sequence[RunInfo],
    labels: Mapping[str, str],
    metrics: Sequence[str],
    align: str,
    baseline: str | None,
    tables: Mapping[str, Any],
) -> None:
    places = (place for _ in metrics for place in st.columns(min(2, len(metrics))))
    for name in metrics:
        with next(places):
            chart = overlay(store, runs, labels, name, align, baseline)
            absent: dict[str, list[str]] = {}
            for run in runs:
                if reason := _why_absent(store, run, name, align):
                    absent.setdefault(reason, []).append(labels[run.id])
            if chart is None:
                st.info(literal(f"{label_of(name)}: {'; '.join(sorted(absent))}"))
                continue
            alt = f"{label_of(name)} of the chosen runs. {GLOSSARY[name].reading}"
            live_plot(chart, key=f"compare-{name}-{align}", alt=alt)
            st.dataframe(tables[label_of(name).capitalize()], hide_index=True)
            for reason, whose in absent.items():
                st.caption(literal(f"Not drawn: {', '.join(whose)}; {reason}"))


def _why_absent(store: Store, run: RunInfo, name: str, align: str) -> str | None:
    """Return why a run has no curve of a metric along an axis; None if it has one."""
    columns = compared_columns(store, run, name)
    if all(value is None for value in columns[name]):
        return run.unmeasured.get(name, "not measured")
    x, y = curve(columns, name, align, run.config.get("max_staleness"))
    if any(a is not None and b is not None for a, b in zip(x, y, strict=True)):
        return None
    return f"not known of it: {ALIGNMENTS[align]}"


def _take_away(
    store: Store,
    runs: Sequence[RunInfo],
    labels: Mapping[str, str],
    tables: Mapping[str, Any],
    metrics: Sequence[str],
    align: str,
) -> None:
    with st.container(horizontal=True, vertical_alignment="center"):
        st.download_button(
            "Report",
            partial(report, store, labels, tables, metrics, align),
            file_name="comparison.html",
            mime="text/html",
            icon=":material/description:",
            help="One HTML file that opens without a network, its charts alive.",
            on_click="ignore",
        )
        for form, mime in (("csv", "text/csv"), ("parquet", "application/vnd.apache.parquet")):
            st.download_button(
                form.upper() if form == "csv" else "Parquet",
                partial(curves_as, form, store, runs),
                file_name=f"curves.{form}",
                mime=mime,
                icon=":material/download:",
                on_click="ignore",
            )


page()
