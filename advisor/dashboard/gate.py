"""Decides for each request whether it is let in, before any page, feed or file is looked for.

Streamlit asks for a login when a page is drawn; what it and this dashboard serve beside pages, such
as feeds, downloads and uploads, is asked for here.
"""

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.requests import HTTPConnection
from starlette.responses import PlainTextResponse

from advisor.dashboard.access import Role, is_this_machine, requires_login, role_of_cookies

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]

OPEN = frozenset(
    ("/", "/watch", "/advise", "/compare", "/laws", "/runs", "/favicon.png", "/oauth2callback")
)
OPEN_BELOW = ("/assets/", "/static/", "/auth/", "/_stcore/bidi-components/")
OPEN_OF_STREAMLIT = ("/_stcore/health", "/_stcore/host-config", "/_stcore/stream")
"""What a login needs: the shell of the pages, which holds nothing of the archive, and the socket
over which the page that asks for the login is drawn."""
UPLOADS = "/_stcore/upload_file/"
HEADERS = (
    (b"content-security-policy", b"frame-ancestors 'self'"),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"same-origin"),
)
"""No foreign page may show this one in a frame of its own and let a person click in it."""


class Gate:
    """ASGI middleware: refuses who is neither on this machine nor logged in."""

    def __init__(self, app: Application) -> None:
        self._app = app

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass a request on, or say why not."""
        if scope["type"] not in ("http", "websocket"):
            return await self._app(scope, receive, send)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            await send(message)

        if fault := _fault(scope):
            return await PlainTextResponse(fault, status_code=403)(scope, receive, sent)
        return await self._app(scope, receive, sent)


def _fault(scope: Message) -> str | None:
    if not requires_login():
        address = (scope.get("server") or (None,))[0]  # where the connection came in
        needs = "a login is needed to be served from another machine: docs/security.md"
        return None if is_this_machine(address) else needs
    path = scope["path"]
    if path in OPEN or path.startswith(OPEN_BELOW) or path in OPEN_OF_STREAMLIT:
        return None
    role = role_of_cookies(HTTPConnection(scope).cookies)
    if role is None:
        return "a login is needed"
    if path.startswith(UPLOADS) and role is not Role.OPERATOR:
        return "an operator's login is needed"
    return None
