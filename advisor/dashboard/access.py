"""Who may see the archive and who may change it: the address, the login, and the two roles.

Without ``[auth]`` in Streamlit's secrets only this machine is served, and whoever is on it is an
operator. With it everybody logs in at an OpenID provider, and is a viewer unless ``operators`` of
the section ``[etalon]`` names the verified email address. What the secrets say when the process
begins holds for its life.
"""

import json
import tomllib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from enum import StrEnum
from functools import cache, wraps
from importlib.util import find_spec
from ipaddress import ip_address
from pathlib import Path
from typing import Any, ParamSpec, TypeVar
from urllib.parse import urlsplit

import streamlit as st
from streamlit.auth_util import get_cookie_with_chunks
from streamlit.runtime.secrets import secrets_singleton
from streamlit.web.server.starlette.starlette_app_utils import decode_signed_value
from streamlit.web.server.starlette.starlette_server_config import USER_COOKIE_NAME

from advisor.wording import literal
from storage.commandline import BadInput

THIS_MACHINE = ("127.0.0.1", "localhost", "::1", "[::1]")
NEEDED = ("redirect_uri", "cookie_secret", "client_id", "client_secret", "server_metadata_url")
LEAST_SECRET = 32
"""Characters of the secret that signs who is logged in."""

Given = ParamSpec("Given")
Result = TypeVar("Result")


class Role(StrEnum):
    """What somebody who was let in may do."""

    VIEWER = "viewer"
    OPERATOR = "operator"


class NotAnOperator(BadInput):
    """A viewer asked for something that changes the archive or starts a process."""


@dataclass(frozen=True, kw_only=True)
class Login:
    """What Streamlit's secrets say of the login: ``auth`` is empty where there is none.

    ``operators`` is None where it is no list of text. ``unread`` says what is wrong with a file
    that is there and opens nothing.
    """

    auth: Mapping[str, Any]
    operators: frozenset[str] | None
    unread: str | None


@cache
def login() -> Login:
    """Return what the secrets said when this process first asked, which the door does.

    Streamlit reads the file again whenever it changes, and one that is just being saved is empty:
    nobody may become an operator by that.
    """
    files = [file for file in st.get_option("secrets.files") if Path(file).exists()]
    found: Mapping[str, Any] = {}
    with suppress(OSError, UnicodeDecodeError):
        if secrets_singleton.load_if_toml_exists():
            found = secrets_singleton.to_dict()
    auth = found.get("auth", {})
    if files and not found:
        unread = f"{files[0]} {_unreadable(Path(files[0]))}; allowed: TOML, or no such file"
    elif not isinstance(auth, Mapping) or ("auth" in found and not auth):
        what = "holds nothing" if isinstance(auth, Mapping) else "is no table"
        unread = f"[auth] {what}; allowed: a table with {', '.join(NEEDED)}"
    else:
        return Login(auth=auth, operators=_operators(found), unread=None)
    return Login(auth={}, operators=frozenset(), unread=unread)


def _unreadable(file: Path) -> str:
    """Say why nothing is read from a file of secrets."""
    try:
        tomllib.loads(file.read_text())
    except (OSError, UnicodeDecodeError) as error:
        return f"cannot be read: {error}"
    except tomllib.TOMLDecodeError as error:
        return f"is no TOML: {error}"
    return "says nothing"


def _operators(found: Mapping[str, Any]) -> frozenset[str] | None:
    section = found.get("etalon", {})
    named = section.get("operators", []) if isinstance(section, Mapping) else None
    if not isinstance(named, list) or not all(isinstance(each, str) for each in named):
        return None
    return frozenset(each.casefold() for each in named)


def requires_login() -> bool:
    """Whether the secrets had a section ``[auth]`` when this process began."""
    return bool(login().auth)


def is_this_machine(address: str | None) -> bool:
    """Whether a server at this address is reached from its own machine only; None is every one."""
    try:
        return address == "localhost" or ip_address(address or "0.0.0.0").is_loopback
    except ValueError:
        return False


def hosts() -> list[str]:
    """Return the names under which a browser may ask for the dashboard.

    Another name that leads here is a foreign page's, made to pass for ours (DNS rebinding).
    """
    public = urlsplit(str(login().auth.get("redirect_uri", ""))).hostname
    return [*THIS_MACHINE, *([public] if public else [])]


