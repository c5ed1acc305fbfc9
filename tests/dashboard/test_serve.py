import socket
from contextlib import ExitStack, suppress

import pytest
from factories import a_run
from processes import own_port

from advisor.serve import ADDRESS, DEMONSTRATION, PORTS_TRIED, free_port, start_demonstration
from storage.commandline import BadInput
from trainer.config import checked_config


def taken(stack, port=0):
    """Take a port as another server would, and return it."""
    listening = stack.enter_context(socket.socket())
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listening.bind((ADDRESS, port))
    listening.listen()
    return listening.getsockname()[1]


def test_a_free_port_is_taken_as_asked():
    with own_port() as port:
        assert free_port(port) == port
        assert free_port(str(port)) == port


def test_a_taken_port_gives_the_next_free_one():
    with ExitStack() as stack:
        first = taken(stack)
        found = free_port(first)
        assert found > first
        taken(stack, found)  # it can be had
        assert free_port(first) > found


def test_when_no_port_is_left_the_message_names_the_last_one_tried():
    with ExitStack() as stack:
        with suppress(OSError):  # somebody may have it already, which serves as well
            taken(stack, 65535)
        with pytest.raises(BadInput, match="65535 and those up to 65535 are taken"):
            free_port(65535)


@pytest.mark.parametrize("port", ["0", "65536", "-1", "http", "", "8501.0"])
def test_what_is_no_port_is_refused_with_the_allowed_range(port):
    with pytest.raises(BadInput, match="1 <= port <= 65535"):
        free_port(port)


def test_ports_beyond_the_last_one_are_not_tried():
    assert PORTS_TRIED > 1
    assert free_port(65535 - 5) <= 65535


def test_the_demonstration_is_a_setting_that_the_trainer_takes():
    assert checked_config(DEMONSTRATION).name == "demonstration"


def test_an_archive_that_holds_a_run_gets_no_demonstration_even_when_it_is_archived(store):
    store.create_run(a_run(archived=True))
    assert start_demonstration(store) is None
    assert len(store.runs()) == 1
