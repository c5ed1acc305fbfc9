"""A Plotly chart that keeps the reader's zoom, pan and legend choices while its data grow.

``st.plotly_chart`` is mounted anew at every new point and loses them. This component calls
``Plotly.react`` on the same element with a constant ``uirevision``. Its script and plotly.js are
loaded once per page from the server's own ``/assets`` (see ``app.py``), and a chart with a feed
fetches what is new by itself (see ``feed.py``), so a refresh carries nothing but new points.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import streamlit as st

from advisor.drawing import ON_DARK, Figure

ASSETS = Path(__file__).parent / "assets"
SCRIPT = f"assets/live_plot.js?{int((ASSETS / 'live_plot.js').stat().st_mtime)}"
_component = st.components.v2.component(
    "etalon_live_plot",
    html="<div class='etalon-plot' style='width:100%'></div>",
    js=f"""
const script = new URL("{SCRIPT}", document.baseURI).href;
export default async (component) => (await import(script)).default(component);
""",
    isolate_styles=False,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """Where a chart asks for what is new, every so many seconds, and what it knows already."""

    address: str
    token: str
    seconds: float


def live_plot(
    chart: Figure,
    *,
    key: str,
    alt: str,
    name: str = "",
    feed: Feed | None = None,
    on_point: Callable[[float, float], None] | None = None,
) -> None:
    """Draw a chart; ``key`` keeps its identity over refreshes, ``alt`` says what it shows.

    With a ``feed`` it goes on by itself; ``name`` is what it is called there. With ``on_point`` a
    click anywhere in it calls that with the place, in the units of its axes.
    """
    asked = None if feed is None else {**asdict(feed), "name": name}
    data = {"figure": chart, "alt": alt, "onDark": ON_DARK, "feed": asked}
    if on_point is None:
        _component(key=key, data=data)
        return

    def pointed() -> None:
        place = st.session_state[key].point
        if place is not None:
            on_point(float(place["x"]), float(place["y"]))

    _component(key=key, data={**data, "pointing": True}, on_point_change=pointed)
