"""A private PostgreSQL server for tests: real, in a folder of its own, on a Unix socket.

It sorts text by the rules of a language, as servers in the field do, so that nothing here comes to
rely on the order of bytes. What it holds need not outlive a power cut, so it never syncs.
"""

import getpass
import os
import pwd
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from itertools import count
from pathlib import Path
from typing import Any

from processes import PATIENCE

from storage.store import Store

DEBIAN = "/usr/lib/postgresql"
"""Where Debian and Ubuntu keep the server's programs, by version and out of the way of PATH."""
FAST = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=200")


def missing() -> str | None:
    """Say what the tests on PostgreSQL lack here and how to get it; None when all is there."""
    if _programs() is None:
        return "no PostgreSQL server; for instance: sudo apt-get install postgresql"
    if find_spec("psycopg") is None:
        return "no driver; pip install -r requirements-postgres.txt"
    return None


def _programs() -> Path | None:
    """Return the folder of ``initdb`` and ``pg_ctl``, of the newest version that is installed."""
    found = shutil.which("initdb")
    folders = [Path(found).resolve().parent] if found else []
    folders += sorted(Path(DEBIAN).glob("*/bin"), key=_version, reverse=True)
    wanted = ("initdb", "pg_ctl", "postgres")
    return next((f for f in folders if all((f / name).is_file() for name in wanted)), None)


def _version(folder: Path) -> float:
    return float(folder.parent.name)


class Server:
    """A running server; every archive is a database of its own."""

    def __init__(self, sockets: Path, owner: str, control: Callable[[str, str], None]) -> None:
        self._sockets, self._owner, self._numbers = sockets, owner, count()
        self._control = control
        Store.open(self.url(self._made("template0"))).close()  # test_0, copied from then on

    def url(self, database: str) -> str:
        return f"postgresql+psycopg://{self._owner}@/{database}?host={self._sockets}"

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """Stop the server, breaking every connection, and start it again afterwards."""
        self._control("stop", "fast")  # which forgets nothing; immediate would, without fsync
        try:
            yield
        finally:
            self._control("start", "")

    @contextmanager
    def archive(self) -> Iterator[str]:
        """Give the URL of an empty archive, which is gone afterwards."""
        with self._temporary("test_0") as url:
            yield url

    @contextmanager
    def nothing(self) -> Iterator[str]:
        """Give the URL of a database without any table, which is gone afterwards."""
        with self._temporary("template0") as url:
            yield url

    @contextmanager
    def _temporary(self, template: str) -> Iterator[str]:
        name = self._made(template)
        try:
            yield self.url(name)
        finally:
            self._execute(f"DROP DATABASE {name} WITH (FORCE)")

    def _made(self, template: str) -> str:
        name = f"test_{next(self._numbers)}"
        self._execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        return name

    def _execute(self, statement: str) -> None:
        import psycopg

        words = {"host": str(self._sockets), "user": self._owner, "dbname": "postgres"}
        with psycopg.connect(**words, autocommit=True) as connection:
            connection.execute(statement.encode())


@contextmanager
def running() -> Iterator[Server]:
    """Start a server and end it afterwards; root starts it as another user, as it insists."""
    programs = _programs()
    assert programs is not None, missing()
    owner, as_owner = _owner()
    folder = Path(tempfile.mkdtemp(prefix="etalon-pg-"))  # the path of a socket has to be short
    data = folder / "data"
    try:
        if as_owner:
            shutil.chown(folder, owner)
        icu = ["--locale-provider=icu", "--icu-locale=en-US", "--locale=C.UTF-8"]
        languages = icu if _release(programs) >= 15 else []
        start = ["-D", data, "--no-sync", "--auth=trust", "--encoding=UTF8", f"--username={owner}"]
        _run([programs / "initdb", *start, *languages], folder, as_owner)
        settings = " ".join(f"-c {each}" for each in FAST)
        server = f"-k {folder} -c listen_addresses= {settings}"

        def control(action: str, mode: str) -> None:
            way = ["-l", folder / "log", "-o", server] if action == "start" else ["-m", mode]
            words = [programs / "pg_ctl", "-D", data, "-w", "-t", f"{PATIENCE:.0f}", *way, action]
            _run(words, folder, as_owner)

        control("start", "")
        try:
            yield Server(folder, owner, control)
        finally:
            control("stop", "immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _release(programs: Path) -> int:
    words = [programs / "initdb", "--version"]
    said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
    return int(re.findall(r"\) (\d+)", said)[0])


def _owner() -> tuple[str, dict[str, Any]]:
    if os.geteuid() != 0:
        return getpass.getuser(), {}
    names = {each.pw_name: each for each in pwd.getpwall()}
    found = names.get("postgres") or names["nobody"]
    return found.pw_name, {"user": found.pw_uid, "group": found.pw_gid, "extra_groups": []}


def _run(words: Sequence[str | Path], folder: Path, as_owner: dict[str, Any]) -> None:
    with (folder / "said").open("wb") as said:  # a pipe would be held open by the server
        done = subprocess.run(words, cwd=folder, stdout=said, stderr=said, check=False, **as_owner)
    assert done.returncode == 0, (folder / "said").read_text()
