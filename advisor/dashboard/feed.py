"""What a live run's charts fetch by themselves: only what was added since they last asked.

A page draws its charts once and gives them a token of what it drew. Every few seconds one request
per run asks what has changed since that token; the answer carries the tails of the curves.
Streamlit takes no part in it, so nothing of the page is drawn again.
"""

import gzip
import json
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from advisor.drawing import Figure, delta
from storage.errors import StorageError

Figures = Mapping[str, Figure]

DRAWINGS_KEPT = 128
_SECRET = secrets.token_urlsafe(16)
"""In every address that a page gives out, so that only a page tells where the feed is."""
_drawn: OrderedDict[str, Figures] = OrderedDict()
_lock = threading.Lock()


def remember(figures: Figures) -> str:
    """Keep what a page drew, and return the token under which its charts ask what is new."""
    token = secrets.token_urlsafe(9)
    with _lock:
        _drawn[token] = figures
        while len(_drawn) > DRAWINGS_KEPT:
            _drawn.popitem(last=False)
    return token


def address(run_id: str, window: str) -> str:
    """Return where the charts of a run ask, relative to the server's root."""
    return f"feed/{_SECRET}/{run_id}?window={window}"


def changes(token: str, now: Figures) -> dict[str, Any]:
    """Return what turns the remembered drawing into ``now``, chart by chart, and a new token.

    A drawing that is no longer known is sent whole.
    """
    with _lock:
        before = _drawn.pop(token, {})
    charts = {
        name: delta(before[name], chart) if name in before else {"figure": chart}
        for name, chart in now.items()
    }
    return {"token": remember(now), "charts": charts}


def endpoint(draw: Callable[[str, str], tuple[Figures, bool]]) -> Callable[[Request], Response]:
    """Return the feed as an endpoint; ``draw(run_id, window)`` returns the charts, and alive."""

    def feed(request: Request) -> Response:
        given = request.path_params["secret"].encode()
        if not secrets.compare_digest(given, _SECRET.encode()):
            return Response(status_code=404)
        window = request.query_params.get("window", "")
        try:
            figures, alive = draw(request.path_params["run_id"], window)
        except StorageError as error:
            return Response(str(error), status_code=503)
        answer = changes(request.query_params.get("have", ""), figures)
        answer["alive"] = alive
        words = json.dumps(answer, allow_nan=False, separators=(",", ":"), ensure_ascii=False)
        headers = {"Content-Encoding": "gzip", "Cache-Control": "no-store"}
        return Response(
            gzip.compress(words.encode(), 5), media_type="application/json", headers=headers
        )

    return feed
