"""What can be done with the runs that are selected on the Runs page."""

import time
from collections.abc import Callable, Sequence

import streamlit as st

from advisor.dashboard.access import may_operate
from advisor.dashboard.archive import badge, pulse_reader, status_of
from advisor.dashboard.operate import archive, delete, mark, resume, stop
from advisor.wording import literal
from storage.commandline import BadInput
from storage.errors import StorageError
from storage.liveness import is_elsewhere, last_sign
from storage.records import RunInfo, RunStatus
from storage.store import Store
from storage.words import counted, moment
from trainer.launch import has_checkpoint
from trainer.silence import is_silent_elsewhere

RESUMABLE = (RunStatus.STOPPED, RunStatus.LOST, RunStatus.FAILED)


def run_actions(store: Store, runs: Sequence[RunInfo]) -> None:
    """Draw a button for everything that makes sense for these runs."""
    with st.container(border=True):
        st.markdown("  \n".join(f"{badge(status_of(r))} **{literal(r.name)}**" for r in runs))
        with st.container(horizontal=True, vertical_alignment="center"):
            _look(runs)
            if not may_operate():
                return
            alive = [run for run in runs if run.status.alive]
            halted = [run for run in runs if _may_resume(store, run)]
            _button("Stop", "stop", alive, lambda run: _stop(store, run))
            _button("Resume", "resume", halted, lambda run: resume(store, run.id))
            put_away = all(run.archived for run in runs)
            _button(
                "Bring back" if put_away else "Archive",
                "archive",
                runs,
                lambda run: archive(store, run.id, not put_away),
            )
            if st.button("Delete", icon=":material/delete:", key="delete"):
                _confirm_deleting(store, runs)
        for run in runs:
            lost = is_elsewhere(run) and status_of(run) is RunStatus.LOST
            if lost or is_silent_elsewhere(run):
                _say_who_ends(run)
        _marks(store, runs)


def _look(runs: Sequence[RunInfo]) -> None:
    if len(runs) == 1:
        st.page_link(
            "advisor/dashboard/watch.py",
            label="Watch",
            icon=":material/monitoring:",
            query_params={"run": runs[0].id},
        )
        st.page_link(
            "advisor/dashboard/advise.py",
            label="Advise",
            icon=":material/tune:",
            query_params={"like": runs[0].id},
        )
    else:
        st.page_link(
            "advisor/dashboard/compare.py",
            label="Compare",
            icon=":material/compare_arrows:",
            query_params=[("runs", run.id) for run in runs],
        )


def _may_resume(store: Store, run: RunInfo) -> bool:
    if status_of(run) not in RESUMABLE:
        return False
    return has_checkpoint(run.id) or store.last_step(run.id) is None  # it begins from the start


def _stop(store: Store, run: RunInfo) -> bool:
    if not stop(store, run.id).alive:
        return False
    words = f", once {literal(run.host or '')} hears it" if is_elsewhere(run) else ""
    st.toast(f"{literal(run.name)} stops after its present step{words}.")
    return True


def _say_who_ends(run: RunInfo) -> None:
    """Say of a run that is silent on another host what comes of stopping or resuming it."""
    wait = pulse_reader().seconds_to_watch(run)
    ends = "*Stop* ends the run, and *Resume* lets it go on here"
    if wait > 0:
        ends = (
            f"*Stop* only asks it. If it stays silent, {ends}, from {moment(time.time() + wait)} "
            f"on; or watch it in a terminal: python -m trainer stop {literal(run.id)}"
        )
    host, since = literal(run.host or "unknown"), moment(last_sign(run))
    st.warning(f"The process of {literal(run.name)} on {host} is silent since {since}. {ends}.")


def _button(
    label: str, icon: str, runs: Sequence[RunInfo], action: Callable[[RunInfo], bool | None]
) -> None:
    """Draw a button that does something to each of the runs it makes sense for, if there are any.

    ``action`` returns whether it said something, which drawing the page anew would take away.

    What cannot be done to one is said; the others are done all the same.
    """
    if not runs:
        return
    words = label if len(runs) == 1 else f"{label} {len(runs)}"
    symbol = {"stop": "stop", "resume": "play_arrow", "archive": "archive"}[icon]
    if not st.button(words, icon=f":material/{symbol}:", key=icon):
        return
    faults = []
    said = False
    for run in runs:
        try:
            said = bool(action(run)) or said
        except (BadInput, StorageError) as error:
            faults.append(str(error))
    for fault in faults:
        st.error(literal(fault))
    if not faults and not said:
        st.rerun()


@st.dialog("Delete for good?")
def _confirm_deleting(store: Store, runs: Sequence[RunInfo]) -> None:
    alive = [run for run in runs if status_of(run).alive]
    if alive:
        names = ", ".join(literal(run.name) for run in alive)
        st.error(f"Still running: {names}. Stop it first.")
        return
    rows = sum(store.step_counts([run.id for run in runs]).values())
    st.write(f"{counted(len(runs), 'run')} with {counted(rows, 'stored step')} in all:")
    st.markdown("\n".join(f"- {literal(run.name)} · {run.id}" for run in runs))
    if st.button("Delete", type="primary", icon=":material/delete_forever:", key="really-delete"):
        for run in runs:
            delete(store, run.id)
        st.rerun()


def _marks(store: Store, runs: Sequence[RunInfo]) -> None:
    """Let a person tag the runs, and note something on one."""
    known = store.tags()
    common = set.intersection(*(set(known.get(run.id, ())) for run in runs))
    key = "-".join(run.id for run in runs)
    with st.form(f"marks-{hash(key)}", border=False):
        left, right, last = st.columns([2, 3, 1], vertical_alignment="bottom")
        tags = left.text_input(
            "tags", ", ".join(sorted(common)), placeholder="with commas between", key=f"tags-{key}"
        )
        note = None
        if len(runs) == 1:
            note = right.text_input("note", runs[0].notes or "", key=f"note-{key}")
        if not last.form_submit_button("Save", icon=":material/save:"):
            return
    try:
        mark(store, runs, tags, note)
    except BadInput as faults:
        for fault in str(faults).splitlines():
            st.error(literal(fault))
        return
    st.rerun()
