import shutil
import subprocess

import pytest
from processes import PROJECT


@pytest.fixture
def machine(tmp_path):
    """Run the script on a machine that has only the given programs; each is (name, exit code)."""

    def run(*programs):
        for tool in ("sh", "id"):
            (tmp_path / tool).symlink_to(shutil.which(tool))
        for name, code in programs:
            program = tmp_path / name
            program.write_text(f'#!/bin/sh\necho "{name} $@"\nexit {code}\n')
            program.chmod(0o755)
        return subprocess.run(
            ["sh", PROJECT / "tools" / "browser.sh", tmp_path / "playwright"],
            env={"PATH": str(tmp_path)},
            capture_output=True,
            text=True,
            check=False,
        )

    return run


def test_a_browser_that_is_there_is_taken_and_nothing_is_installed(machine):
    done = machine(("chromium-browser", 0), ("playwright", 0))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_a_system_browser_playwright_installs_its_own(machine):
    done = machine(("playwright", 0))
    assert (done.returncode, done.stdout.split()) == (0, ["playwright", "install", "chromium"])


def test_when_nothing_works_one_line_says_what_to_install(machine):
    done = machine(("playwright", 3))
    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "etalon: no browser for the tests; install one, for instance: sudo apt-get install chromium"
    ]
