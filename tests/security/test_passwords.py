"""The password in an archive's URL is told to nobody: no message, no argument, no log."""

import pytest
from processes import PATIENCE

from storage.engine import database_url, shown
from storage.errors import StorageError
from storage.store import Store
from trainer.launch import spawn


@pytest.mark.parametrize(
    "written",
    [
        "postgresql+psycopg://me:{}@nowhere.invalid/etalon",
        "postgresql+psycopg://nowhere.invalid/etalon?user=me&password={}",
        "postgresql+psycopg://nowhere.invalid/etalon?sslpassword={}&user=me",
        "postgresql+nosuch://me:{}@nowhere.invalid/etalon",
        "mysql://me:{}@nowhere.invalid/etalon",
        "postgresql+psycopg//me:{}@nowhere.invalid/etalon",
        "postgresql:me:{}@nowhere.invalid",
        "postgresql+psycopg://me:{}@nowhere.invalid:port/etalon",
        "sqlite://me:{}@",
    ],
)
@pytest.mark.parametrize("secret", ["s3cret", "p/s3cret", "s3cret:x@s3cret"])
def test_what_goes_wrong_with_an_archive_is_told_without_its_password(written, secret):
    with pytest.raises(StorageError) as found:
        Store.open(written.format(secret), create=False)
    assert "s3cret" not in str(found.value)


def test_a_url_is_shown_with_everything_but_its_password():
    url = database_url("postgresql+psycopg://me:s3cret@host:5433/etalon?password=s3cret&sslmode=on")
    assert shown(url) == "postgresql+psycopg://me:***@host:5433/etalon?password=***&sslmode=on"


def test_a_process_gets_it_in_its_environment_and_prints_it_nowhere(tmp_path, monkeypatch):
    monkeypatch.setenv("ETALON_HOME", str(tmp_path))
    log = tmp_path / "log"
    with log.open("wb") as opened:
        url = "postgresql+psycopg://me:s3cret@nowhere.invalid/etalon"
        process = spawn(["stop", "a-run"], url, opened)
    assert "s3cret" not in " ".join(map(str, process.args))
    assert process.wait(timeout=PATIENCE) == 2
    assert "postgresql+psycopg://me:***@nowhere.invalid/etalon" in log.read_text()
    assert "s3cret" not in log.read_text()
