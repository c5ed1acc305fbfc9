"""The archive as the pages see it: one open store per server, and how a run stands."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import streamlit as st

from advisor.dashboard.access import admit
from advisor.diagnosis import diagnose
from advisor.overview import worth_judging_again
from advisor.regime import Diagnosis
from storage.errors import StorageError
from storage.liveness import PulseReader
from storage.records import RunInfo, RunStatus
from storage.store import Store

DIAGNOSES_KEPT = 200
DIAGNOSIS_SECONDS = 60
SYMBOLS = {
    RunStatus.QUEUED: "○",
    RunStatus.RUNNING: "▶",
    RunStatus.FINISHED: "✔",
    RunStatus.COLLAPSED: "✖",
    RunStatus.DIVERGED: "✖",
    RunStatus.FAILED: "⚠",
    RunStatus.STOPPED: "■",
    RunStatus.LOST: "?",
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
def shared_store() -> Store:
    """Return the one open store of this server.

    Raises:
        StorageError: the archive cannot be opened.
    """
    return Store.open()


@st.cache_resource(show_spinner=False)
def pulse_reader() -> PulseReader:
    """Return what has watched the heartbeats of runs as long as any page showed them."""
    return PulseReader()


def open_archive() -> Store:
    """Return the open archive; when it may not or cannot be read, say so and end the page."""
    admit()
    try:
        store = shared_store()
        if store.is_replaced:
            shared_store.clear()
            store = shared_store()
        store.check_answers()
    except StorageError as error:
        st.error(f"The archive cannot be read. {error}", icon=":material/database_off:")
        st.button("Try again")
        st.stop()
    return store


def patient(draw: Callable[..., None]) -> Callable[..., None]:
    """Let what refreshes outlive an archive that does not answer: it says so, and goes on later.

    ``draw`` takes the store first. The archive may go away between any two of its reads.
    """

    @wraps(draw)
    def drawn(store: Store, *args: Any, **settings: Any) -> None:
        try:
            store.check_answers()
            draw(store, *args, **settings)
        except StorageError as error:
            st.error(
                f"The archive cannot be read; this goes on by itself. {error}",
                icon=":material/database_off:",
            )

    return drawn


def status_of(run: RunInfo) -> RunStatus:
    """Return the status as this server sees it: ``lost`` is derived here, never stored."""
    return pulse_reader().status(run)


def badge(status: RunStatus) -> str:
    """Return a status as symbol, word and color in Streamlit's Markdown."""
    return f":{COLORS[status]}-badge[{SYMBOLS[status]} {status}]"


def run_label(run: RunInfo) -> str:
    """Name a run in a selector: symbol, name, and the id that tells equal names apart."""
    return f"{SYMBOLS[status_of(run)]} {run.name} · {run.id}"


def diagnosis_of(store: Store, run: RunInfo, steps: int) -> Diagnosis:
    """Return the diagnosis of a run, made again only when the run has moved on."""
    return _diagnosis(store, run.id, run.status, worth_judging_again(steps))


@st.cache_data(ttl=DIAGNOSIS_SECONDS, max_entries=DIAGNOSES_KEPT, show_spinner=False)
def _diagnosis(_store: Store, run_id: str, status: str, steps: int) -> Diagnosis:
    return diagnose(_store, run_id)
