"""Who is an operator, and that only they change anything, whatever a page offers."""

import ast
import inspect
from contextlib import suppress

import pytest
import streamlit as st
from factories import fill
from processes import PATIENCE, PROJECT
from states import healthy
from streamlit.errors import StreamlitSecretNotFoundError
from streamlit.runtime.secrets import secrets_singleton
from streamlit.testing.v1 import AppTest

from advisor.dashboard import operate
from advisor.dashboard.access import Role, check_access, login, own_role, requires_login, role_of
from storage.commandline import BadInput
from storage.store import Store

DASHBOARD = PROJECT / "advisor" / "dashboard"
OLGA = {"is_logged_in": True, "email": "olga@example.org", "email_verified": True}
COMPLETE = {
    "redirect_uri": "http://127.0.0.1:8501/oauth2callback",
    "cookie_secret": "s" * 32,
    "client_id": "etalon",
    "client_secret": "secret",
    "server_metadata_url": "http://127.0.0.1:1/.well-known/openid-configuration",
}


@pytest.fixture
def written(tmp_path):
    """Give a function that writes Streamlit's secrets and lets them hold."""
    before = st.get_option("secrets.files")

    def write(auth, etalon='operators = ["Olga@Example.org"]'):
        lines = [f'{name} = "{value}"' for name, value in auth.items()]
        file = tmp_path / "secrets.toml"
        file.write_text("\n".join(["[auth]", *lines, "[etalon]", etalon]))
        _read_from([str(file)])
        return file

    yield write
    _read_from(before)


def _read_from(files):
    st.config._set_option("secrets.files", files, "test")
    secrets_singleton._reset()
    login.cache_clear()


@pytest.mark.parametrize(
    ("changes", "role"),
    [
        ({}, Role.OPERATOR),
        ({"email": "OLGA@example.org"}, Role.OPERATOR),
        ({"email": "vera@example.org"}, Role.VIEWER),
        ({"email_verified": False}, Role.VIEWER),
        ({"email_verified": None}, Role.VIEWER),
        ({"email_verified": "true"}, Role.VIEWER),
        ({"email": None}, Role.VIEWER),
        ({"email": ["olga@example.org"]}, Role.VIEWER),
        ({"is_logged_in": False}, None),
        ({"is_logged_in": "yes"}, None),
    ],
)
def test_an_operator_is_who_the_provider_verified_and_the_list_names(written, changes, role):
    written(COMPLETE)
    assert role_of(OLGA | changes) is role


def test_without_a_list_nobody_is_an_operator(written):
    written(COMPLETE, etalon="")
    assert role_of(OLGA) is Role.VIEWER


def test_what_becomes_of_the_file_while_the_process_lives_changes_nobodys_role(written):
    file = written(COMPLETE)
    assert requires_login()
    for content in ("", "[auth", "[etalon]\noperators = ['vera@example.org']"):
        file.write_text(content)
        with suppress(StreamlitSecretNotFoundError):
            secrets_singleton._on_secrets_changed(str(file))  # as Streamlit's watcher does
        assert requires_login()
        assert role_of(OLGA) is Role.OPERATOR
        assert role_of(OLGA | {"email": "vera@example.org"}) is Role.VIEWER
        assert own_role() is None


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", r"secrets\.toml says nothing; allowed: TOML"),
        (b"[auth", r"secrets\.toml is no TOML: .*at end of document.*; allowed: TOML"),
        (b"\0", r"secrets\.toml is no TOML: "),
        (b"\xff", r"secrets\.toml cannot be read: .*can't decode"),
        (b"auth = 1", r"\[auth\] is no table; allowed: a table with redirect_uri, "),
        (b'auth = ["secret"]', r"\[auth\] is no table; "),
        (b"[auth]\n[etalon]\noperators = []", r"\[auth\] holds nothing; "),
    ],
)
def test_a_file_that_says_nothing_opens_nothing(written, content, fault):
    file = written(COMPLETE)
    file.write_bytes(content)
    _read_from([str(file)])
    for address in ("0.0.0.0", "127.0.0.1"):
        with pytest.raises(BadInput, match=f"^auth: .*{fault}") as found:
            check_access(address)
        assert len(str(found.value).splitlines()) == 1


