"""A fold of a page whose inside is made when it is first opened, so that a page opens sooner."""

import streamlit as st
from streamlit.delta_generator import DeltaGenerator


def fold(label: str, *, key: str, icon: str, expanded: bool = False) -> DeltaGenerator | None:
    """Draw a fold; return the place inside it, or None as long as it was never opened.

    Once opened, its inside stays when it is closed: what was typed there is not lost.
    """
    place = st.expander(label, icon=icon, expanded=expanded, key=key, on_change="rerun")
    opened = f"{key}-opened"
    if place.open:
        st.session_state[opened] = True
    return place if st.session_state.get(opened) else None
