"""The table of threats names tests that are there, and every test of this folder's files."""

import re

from processes import PROJECT

TABLE = (PROJECT / "docs" / "security.md").read_text(encoding="utf-8")
HERE = PROJECT / "tests" / "security"


def test_every_threat_has_a_test_that_is_there():
    rows = [line for line in TABLE.splitlines() if line.startswith("| ") and "threat" not in line]
    found = [re.findall(r"`([\w/]+\.py)::(\w+)`", row) for row in rows[1:]]
    assert len(found) > 20
    for row, tests in zip(rows[1:], found, strict=True):
        assert tests, row
        for file, name in tests:
            path = PROJECT / file if file.startswith("tests/") else HERE / file
            assert f"def {name}(" in path.read_text(encoding="utf-8"), name


def test_every_file_of_security_tests_is_in_the_table():
    files = {path.name for path in HERE.glob("test_*.py")} - {"test_threats.py"}
    assert {name for name in files if f"`{name}::" not in TABLE} == set()
