"""Runs: the archive as a table; start, stop and put away. Page script of Streamlit."""

from collections.abc import Sequence
from typing import Any

import streamlit as st

from advisor.dashboard.archive import SYMBOLS, badge, open_archive, status_of
from advisor.dashboard.config_form import config_fields
from advisor.overview import table_row
from advisor.wording import MISSING, literal
from storage.commandline import BadInput
from storage.records import RunInfo
from storage.store import Store
from trainer.config import checked_config
from trainer.launch import launch, stop

SIX_FIELDS = ("workload", "learning_rate", "max_staleness", "steps", "schedule", "seed")
MORE_FIELDS = (
    "clip_epsilon",
    "prompts",
    "group_size",
    "optimizer",
    "warmup_steps",
    "max_grad_norm",
    "hidden_size",
    "layers",
    "name",
)
FIRST_VALUES = {"learning_rate": 2e-4, "max_staleness": 3, "steps": 300}
REFRESH_SECONDS = 2
COLUMNS = {
    "η": st.column_config.NumberColumn(format="%.1e", help="learning rate after warm-up"),
    "name": st.column_config.TextColumn(width=150),
    "S": st.column_config.NumberColumn(help="max staleness, in learner steps"),
    "done": st.column_config.ProgressColumn(format="%.0f%%", min_value=0, max_value=100),
    "reward first": st.column_config.NumberColumn(format="%.3f", help="mean of the first 20 steps"),
    "reward last": st.column_config.NumberColumn(format="%.3f", help="mean of the last 20 steps"),
    "collapse step": st.column_config.NumberColumn(help="learner step at which the collapse began"),
}


def page() -> None:
    """Start a run, or look after those that are there."""
    store = open_archive()
    st.title("Runs", anchor=False)
    _start(store)
    if not store.runs():
        st.info("The archive is empty. Start the first run above.")
        return
    alive = any(status_of(run).alive for run in store.runs(archived=False))
    st.fragment(_listing, run_every=REFRESH_SECONDS if alive else None)(store, alive)


def _start(store: Store) -> None:
    with st.expander("Start a run", icon=":material/play_arrow:", expanded=not store.runs()):
        with st.form("start", border=False):
            entered = config_fields(SIX_FIELDS, FIRST_VALUES, key="start", columns=3)
            with st.expander("More settings"):
                entered |= config_fields(MORE_FIELDS, {}, key="start", columns=3)
            pressed = st.form_submit_button("Start", type="primary", icon=":material/play_arrow:")
        if pressed:
            _launch(store, entered)


def _launch(store: Store, entered: dict[str, Any]) -> None:
    try:
        run_id = launch(store, checked_config(entered))
    except BadInput as faults:
        for fault in str(faults).splitlines():
            st.error(literal(fault))
        return
    st.success(f"Run {run_id} is starting.")
    st.page_link("advisor/dashboard/watch.py", label="Watch it", query_params={"run": run_id})


def _listing(store: Store, was_alive: bool) -> None:
    alive = any(status_of(run).alive for run in store.runs(archived=False))
    if was_alive and not alive:
        st.rerun()
    shown = _filtered(store.runs())
    if not shown:
        st.info("No run matches. Clear the filter, or show the archived ones.")
        return
    counts = store.step_counts()
    ids = [run.id for run in shown]
    picked = st.dataframe(
        [
            table_row(run, f"{SYMBOLS[status_of(run)]} {status_of(run)}", counts.get(run.id, 0))
            for run in shown
        ],
        hide_index=True,
        on_select="rerun",
        selection_mode="single-row",
        key=f"runs-{hash(tuple(ids))}",  # a selection is a row number: other rows, another table
        placeholder=MISSING,
        column_config=COLUMNS,
    )
    rows = picked["selection"]["rows"]
    if rows:
        _actions(store, store.run(ids[rows[0]]))
    else:
        st.caption("Select a row to watch, stop or archive that run.")


def _filtered(runs: Sequence[RunInfo]) -> list[RunInfo]:
    left, middle, right = st.columns([2, 2, 1], vertical_alignment="bottom")
    words = left.text_input("Search", placeholder="name, id, group", key="runs-search").lower()
    states = sorted({str(status_of(run)) for run in runs})
    wanted = middle.multiselect("Status", states, key="runs-status", placeholder="any")
    archived = right.toggle("Archived too", key="runs-archived")
    return [
        run
        for run in runs
        if (archived or not run.archived)
        and (not wanted or status_of(run) in wanted)
        and words in f"{run.name} {run.id} {run.group or ''}".lower()
    ]


def _actions(store: Store, run: RunInfo) -> None:
    status = status_of(run)
    with st.container(border=True, horizontal=True, vertical_alignment="center"):
        st.markdown(f"{badge(status)} **{literal(run.name)}**")
        st.page_link(
            "advisor/dashboard/watch.py",
            label="Watch",
            icon=":material/monitoring:",
            query_params={"run": run.id},
        )
        if run.status.alive and st.button("Stop", icon=":material/stop:", key=f"stop-{run.id}"):
            now = stop(store, run.id)
            words = "stops after its present step" if now.alive else f"is {now}"
            st.toast(f"{literal(run.name)} {words}.")
        words = "Bring back" if run.archived else "Archive"
        if st.button(words, icon=":material/archive:", key=f"archive-{run.id}"):
            store.update_run(run.id, archived=not run.archived)
            st.rerun()


page()
