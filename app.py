"""The door: page configuration and navigation. Open it with ``streamlit run app.py``.

The file is met twice. The server imports it and finds ``app``, which serves the script of the
charts and plotly.js, so that no refresh sends them again, and what live charts ask for; every visit
then runs it as the script.
"""

import logging
import sys
from pathlib import Path

import plotly
import streamlit as st
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from streamlit.runtime.scriptrunner import get_script_run_ctx

PAGES = Path(__file__).parent / "advisor" / "dashboard"
PLOTLY = Path(plotly.__file__).parent / "package_data"

if get_script_run_ctx(suppress_warning=True) is None:
    # Imported by the server, before its runtime begins, our cached functions have no store yet.
    logging.getLogger("streamlit.runtime.caching.cache_data_api").setLevel(logging.ERROR)
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware

    from advisor.dashboard.access import check_access, hosts, login
    from advisor.dashboard.early import Early
    from advisor.dashboard.feed import endpoint
    from advisor.dashboard.gate import Gate
    from advisor.dashboard.live_plot import SCRIPT
    from advisor.dashboard.run_charts import drawn_now
    from storage.commandline import BadInput
    from storage.terminal import make_output_visible

    make_output_visible()
    try:
        check_access(st.get_option("server.address"))
    except BadInput as faults:
        sys.stderr.write(f"{faults}\n")
        raise SystemExit(2) from None
    routes = [
        Route("/feed/{secret}/{run_id}", endpoint(drawn_now)),
        Mount("/assets/plotly", StaticFiles(directory=PLOTLY)),
        Mount("/assets", StaticFiles(directory=PAGES / "assets")),
    ]
    links = [
        f"<{SCRIPT}>; rel=modulepreload",
        "<assets/plotly/plotly.min.js>; rel=preload; as=script",
    ]
    trusted = Middleware(TrustedHostMiddleware, allowed_hosts=hosts(), www_redirect=False)
    early = Middleware(Early, links=links, paths=["/", "/watch", "/advise", "/compare", "/laws"])
    app = st.App(
        __file__,
        routes=routes,
        middleware=[trusted, Middleware(Gate), early],
        secrets={"auth": dict(login().auth)},  # whatever becomes of the file meanwhile
    )
else:
    from advisor.dashboard.access import admit, say_who

    st.set_page_config(page_title="Etalon", page_icon=PAGES / "icon.png", layout="wide")
    st.html("<style>[data-testid='stMainBlockContainer'] {padding: 4.5rem 5vw 2rem}</style>")
    admit()
    page = st.navigation(
        [
            st.Page(PAGES / "watch.py", title="Watch", icon=":material/monitoring:", default=True),
            st.Page(PAGES / "advise.py", title="Advise", icon=":material/tune:"),
            st.Page(PAGES / "compare.py", title="Compare", icon=":material/compare_arrows:"),
            st.Page(PAGES / "laws.py", title="Laws", icon=":material/functions:"),
            st.Page(PAGES / "runs.py", title="Runs", icon=":material/list:"),
        ],
        position="top",
    )
    say_who()
    page.run()
