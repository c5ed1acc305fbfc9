"""Half-made folders go when the next one is made, and never those of somebody at work."""

import os
import subprocess
import sys
import time

from trainer.cache import ABANDONED_SECONDS, cached_folder

KILLED = """
import os, pathlib, signal, sys
from trainer.cache import cached_folder
cached_folder(
    pathlib.Path(sys.argv[1]), "card.json", {"a": 1}, lambda _: os.kill(os.getpid(), signal.SIGKILL)
)
"""


def made(shelf, identity):
    return cached_folder(shelf, "card.json", identity, lambda _: {})


def hidden(shelf):
    return [each.name for each in shelf.iterdir() if each.name.startswith(".")]


def test_what_a_killed_process_left_goes_when_the_next_folder_is_made(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False)
    assert len(hidden(tmp_path)) == 1
    made(tmp_path, {"a": 2})
    assert hidden(tmp_path) == []


def test_what_a_process_at_work_is_making_stays(tmp_path):
    seen = []

    def make(folder):
        made(tmp_path, {"a": 2})
        seen.append(folder.is_dir())
        return {}

    cached_folder(tmp_path, "card.json", {"a": 1}, make)
    assert seen == [True]


def test_a_process_that_took_over_the_number_of_a_dead_one_does_not_keep_its_folder(tmp_path):
    def make(folder):
        key, host, pid, _, chance = folder.name.split("-")
        (tmp_path / "-".join((key, host, pid, "01234567", chance))).mkdir()
        return {}

    cached_folder(tmp_path, "card.json", {"a": 1}, make)
    assert len(hidden(tmp_path)) == 1
    made(tmp_path, {"a": 2})
    assert hidden(tmp_path) == []


def test_what_cannot_be_told_goes_after_a_day(tmp_path):
    of_another_host = tmp_path / ".key-00000000-1-0.00-abcdefgh"
    of_unknown = tmp_path / ".key-abcdefgh"
    for folder in (of_another_host, of_unknown):
        folder.mkdir()
    made(tmp_path, {"a": 1})
    assert len(hidden(tmp_path)) == 2
    past = time.time() - ABANDONED_SECONDS - 1
    for folder in (of_another_host, of_unknown):
        os.utime(folder, (past, past))
    made(tmp_path, {"a": 2})
    assert hidden(tmp_path) == []
