"""The archive as the pages see it: one open store per server, and what a page reads of a run."""

from collections.abc import Mapping
from typing import Any

import streamlit as st

from advisor.answer import diagnose
from advisor.overview import worth_judging_again
from advisor.regime import Diagnosis
from storage.errors import StorageError
from storage.liveness import PulseReader
from storage.records import RunInfo, RunStatus
from storage.store import Store

DIAGNOSES_KEPT = 200
DIAGNOSIS_SECONDS = 60
WATCHED = (
    "step",
    "sampled_at_step",
    "reward_mean",
    "gold_reward_mean",
    "learning_rate",
    "staleness_max",
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
    "gradient_cosine",
)
"""The columns that Watch and Compare draw."""

SYMBOLS = {
    RunStatus.QUEUED: "🕓",
    RunStatus.RUNNING: "▶",
    RunStatus.FINISHED: "✔",
    RunStatus.COLLAPSED: "✖",
    RunStatus.DIVERGED: "✖",
    RunStatus.FAILED: "⚠",
    RunStatus.STOPPED: "■",
    RunStatus.LOST: "？",
}
COLORS = {
    RunStatus.QUEUED: "gray",
    RunStatus.RUNNING: "blue",
    RunStatus.FINISHED: "green",
    RunStatus.COLLAPSED: "red",
    RunStatus.DIVERGED: "red",
    RunStatus.FAILED: "red",
    RunStatus.STOPPED: "gray",
    RunStatus.LOST: "orange",
}


@st.cache_resource(show_spinner=False)
def _open_store() -> Store:
    return Store.open()


@st.cache_resource(show_spinner=False)
def _pulse_reader() -> PulseReader:
    return PulseReader()


def open_archive() -> Store:
    """Return the open archive; when it cannot be opened or read, say so and end the page."""
    try:
        store = _open_store()
        store.step_counts()
    except StorageError as error:
        _open_store.clear()
        st.error(f"The archive cannot be read. {error}", icon=":material/database_off:")
        st.button("Try again")
        st.stop()
    return store


def status_of(run: RunInfo) -> RunStatus:
    """Return the status as this server sees it: ``lost`` is derived here, never stored."""
    return _pulse_reader().status(run)


def badge(status: RunStatus) -> str:
    """Return a status as symbol, word and color in Streamlit's Markdown."""
    return f":{COLORS[status]}-badge[{SYMBOLS[status]} {status}]"


def run_label(run: RunInfo) -> str:
    """Name a run in a selector: symbol, name, and the id that tells equal names apart."""
    return f"{SYMBOLS[status_of(run)]} {run.name} · {run.id}"


def series_of(store: Store, run_id: str) -> Mapping[str, list[Any]]:
    """Return the watched columns of a run, reading only the steps this session has not seen."""
    kept: dict[str, dict[str, list[Any]]] = st.session_state.setdefault("series", {})
    series = kept.setdefault(run_id, {name: [] for name in WATCHED})
    last = series["step"][-1] if series["step"] else -1
    for name, values in store.series(run_id, WATCHED, after=last).items():
        series[name].extend(values)
    return series


def diagnosis_of(store: Store, run: RunInfo, steps: int) -> Diagnosis:
    """Return the diagnosis of a run, made again only when the run has moved on."""
    return _diagnosis(store, run.id, run.status, worth_judging_again(steps))


@st.cache_data(ttl=DIAGNOSIS_SECONDS, max_entries=DIAGNOSES_KEPT, show_spinner=False)
def _diagnosis(_store: Store, run_id: str, status: str, steps: int) -> Diagnosis:
    return diagnose(_store, run_id)
