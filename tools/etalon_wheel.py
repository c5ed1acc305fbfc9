"""Builds the wheel: ``pip install .`` puts everything into one package, ``etalon``.

Here the layers are top-level packages, because their names are the tower. In somebody else's
environment ``trainer`` and ``storage`` may well be theirs, so the wheel holds
``etalon.{storage,trainer,advisor}``, with imports, commands and messages rewritten. The dashboard
stays here: ``make run``.
"""

import os
import re
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from setuptools import build_meta

PROJECT = Path(__file__).resolve().parent.parent
LAYERS = ("storage", "trainer", "advisor")
LEFT_OUT = ("__pycache__", "dashboard", "serve.py")
_NAMES = "|".join(LAYERS)
REWRITTEN = (
    (re.compile(rf"\b(from|import) ({_NAMES})(?=[. ])"), r"\1 etalon.\2"),
    (re.compile(rf"\bpython -m ({_NAMES})\b"), r"python -m etalon.\1"),
    (re.compile(rf'"-m", "({_NAMES})"'), r'"-m", "etalon.\1"'),
)


def rewritten(source: str) -> str:
    """Return the source of a module as it stands in the wheel."""
    for pattern, replacement in REWRITTEN:
        source = pattern.sub(replacement, source)
    return source


@contextmanager
def tree() -> Iterator[Path]:
    """Lay out what goes into the wheel in a folder of its own, and go there."""
    before = Path.cwd()
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        for layer in LAYERS:
            there = root / "etalon" / layer
            shutil.copytree(PROJECT / layer, there, ignore=shutil.ignore_patterns(*LEFT_OUT))
            for module in there.rglob("*.py"):
                source = module.read_text(encoding="utf-8")
                module.write_text(rewritten(source), encoding="utf-8")
        (root / "etalon" / "__init__.py").touch()
        for file in ("pyproject.toml", "LICENSE", "README.md"):
            shutil.copy(PROJECT / file, root)
        os.chdir(root)
        try:
            yield root
        finally:
            os.chdir(before)


def get_requires_for_build_wheel(config_settings: Any = None) -> list[str]:
    """Return what building takes besides setuptools: nothing."""
    return []


def build_wheel(
    wheel_directory: str, config_settings: Any = None, metadata_directory: str | None = None
) -> str:
    """Build the wheel into a folder and return its name (PEP 517)."""
    into = str(Path(wheel_directory).resolve())
    with tree():
        return str(build_meta.build_wheel(into, config_settings))