@pytest.mark.parametrize("missing", COMPLETE)
def test_a_login_that_lacks_something_opens_nothing(written, missing):
    written({name: value for name, value in COMPLETE.items() if name != missing})
    for address in ("0.0.0.0", "127.0.0.1"):
        with pytest.raises(BadInput, match=f"auth: {missing} is not given"):
            check_access(address)


def test_a_short_secret_or_a_list_that_is_none_opens_nothing(written):
    written(COMPLETE | {"cookie_secret": "s" * 31}, etalon='operators = "olga@example.org"')
    with pytest.raises(BadInput) as found:
        check_access("0.0.0.0")
    short, no_list = str(found.value).splitlines()
    assert "cookie_secret has 31 characters; allowed: at least 32" in short
    assert "operators is no list" in no_list
    written(COMPLETE)
    check_access("0.0.0.0")


def attempts(actions):
    """Do everything that can be done, one after the other, as whoever looks at this page."""
    import streamlit as st

    from advisor.dashboard import operate
    from advisor.dashboard.archive import shared_store
    from storage.commandline import BadInput

    store = shared_store()
    [run] = store.runs()
    given = {
        "start": ({},),
        "keep": (None, None),
        "archive": (run.id, True),
        "mark": ([run], "tag", "note"),
        "import_log": ([],),
    }
    for action in actions:
        named = {"name": "log", "stack": None, "settings": {}} if action == "import_log" else {}
        try:
            getattr(operate, action)(store, *given.get(action, (run.id,)), **named)
        except BadInput as fault:
            st.error(f"{type(fault).__name__}: {fault}")


ACTIONS = [
    name
    for name, value in vars(operate).items()
    if inspect.isfunction(value) and value.__module__ == operate.__name__
]


def test_a_viewer_can_do_nothing(written, tmp_path, monkeypatch, store):
    monkeypatch.setenv("ETALON_DB", store.url)
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    st.cache_resource.clear()
    fill(store, healthy(), steps=5)
    before = store.runs(), store.tags(), store.recommendations()
    written(COMPLETE)
    page = AppTest.from_function(attempts, default_timeout=PATIENCE, args=(ACTIONS,))
    page.user = OLGA | {"email": "vera@example.org"}
    page.run()
    assert not page.exception
    for action, error in zip(ACTIONS, page.error, strict=True):
        assert error.value.startswith(f"NotAnOperator: {action.replace('_', ' ')}: not allowed")
    assert (store.runs(), store.tags(), store.recommendations()) == before
    st.cache_resource.clear()


def writing_methods():
    """Name the methods of the store that write, directly or through another of its methods."""
    sources = {
        name: inspect.getsource(f) for name, f in inspect.getmembers(Store, inspect.isfunction)
    }
    found = {name for name, source in sources.items() if "self.writing(" in source}
    while more := {
        name
        for name, source in sources.items()
        if name not in found and any(f"self.{each}(" in source for each in found)
    }:
        found |= more
    return found


def test_pages_change_the_archive_and_start_processes_in_one_place_alone():
    writing = writing_methods()
    assert {"update_run", "delete_run", "import_run", "tag_run", "create_run"} <= writing
    acting = {
        "advisor.answer.keep",
        "storage.importers.importing.import_file",
        "storage.removal.remove_run",
        "trainer.launch.launch",
        "trainer.launch.resume",
        "trainer.launch.stop",
        "trainer.launch.spawn",
        "trainer.launch.create_run",
        "trainer.launch",
        "trainer.silence.end_if_silent",
        "trainer.silence.end_silent",
        "subprocess",
        "os",
        "shutil",
    }
    outside = {}
    for path in [PROJECT / "app.py", *DASHBOARD.glob("*.py")]:
        if path.name == "operate.py":
            continue
        nodes = list(ast.walk(ast.parse(path.read_text())))
        imported = {a.name for n in nodes if isinstance(n, ast.Import) for a in n.names} | {
            f"{n.module}.{a.name}" for n in nodes if isinstance(n, ast.ImportFrom) for a in n.names
        }
        called = {
            n.func.attr
            for n in nodes
            if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute)
        }
        if found := (imported & acting) | (called & writing):
            outside[path.name] = found
    assert outside == {}


def test_every_action_is_for_operators():
    assert len(ACTIONS) == 8
    assert [name for name in ACTIONS if not hasattr(getattr(operate, name), "__wrapped__")] == []
