"""A Plotly chart that keeps the reader's zoom, pan and legend choices while its data grow.

``st.plotly_chart`` is mounted anew at every new point and loses them. This component calls
``Plotly.react`` on the same element with a constant ``uirevision``. Its script and plotly.js are
loaded once per page from the server's own ``/assets`` (see ``app.py``), so a refresh carries
nothing but the numbers.
"""

from pathlib import Path

import streamlit as st

from advisor.drawing import ON_DARK, Figure

ASSETS = Path(__file__).parent / "assets"
_VERSION = int((ASSETS / "live_plot.js").stat().st_mtime)
_component = st.components.v2.component(
    "etalon_live_plot",
    html="<div class='etalon-plot' style='width:100%'></div>",
    js=f"""
const script = new URL("assets/live_plot.js?{_VERSION}", document.baseURI).href;
export default async (component) => (await import(script)).default(component);
""",
    isolate_styles=False,
)


def live_plot(chart: Figure, *, key: str, alt: str) -> None:
    """Draw a chart; ``key`` keeps its identity over refreshes, ``alt`` says what it shows."""
    _component(key=key, data={"figure": chart, "alt": alt, "onDark": ON_DARK})
