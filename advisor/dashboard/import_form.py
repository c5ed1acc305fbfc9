"""Import by upload: the log of another trainer becomes a run. For the Runs page."""

from typing import Any

import streamlit as st

from advisor.dashboard.fold import fold
from advisor.dashboard.operate import import_log
from advisor.wording import literal
from storage.commandline import BadInput
from storage.importers.importing import Imported
from storage.importers.stacks import STACKS
from storage.store import Store

BY_KEYS = "told by its keys"
SETTINGS = ("learning_rate", "max_staleness", "steps", "clip_epsilon", "group_size", "prompts")


def import_form(store: Store) -> None:
    """Take files of one run, and what they do not say of its setting."""
    place = fold("Import a log", key="import-fold", icon=":material/upload_file:")
    if place is None:
        return
    with place:
        st.caption(
            "JSONL as verl, prime-rl and tinker-cookbook write it, TRL's trainer_state.json, or "
            "TensorBoard event files; several files of one run together. The same log again renews "
            "its run."
        )
        with st.form("import", border=False):
            files = st.file_uploader("log", accept_multiple_files=True, key="import-files")
            left, right = st.columns(2)
            name = left.text_input("name", key="import-name", placeholder="the file's")
            stack = right.selectbox(
                "written by",
                [BY_KEYS, *STACKS],
                format_func=lambda each: STACKS[each].title if each in STACKS else each,
                key="import-stack",
            )
            st.caption("What the log does not say; empty is unknown.")
            places = st.columns(3)
            told = {
                each: places[i % 3].text_input(each.replace("_", " "), key=f"import-{each}")
                for i, each in enumerate(SETTINGS)
            }
            pressed = st.form_submit_button("Import", type="primary", icon=":material/upload:")
        if pressed:
            _import(store, files or [], name.strip(), stack, told)


def _import(store: Store, files: list[Any], name: str, stack: str, told: dict[str, str]) -> None:
    if not files:
        st.error("log: no file was chosen; choose one")
        return
    try:
        found = import_log(
            store,
            files,
            name=name or files[0].name.rpartition(".")[0],
            stack=None if stack == BY_KEYS else stack,
            settings={key: text.strip() for key, text in told.items() if text.strip()},
        )
    except BadInput as faults:
        for fault in str(faults).splitlines():
            st.error(literal(fault))
        return
    _say(found)


def _say(found: Imported) -> None:
    st.success(
        f"{found.rows} learner steps, {found.written} of them new; "
        f"{len(found.mapped)} of their metrics are known."
    )
    st.page_link("advisor/dashboard/watch.py", label="Watch it", query_params={"run": found.run_id})
    for note in found.notes:
        st.caption(literal(note))
    if found.unknown:
        st.caption(literal(f"Kept as they are, not understood: {', '.join(found.unknown)}"))
