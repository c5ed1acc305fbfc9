"""Other machines reach nothing unless a login is set up."""

import threading

import pytest
import uvicorn
from asking import ask
from processes import command, wait_until
from starlette.responses import PlainTextResponse

from advisor.dashboard.access import is_this_machine
from advisor.dashboard.gate import Gate


def test_the_dashboard_is_not_served_to_other_machines_without_a_login(tmp_path):
    home = tmp_path / "home"
    done = command("-m", "advisor.serve", "--address", "0.0.0.0", home=home)
    assert (done.returncode, done.stdout) == (2, "")
    [line] = done.stderr.splitlines()
    assert line.startswith("address: 0.0.0.0 is reached from other machines, which needs a login")
    assert not home.exists()


def test_streamlit_itself_does_not_get_around_that(tmp_path):
    words = "-m streamlit run app.py --server.address 0.0.0.0 --server.port 0"
    done = command(*words.split(), home=tmp_path)
    assert done.returncode == 2
    assert "address: 0.0.0.0 is reached from other machines, which needs a login" in done.stderr


@pytest.mark.parametrize("address", ["localhost.example", "a b", "256.0.0.1", "::1", ""])
def test_what_is_no_address_is_refused(tmp_path, address):
    from advisor.serve import main
    from storage.commandline import BadInput

    with pytest.raises(BadInput, match="allowed: an IPv4 address of this machine"):
        main(["--address", address])


@pytest.mark.parametrize(
    ("address", "own"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("localhost", True),
        ("::1", True),
        ("0.0.0.0", False),
        ("::", False),
        ("192.168.0.2", False),
        ("unix:///tmp/socket", False),
        ("", False),
        (None, False),
    ],
)
def test_only_loopback_is_this_machine(address, own):
    assert is_this_machine(address) is own


def test_behind_any_server_a_connection_from_another_machine_is_refused(own_address):
    """Whatever a server was told, the gate looks at where the connection came in."""
    gate = Gate(PlainTextResponse("the archive"))
    server = uvicorn.Server(uvicorn.Config(gate, "0.0.0.0", 0, log_level="error", lifespan="off"))
    thread = threading.Thread(target=server.run)
    thread.start()
    wait_until(lambda: server.started)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        assert ask(port, "/")[::2] == (200, b"the archive")
        status, _, body = ask(port, "/", address=own_address, headers={"Host": "127.0.0.1"})
    finally:
        server.should_exit = True
        thread.join()
    assert status == 403
    assert b"a login is needed" in body
