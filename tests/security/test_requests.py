"""What foreign pages, and programs that have not logged in, can ask of a dashboard."""

import time
import tomllib
from pathlib import Path

import pytest
from asking import ask, cookie_of, opens

EVIL = "http://evil.example"
UPLOAD = "/_stcore/upload_file/0123/4567"
CLOSED = ("/feed/secret/run", "/media/file", "/_stcore/metrics", "/_stcore/agent/interact", "/else")


@pytest.fixture(scope="module")
def secrets_file(locked):
    return Path(locked.store.url.removeprefix("sqlite:///")).parents[1] / ".streamlit/secrets.toml"


@pytest.fixture(scope="module")
def secret(secrets_file):
    """Give the secret with which the locked dashboard signs who is logged in."""
    return tomllib.loads(secrets_file.read_text())["auth"]["cookie_secret"]


# -- pages of other sites, in the browser of somebody who may see the dashboard -----------------


@pytest.mark.parametrize("path", ["/", "/_stcore/health", "/feed/x/y", "/assets/live_plot.js"])
def test_a_name_that_is_made_to_point_here_is_told_nothing(unlocked, path):
    status, _, body = ask(unlocked.port, path, headers={"Host": f"evil.example:{unlocked.port}"})
    assert (status, body) == (400, b"Invalid host header")


def test_the_socket_opens_for_our_own_pages_alone(unlocked):
    own = f"127.0.0.1:{unlocked.port}"
    assert opens(unlocked.port, Origin=f"http://{own}")
    assert not opens(unlocked.port, Origin=EVIL)
    assert not opens(unlocked.port, Origin=EVIL, Host="evil.example")
    assert not opens(unlocked.port, Origin="null")


def test_a_foreign_page_cannot_upload_nor_read(unlocked):
    headers = {"Origin": EVIL, "Content-Type": "multipart/form-data; boundary=x"}
    status, found, _ = ask(unlocked.port, UPLOAD, method="PUT", headers=headers, body=b"--x--")
    assert status == 403
    for path in ("/", "/_stcore/health", "/feed/x/y", "/assets/live_plot.js"):
        _, found, _ = ask(unlocked.port, path, headers={"Origin": EVIL})
        assert "access-control-allow-origin" not in found


def test_a_foreign_page_cannot_show_ours_in_a_frame(unlocked):
    for path in ("/", "/runs", "/feed/x/y"):
        _, found, _ = ask(unlocked.port, path)
        assert found["content-security-policy"] == "frame-ancestors 'self'"
        assert found["x-content-type-options"] == "nosniff"


# -- programs that reach a dashboard which asks for a login --------------------------------------


@pytest.mark.parametrize("path", CLOSED)
def test_without_a_login_nothing_but_the_way_to_it_is_open(locked, path):
    assert ask(locked.port, path)[::2] == (403, b"a login is needed")


def test_without_a_login_nothing_can_be_uploaded(locked):
    answer = ask(locked.port, UPLOAD, method="PUT", body=b"x")
    assert answer[::2] == (403, b"a login is needed")


def test_a_login_is_needed_while_its_file_is_being_saved_too(locked, secrets_file, secret):
    whole = secrets_file.read_text()
    viewer = cookie_of(secret, email="vera@example.org")
    try:
        secrets_file.write_text("")
        for _ in range(8):
            time.sleep(0.2)  # Streamlit looks at the file as often
            assert ask(locked.port, "/feed/secret/run")[::2] == (403, b"a login is needed")
            assert ask(locked.port, "/media/x", headers=viewer)[0] == 404
    finally:
        secrets_file.write_text(whole)


def test_the_way_to_the_login_holds_nothing_of_the_archive(locked):
    for path in ("/", "/watch", "/_stcore/health", "/_stcore/host-config", "/assets/live_plot.js"):
        status, _, body = ask(locked.port, path)
        assert status == 200
        assert b"the only run" not in body
        assert locked.run_id.encode() not in body


def test_a_login_is_served_at_its_own_name_and_no_other(locked, own_address):
    assert ask(locked.port, "/")[0] == 200
    assert ask(locked.port, "/", address=own_address)[0] == 400


def test_a_login_that_was_not_signed_here_is_none(locked, secret):
    assert (
        ask(locked.port, "/media/x", headers=cookie_of("f" * 43, email="olga@example.org"))[0]
        == 403
    )
    assert ask(locked.port, "/media/x", headers=cookie_of(secret, is_logged_in=False))[0] == 403
    assert (
        ask(locked.port, "/media/x", headers=cookie_of(secret, email="vera@example.org"))[0] == 404
    )


def test_a_viewer_cannot_upload_and_an_operator_can_ask_to(locked, secret):
    viewer = cookie_of(secret, email="vera@example.org")
    status, _, body = ask(locked.port, UPLOAD, method="PUT", headers=viewer, body=b"x")
    assert (status, body) == (403, b"an operator's login is needed")
    operator = cookie_of(secret, email="olga@example.org")
    status, _, body = ask(locked.port, UPLOAD, method="PUT", headers=operator, body=b"x")
    assert b"XSRF" in body  # it came to Streamlit, which wants a token of its page
