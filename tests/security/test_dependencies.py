"""What is installed is what was pinned: the versions, and with hashes the very files."""

import re
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

PROJECT = Path(__file__).parents[2]


def requirements(name: str) -> list[Requirement]:
    """Return the requirements of a file; continued lines, comments and options are left out."""
    text = (PROJECT / name).read_text(encoding="utf-8").replace("\\\n", " ")
    lines = (re.sub(r"\s+(#|--hash=).*", "", line).strip() for line in text.splitlines())
    return [Requirement(line) for line in lines if line and line[0] not in "#-"]


def pinned(name: str) -> dict[str, str]:
    return {canonicalize_name(r.name): str(r.specifier) for r in requirements(name)}


def test_every_file_of_every_package_that_a_run_needs_is_locked_but_torch():
    locked = pinned("requirements.lock")
    assert {canonicalize_name(r.name) for r in requirements("requirements.txt")} - {*locked} == {
        "torch"
    }
    text = (PROJECT / "requirements.lock").read_text(encoding="utf-8")
    each = re.findall(r"^\S+==.*(?:\\\n    --hash=sha256:[0-9a-f]{64} ?)+$", text, re.MULTILINE)
    assert len(each) == len(locked) > 50


def test_the_lock_pins_what_the_tests_passed_with():
    locked, tried = pinned("requirements.lock"), pinned("constraints.txt")
    assert {n: v for n, v in locked.items() if n in tried and tried[n] != v} == {}
    other_systems = {"colorama", "httpx2-jsfetch", "tzdata", "pywin32"}
    assert {n for n in locked if n not in tried} <= other_systems
