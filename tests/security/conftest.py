"""Fixtures of the security tests: dashboards on real ports, with a login and without."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from browsing import answers
from factories import fill
from openid import a_provider, secrets_of
from processes import ended, own_port, start, wait_until
from states import healthy

from storage.store import Store

OPERATORS = ["olga@example.org"]


@dataclass(frozen=True, kw_only=True)
class Served:
    """A dashboard that answers, its archive, and a run of it."""

    url: str
    port: int
    store: Store
    run_id: str
    process_id: int


@contextmanager
def served(home: Path, *words: str, port: int, user: Path | None = None) -> Iterator[Served]:
    """Serve an archive with one run until the end; ``user`` is whose home Streamlit looks into."""
    home.mkdir(exist_ok=True)
    store = Store.open(str(home / "etalon.db"))
    run = healthy(name="the only run")
    fill(store, run, steps=30)
    with pytest.MonkeyPatch.context() as patch:
        if user is not None:
            patch.setenv("HOME", str(user))
        process = start("-m", "advisor.serve", "--no-demo", "--port", str(port), *words, home=home)
    url = f"http://127.0.0.1:{port}"
    wait_until(lambda: process.poll() is not None or answers(f"{url}/_stcore/health"))
    yield Served(url=url, port=port, store=store, run_id=run.id, process_id=process.pid)
    process.terminate()
    printed = ended(process)
    store.close()
    assert "Traceback" not in printed.stderr, printed.stderr


@pytest.fixture(scope="session")
def own_address() -> str:
    """Give an address of this machine that other machines could reach."""
    found = [
        each.address
        for addresses in psutil.net_if_addrs().values()
        for each in addresses
        if each.family == socket.AF_INET and not each.address.startswith("127.")
    ]
    if not found:
        pytest.skip("this machine has no address but its own loopback")
    return found[0]


@pytest.fixture(scope="session")
def unlocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a dashboard as `make run` serves it, for this machine alone."""
    home = tmp_path_factory.mktemp("unlocked") / "home"
    with own_port() as port, served(home, port=port) as found:
        yield found


@pytest.fixture(scope="session")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """Give a dashboard for every machine, which asks for a login."""
    folder = tmp_path_factory.mktemp("locked")
    with a_provider() as provider, own_port() as port:
        settings = folder / ".streamlit"
        settings.mkdir()
        words = secrets_of(provider, f"http://127.0.0.1:{port}", OPERATORS)
        (settings / "secrets.toml").write_text(words)
        with served(folder / "home", "--address", "0.0.0.0", port=port, user=folder) as found:
            yield found
