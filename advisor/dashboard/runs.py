"""Runs: the archive as a table; start, import, and look after runs. Page script of Streamlit."""

import time
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from advisor.dashboard.access import may_operate
from advisor.dashboard.archive import SYMBOLS, open_archive, patient, status_of
from advisor.dashboard.config_form import config_fields
from advisor.dashboard.fold import fold
from advisor.dashboard.import_form import import_form
from advisor.dashboard.operate import start
from advisor.dashboard.run_actions import run_actions
from advisor.experiments.probe import KIND as PROBE
from advisor.overview import table_row
from advisor.wording import MISSING, literal
from storage.commandline import BadInput
from storage.records import RunInfo
from storage.store import Store
from storage.words import counted
from trainer.config import web_fields

FIRST_FIELDS = ("workload", "learning_rate", "max_staleness", "steps", "schedule", "seed")
FIRST_VALUES = {"learning_rate": 2e-4, "max_staleness": 3, "steps": 300}
REFRESH_SECONDS = 2
ROW, TALLEST = 35, 700  # heights of a row, and of the table at most, in pixels
COLUMNS = {
    "status": st.column_config.TextColumn(width=95),
    "name": st.column_config.TextColumn(width=170),
    "η": st.column_config.NumberColumn(format="%.1e", help="learning rate after warm-up"),
    "S": st.column_config.NumberColumn(help="max staleness, in learner steps"),
    "done": st.column_config.ProgressColumn(format="%.0f%%", min_value=0, max_value=100, width=90),
    "left": st.column_config.TextColumn(help="time left at the mean pace since the start"),
    "outcome": st.column_config.TextColumn(width=100),
    "reward first": st.column_config.NumberColumn(format="%.3f", help="mean of the first 20 steps"),
    "reward last": st.column_config.NumberColumn(format="%.3f", help="mean of the last 20 steps"),
    "collapse step": st.column_config.NumberColumn(
        "collapse", help="learner step at which the collapse began"
    ),
}


def page() -> None:
    """Start or import a run, or look after those that are there."""
    store = open_archive()
    st.title("Runs", anchor=False)
    runs = store.runs()
    if may_operate():
        _start(store, first=not runs)
        import_form(store)
    if not runs:
        st.info("The archive is empty. Start the first run above, or import a log.")
        return
    alive = _any_alive(runs)
    st.fragment(patient(_listing), run_every=REFRESH_SECONDS if alive else None)(store, alive)


def _start(store: Store, *, first: bool) -> None:
    icon = ":material/play_arrow:"
    place = fold("Start a run", key="start-fold", icon=icon, expanded=first)
    if place is None:
        return
    with place:
        with st.form("start", border=False):
            entered = config_fields(FIRST_FIELDS, FIRST_VALUES, key="start", columns=3)
            with st.expander("More settings"):
                more = [name for name in web_fields() if name not in FIRST_FIELDS]
                entered |= config_fields(more, {}, key="start", columns=3)
            pressed = st.form_submit_button("Start", type="primary", icon=icon)
        if pressed:
            _launch(store, entered)


def _launch(store: Store, entered: dict[str, Any]) -> None:
    try:
        run_id = start(store, entered)
    except BadInput as faults:
        for fault in str(faults).splitlines():
            st.error(literal(fault))
        return
    st.success(f"Run {run_id} is starting.")
    st.page_link(
        "advisor/dashboard/watch.py",
        label="Watch it",
        icon=":material/monitoring:",
        query_params={"run": run_id},
    )


def _listing(store: Store, was_alive: bool) -> None:
    runs, tags = store.runs(), store.tags()
    if was_alive and not _any_alive(runs):
        st.rerun()
    shown = _filtered(runs, tags)
    if not shown:
        st.info("No run matches. Clear the filter, or show the archived ones and those of probes.")
        return
    newest, now = store.last_steps(), time.time()
    ids = [run.id for run in shown]
    picked = st.dataframe(
        [
            table_row(
                run,
                f"{SYMBOLS[status_of(run)]} {status_of(run)}",
                newest.get(run.id, -1) + 1,
                tags.get(run.id, ()),
                now if status_of(run).alive else None,
            )
            for run in shown
        ],
        hide_index=True,
        height=min(TALLEST, ROW * (len(shown) + 1) + 3),
        on_select="rerun",
        selection_mode="multi-row",
        key=f"runs-{hash(tuple(ids))}",  # a selection is a row number: other rows, another table
        placeholder=MISSING,
        column_config=COLUMNS,
    )
    rows = picked["selection"]["rows"]
    if rows:
        run_actions(store, [store.run(ids[row]) for row in rows])
    else:
        st.caption("Select rows to watch, compare, stop, resume, tag, archive or delete runs.")


def _any_alive(runs: Sequence[RunInfo]) -> bool:
    return any(status_of(run).alive for run in runs if not run.archived)


def _filtered(runs: Sequence[RunInfo], tags: Mapping[str, Sequence[str]]) -> list[RunInfo]:
    parts = sum(run.kind == PROBE for run in runs)
    left, middle, right, last = st.columns([3, 3, 2, 2], vertical_alignment="bottom")
    words = left.text_input(
        "search", placeholder="name, id, group, tag, note", key="search", bind="query-params"
    ).lower()
    states = sorted({str(status_of(run)) for run in runs})
    wanted = middle.multiselect(
        "status", states, key="status", placeholder="any", bind="query-params"
    )
    archived = right.toggle("archived too", key="archived", bind="query-params")
    probes = parts > 0 and last.toggle(
        "probes too",
        key="probes",
        bind="query-params",
        help=f"{counted(parts, 'short run')} that probes are made of; living ones are always shown",
    )
    return [
        run
        for run in runs
        if (archived or not run.archived)
        and (probes or run.kind != PROBE or status_of(run).alive)
        and (not wanted or status_of(run) in wanted)
        and words in _searched(run, tags.get(run.id, ()))
    ]


def _searched(run: RunInfo, tags: Sequence[str]) -> str:
    return " ".join([run.name, run.id, run.group or "", run.notes or "", *tags]).lower()


page()
