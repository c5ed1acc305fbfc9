"""Tells a browser early what the charts of a page need: it loads while the page is made."""

from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any

Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Callable[[], Awaitable[Message]], Send], Awaitable[None]]


class Early:
    """ASGI middleware: adds a ``Link`` header to the HTML of the pages ``paths``."""

    def __init__(self, app: Application, links: Sequence[str], paths: Sequence[str]) -> None:
        self._app, self._paths = app, frozenset(paths)
        self._header = (b"link", ", ".join(links).encode())

    async def __call__(
        self, scope: Message, receive: Callable[[], Awaitable[Message]], send: Send
    ) -> None:
        """Pass everything on, with the header where it belongs."""
        if scope["type"] != "http" or scope["path"] not in self._paths:
            return await self._app(scope, receive, send)

        async def sent(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), self._header]
            await send(message)

        return await self._app(scope, receive, sent)
