"""Requests as a program writes them, which may claim whatever it likes."""

import json
from http.client import HTTPConnection
from typing import Any

from streamlit.web.server.starlette.starlette_app_utils import create_signed_value
from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

SOCKET = {
    "Upgrade": "websocket",
    "Connection": "Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
}


def ask(
    port: int,
    path: str,
    *,
    method: str = "GET",
    address: str = "127.0.0.1",
    headers: dict[str, str] | None = None,
    body: bytes | None = None,
) -> tuple[int, dict[str, str], bytes]:
    """Send one request; return status, headers by lower-case name, and body."""
    connection = HTTPConnection(address, port, timeout=20)
    try:
        connection.request(method, path, body=body, headers=headers or {})
        reply = connection.getresponse()
        found = {name.lower(): value for name, value in reply.getheaders()}
        return reply.status, found, b"" if reply.status == 101 else reply.read()
    finally:
        connection.close()


def opens(port: int, *, address: str = "127.0.0.1", **headers: str) -> bool:
    """Whether the socket of the pages opens for a request with these headers."""
    status, _, _ = ask(port, "/_stcore/stream", address=address, headers=SOCKET | headers)
    return status == 101


def cookie_of(secret: str, **claims: Any) -> dict[str, str]:
    """Return the header of somebody whom a server with this secret has logged in."""
    claims = {"is_logged_in": True, "email_verified": True, **claims}
    signed = create_signed_value(secret, USER_COOKIE_NAME, json.dumps(claims))
    return {"Cookie": f"{USER_COOKIE_NAME}={signed.decode()}"}
