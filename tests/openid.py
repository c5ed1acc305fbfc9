"""A small OpenID provider on this machine, at which everybody is who they say they are."""

import json
import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT, SECRET = "etalon", "of-the-client"
PEOPLE: dict[str, dict[str, Any]] = {
    "olga": {"email": "Olga@example.org", "email_verified": True},
    "vera": {"email": "vera@example.org", "email_verified": True},
}
"""Olga is to be an operator, Vera a viewer."""


class Provider(ThreadingHTTPServer):
    """Signs tokens, and knows the codes that it gave out."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Answers)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.key = RSAKey.generate_key(2048, {"kid": "one", "use": "sig", "alg": "RS256"})
        self.codes: dict[str, dict[str, str]] = {}

    def token(self, code: str) -> dict[str, Any]:
        """Return the tokens that a code is good for, once."""
        asked = self.codes.pop(code)
        now = int(time.time())
        who = {"sub": asked["who"], "nonce": asked["nonce"], **PEOPLE[asked["who"]]}
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 600, **who}
        signed = jwt.encode({"alg": "RS256", "kid": "one"}, claims, self.key)
        return {"access_token": "unused", "token_type": "Bearer", "id_token": signed}


class _Answers(BaseHTTPRequestHandler):
    server: Provider

    def do_GET(self) -> None:
        """Describe the provider, show its keys, or ask who somebody is."""
        at, query = urlsplit(self.path).path, parse_qs(urlsplit(self.path).query)
        asked = {name: values[0] for name, values in query.items()}
        url = self.server.url
        if at == "/.well-known/openid-configuration":
            self._say(
                {
                    "issuer": url,
                    "authorization_endpoint": f"{url}/authorize",
                    "token_endpoint": f"{url}/token",
                    "jwks_uri": f"{url}/keys",
                    "id_token_signing_alg_values_supported": ["RS256"],
                }
            )
        elif at == "/keys":
            self._say({"keys": [self.server.key.as_dict(private=False)]})
        elif "who" not in asked:
            links = (
                f"<p><a href='{escape(self.path)}&amp;who={each}'>{each}</a></p>" for each in PEOPLE
            )
            self._say("".join(links))
        else:
            code = secrets.token_urlsafe(16)
            self.server.codes[code] = asked
            back = urlencode({"code": code, "state": asked["state"]})
            self.send_response(302)
            self.send_header("Location", f"{asked['redirect_uri']}?{back}")
            self.end_headers()

    def do_POST(self) -> None:
        """Give tokens for a code."""
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self._say(self.server.token(parse_qs(body)["code"][0]))

    def _say(self, what: Any) -> None:
        is_page = isinstance(what, str)
        content = (what if is_page else json.dumps(what)).encode()
        self.send_response(200)
        self.send_header("Content-Type", "text/html" if is_page else "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Print nothing."""


@contextmanager
def a_provider() -> Iterator[Provider]:
    """Serve a provider."""
    with Provider() as provider:
        threading.Thread(target=provider.serve_forever, daemon=True).start()
        yield provider
        provider.shutdown()


def secrets_of(provider: Provider, dashboard: str, operators: list[str]) -> str:
    """Return the secrets with which a dashboard at this address asks this provider."""
    return f"""
[auth]
redirect_uri = "{dashboard}/oauth2callback"
cookie_secret = "{secrets.token_urlsafe(32)}"
client_id = "{CLIENT}"
client_secret = "{SECRET}"
server_metadata_url = "{provider.url}/.well-known/openid-configuration"

[etalon]
operators = {json.dumps(operators)}
"""
