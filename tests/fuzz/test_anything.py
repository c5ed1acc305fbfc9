"""A few hundred inputs of every kind; ``make fuzz`` tries many more, led by coverage."""

import subprocess
import sys

import pytest
from anything import PATIENT, PROPERTIES
from hypothesis import settings
from processes import PROJECT

EXAMPLES = {"logs": 80, "configurations": 150, "command_lines": 80, "questions": 40, "links": 6}


@pytest.mark.parametrize("name", PROPERTIES)
def test_no_input_ends_in_an_error_that_is_not_declared(name):
    a_few = settings(PATIENT, max_examples=EXAMPLES[name], derandomize=True)
    a_few(PROPERTIES[name])()


FINDS = """
import sys
from pathlib import Path
import atheris
import fuzz

def fails(content):
    raise ValueError("found")

atheris.Setup(["fuzz", *fuzz.options(5, Path(sys.argv[1]))], fails)
atheris.Fuzz()
"""


def test_what_a_fuzzer_finds_is_kept_in_its_folder_alone(tmp_path):
    pytest.importorskip("atheris", reason="no atheris")
    here, kept = tmp_path / "here", tmp_path / "kept"
    here.mkdir()
    words = [sys.executable, "-c", FINDS, str(kept)]
    environment = {"PYTHONPATH": str(PROJECT / "tools")}
    done = subprocess.run(words, cwd=here, env=environment, capture_output=True, check=False)
    assert b"ValueError: found" in done.stdout + done.stderr
    assert list(here.iterdir()) == []
    assert [file.name[:6] for file in kept.iterdir()] == ["crash-"]
