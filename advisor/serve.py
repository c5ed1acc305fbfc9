"""Open the dashboard: ``python -m advisor.serve``, which is what ``make run`` starts.

Takes the first free port, begins a demonstration run when the archive is empty, so that the first
page a new user sees is alive, and hands over to Streamlit. The demonstration runs in a process of
its own and outlives the dashboard.
"""

import argparse
import errno
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import chdir
from ipaddress import IPv4Address
from pathlib import Path

from storage.commandline import BadInput, Parser, add_common_options, be_command, parse, tell
from storage.engine import home
from storage.store import Store
from trainer.config import checked_config
from trainer.launch import launch

from .alerts.rules import alerting

ADDRESS = "127.0.0.1"
FIRST_PORT = 8501
PORTS_TRIED = 100
APP = Path(__file__).resolve().parent.parent / "app.py"
SECRETS = APP.parent / ".streamlit" / "secrets.toml"
DEMONSTRATION = {
    "name": "demonstration",
    "workload": "arithmetic",
    "learning_rate": 3e-4,
    "max_staleness": 3,
    "steps": 2000,
}


def main(argv: Sequence[str]) -> int:
    """Prepare, then become the Streamlit server; returns only when that cannot be started."""
    options = parse(_parser(), argv)
    address = _checked_address(options.address)
    alerting(None)  # told here: the process that reads it has no terminal
    port = free_port(options.port, address)
    store = Store.open(options.db)
    if not options.no_demo and (run_id := start_demonstration(store)):
        tell(f"The archive is empty: demonstration run {run_id} is starting.", flush=True)
    os.environ["ETALON_DB"] = store.url
    os.environ["ETALON_HOME"] = str(home().resolve())
    store.close()
    start_watching()
    tell(f"Etalon: http://{address}:{port}   (Ctrl-C closes it; runs go on)", flush=True)
    os.chdir(APP.parent)  # Streamlit reads .streamlit/config.toml of its working folder
    command = [sys.executable, "-m", "streamlit", "run", str(APP)]
    settings = [f"--server.address={address}", f"--server.port={port}", "--server.headless=true"]
    os.execv(sys.executable, [*command, *settings])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m advisor.serve", description="Open the dashboard.")
    add_common_options(parser)
    parser.add_argument(
        "--address",
        default=ADDRESS,
        help=f"address to serve at ({ADDRESS}); any other needs a login, see docs/security.md",
    )
    parser.add_argument("--port", default=str(FIRST_PORT), help="first port to try (8501)")
    parser.add_argument("--no-demo", action="store_true", help="start no demonstration run")
    return parser


def _checked_address(address: str) -> str:
    """Return an address at which the dashboard may be served.

    Raises:
        BadInput: it is none, or other machines reach it and no login is set up.
    """
    try:
        for_all = not IPv4Address(address).is_loopback
    except ValueError:
        raise BadInput(
            f"address: {address!r} is not allowed; allowed: an IPv4 address of this machine"
        ) from None
    if for_all or SECRETS.exists():
        with chdir(APP.parent):  # Streamlit reads the secrets of its working folder
            from .dashboard.access import check_access  # Streamlit is slow to import

            check_access(address)
    return address


def free_port(first: str | int, address: str = ADDRESS) -> int:
    """Return the first free port of this machine from ``first`` on.

    Raises:
        BadInput: ``first`` is no port, the next hundred are all taken, or the address is not of
            this machine.
    """
    if not str(first).isdecimal() or not 1 <= int(first) <= 65535:
        raise BadInput(f"port: {first!r} is not allowed; allowed: whole number, 1 <= port <= 65535")
    last = min(int(first) + PORTS_TRIED, 65536)
    for port in range(int(first), last):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((address, port))
            except OSError as error:
                if error.errno == errno.EADDRNOTAVAIL:
                    raise BadInput(f"address: {address} is none of this machine's") from None
                continue
            return port
    raise BadInput(f"port: {first} and those up to {last - 1} are taken; give another --port")


def start_demonstration(store: Store) -> str | None:
    """Start the demonstration run if the archive holds no run at all, and return its id."""
    return None if store.runs() else launch(store, checked_config(DEMONSTRATION))


def start_watching() -> None:
    """Judge live runs in a process of its own for as long as this one, the dashboard, lives."""
    log = home() / "logs" / "watch.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as written:
        subprocess.Popen(
            [sys.executable, "-m", "advisor", "watch", "--beside", str(os.getpid())],
            cwd=APP.parent,
            stdin=subprocess.DEVNULL,
            stdout=written,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )


if __name__ == "__main__":
    be_command(main)
