"""Compare: some runs side by side. Page script of Streamlit."""

from collections.abc import Sequence

import streamlit as st

from advisor.compare import curve, differing_configuration, outcome_rows
from advisor.dashboard.archive import badge, open_archive, run_label, status_of
from advisor.dashboard.curves import columns_of
from advisor.dashboard.live_plot import live_plot
from advisor.figures import compare_figure
from advisor.glossary import GLOSSARY, label_of
from advisor.wording import literal, shortened
from storage.records import RunInfo
from storage.store import Store

METRICS = (
    "reward_mean",
    "cycle_drift",
    "displacement",
    "approx_kl",
    "kl_to_start",
    "clip_fraction_low",
    "clip_fraction_high",
    "sequence_ess_fraction",
    "entropy",
    "grad_norm",
)
ALIGNMENTS = {
    "step": "learner step",
    "version": "learner step whose weights sampled",
    "rate": "Σ η, the learning rate used so far",
}


def page() -> None:
    """Choose runs, then show what differs, how they ended, and one metric of all."""
    store = open_archive()
    runs = store.runs()
    st.title("Compare", anchor=False)
    if len(runs) < 2:
        st.info("Two runs are needed to compare. Start another on the **Runs** page.")
        return
    chosen = _chosen(runs)
    if len(chosen) < 2:
        st.info("Choose at least two runs.")
        return
    labels = {run.id: f"{shortened(run.name)} ({run.id[-6:]})" for run in chosen}
    st.markdown("  \n".join(f"{badge(status_of(r))} {literal(labels[r.id])}" for r in chosen))
    _tables(chosen, labels)
    _curves(store, chosen, labels)


def _chosen(runs: Sequence[RunInfo]) -> list[RunInfo]:
    by_id = {run.id: run for run in runs}
    if "compare-runs" not in st.session_state:
        asked = [run_id for run_id in st.query_params.get_all("runs") if run_id in by_id]
        ended = [run.id for run in runs if not status_of(run).alive]
        st.session_state["compare-runs"] = asked or (ended or list(by_id))[:2]
    ids = st.multiselect(
        "Runs",
        list(by_id),
        format_func=lambda run_id: run_label(by_id[run_id]),
        key="compare-runs",
    )
    st.query_params["runs"] = ids
    return [by_id[run_id] for run_id in ids]


def _tables(runs: Sequence[RunInfo], labels: dict[str, str]) -> None:
    left, right = st.columns(2)
    with left:
        st.subheader("What differs", anchor=False)
        rows = differing_configuration(runs)
        if rows:
            st.dataframe(rows, hide_index=True, column_config=dict(labels))
        else:
            st.info("Nothing: the configurations are the same, the seed included.")
    with right:
        st.subheader("How they ended", anchor=False)
        st.dataframe(outcome_rows(runs), hide_index=True, column_config=dict(labels))


def _curves(store: Store, runs: Sequence[RunInfo], labels: dict[str, str]) -> None:
    left, right = st.columns(2)
    name = left.selectbox("Metric", METRICS, format_func=label_of)
    align = right.selectbox("Along", list(ALIGNMENTS), format_func=ALIGNMENTS.__getitem__)
    st.caption(GLOSSARY[name].reading)
    curves, unmeasured = [], []
    for run in runs:
        x, y = curve(columns_of(store, run.id), name, align)
        if any(value is not None for value in y):
            curves.append((labels[run.id], x, y))
        else:
            reason = run.unmeasured.get(name, "not measured")
            unmeasured.append(literal(f"{labels[run.id]}: {reason}"))
    if curves:
        chart = compare_figure(name, curves, ALIGNMENTS[align])
        live_plot(chart, key=f"compare-{name}-{align}", alt=f"{label_of(name)} of the chosen runs")
    for words in unmeasured:
        st.info(words)


page()
