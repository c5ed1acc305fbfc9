"""The README names what is there."""

import re

from processes import PROJECT

README = (PROJECT / "README.md").read_text(encoding="utf-8")


def test_every_module_has_a_row_and_every_row_a_module():
    named = set(re.findall(r"^\| `([^`]+\.py)` \|", README, re.MULTILINE))
    there = {
        str(path.relative_to(PROJECT))
        for pattern in (
            "storage/*.py",
            "storage/importers/*.py",
            "trainer/**/*.py",
            "advisor/**/*.py",
        )
        for path in PROJECT.glob(pattern)
        if path.name != "__init__.py"
    }
    assert named == there | {"app.py"}


def test_every_picture_and_document_it_shows_is_there():
    for link in re.findall(r"\]\(((?:docs|benchmarks)[^)]*)\)", README):
        assert (PROJECT / link).exists(), link