def check_access(address: str | None) -> None:
    """Check that a server at this address lets nobody in who may not see the archive.

    Raises:
        BadInput: it could be reached from other machines without a login, or the login is not
            set up completely; one line per fault.
    """
    if faults := _faults(address):
        raise BadInput(*faults)


def _faults(address: str | None) -> list[str]:
    section = login().auth
    if unread := login().unread:
        return [f"auth: {unread}: docs/security.md"]
    if not section:
        if is_this_machine(address):
            return []
        return [
            f"address: {address or '0.0.0.0'} is reached from other machines, which needs a login; "
            "allowed: 127.0.0.1, or an [auth] section in .streamlit/secrets.toml: docs/security.md"
        ]
    faults = [
        f"auth: {name} is not given; allowed: all of {', '.join(NEEDED)}: docs/security.md"
        for name in NEEDED
        if not section.get(name)
    ]
    length = len(str(section.get("cookie_secret", "")))
    if 0 < length < LEAST_SECRET:
        faults.append(
            f"auth: cookie_secret has {length} characters; allowed: at least {LEAST_SECRET}: "
            'python -c "import secrets; print(secrets.token_urlsafe(32))"'
        )
    if find_spec("authlib") is None:
        faults.append("auth: a login needs authlib: pip install -r requirements-auth.txt")
    if login().operators is None:
        faults.append('etalon: operators is no list; allowed: operators = ["NAME@HOST", …]')
    return faults


def role_of(claims: Mapping[str, Any]) -> Role | None:
    """Return the role of somebody whom the provider describes so; None for one not logged in.

    An address that the provider has not verified is what a person claims, and makes no operator.
    """
    if claims.get("is_logged_in") is not True:
        return None
    email = str(claims.get("email", "")).casefold()
    is_named = claims.get("email_verified") is True and email in (login().operators or ())
    return Role.OPERATOR if is_named else Role.VIEWER


def role_of_cookies(cookies: Mapping[str, str]) -> Role | None:
    """Return the role of who sends these cookies, which Streamlit signed when they logged in.

    It is to be asked only where a login is required.
    """
    secret = str(login().auth["cookie_secret"])

    def signed(name: str) -> bytes | None:
        return decode_signed_value(secret, name, cookies.get(name, ""))

    found = get_cookie_with_chunks(signed, USER_COOKIE_NAME)
    return role_of(json.loads(found)) if found else None


def own_role() -> Role | None:
    """Return the role of who looks at the page that is being drawn."""
    return role_of(st.user.to_dict()) if requires_login() else Role.OPERATOR


def may_operate() -> bool:
    """Whether who looks at this page may change the archive: what else to offer them."""
    return own_role() is Role.OPERATOR


def operators_only(action: Callable[Given, Result]) -> Callable[Given, Result]:
    """Let an action be done by an operator alone, whatever a page offers."""

    @wraps(action)
    def allowed(*given: Given.args, **settings: Given.kwargs) -> Result:
        if not may_operate():
            what = action.__name__.replace("_", " ")
            raise NotAnOperator(
                f"{what}: not allowed to a viewer; allowed: an operator, whom the list operators "
                "in .streamlit/secrets.toml names"
            )
        return action(*given, **settings)

    return allowed


def admit() -> None:
    """Draw nothing for who may not see the archive: say what is wrong, or offer the login."""
    try:
        check_access(st.get_option("server.address"))
    except BadInput as faults:
        st.error(str(faults))
        st.stop()
    if own_role() is None:
        st.title("Etalon", anchor=False)
        st.write("Log in to see the runs.")
        st.button("Log in", type="primary", on_click=st.login)
        st.stop()


def say_who() -> None:
    """Say who is logged in, in which role, and let them leave."""
    if not requires_login():
        return
    who = st.user.to_dict().get("email") or "no address"
    with st.container(horizontal=True, horizontal_alignment="right", vertical_alignment="center"):
        st.caption(f"{literal(str(who))} · {own_role()}", width="content")
        st.button("Log out", type="tertiary", on_click=st.logout)
