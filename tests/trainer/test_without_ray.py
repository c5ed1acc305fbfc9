"""Ray is optional: without it one line says what to install, and nothing else misses it."""

import sys

from own_things import own_values

from storage.commandline import run_command
from trainer.__main__ import main


def test_without_ray_one_line_says_what_to_install(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "ray", None)
    monkeypatch.setenv("ETALON_HOME", str(tmp_path / "home"))
    setting = [f"--{n.replace('_', '-')}={v}" for n, v in own_values(tmp_path).items()]
    lists = ["--learning-rates", "1e-3", "--max-stalenesses", "0", "--seeds", "1"]
    capsys.readouterr()  # saving a model says so
    assert run_command(main, ["sweep", "--engine", "ray", *lists, *setting]) == 2
    out, err = capsys.readouterr()
    assert (out, err) == (
        "",
        "engine: 'ray' needs a package that is not installed; "
        "run: pip install -r requirements-ray.txt\n",
    )
    assert not (tmp_path / "home").exists()
