"""The guides lead from nothing to the first diagnosis: their own words are carried out."""

import json
import os
import re
import subprocess
import sys

import pytest
from processes import PROJECT

GUIDE = (PROJECT / "docs" / "trl.md").read_text(encoding="utf-8")
FOREIGN = "MINE = True\n"


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    """A folder with the wheel, as pip puts it beside what is installed already."""
    folder = tmp_path_factory.mktemp("installed")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation"]
    done = subprocess.run(
        [*pip, "--disable-pip-version-check", "--target", str(folder), str(PROJECT)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture
def called(installed, tmp_path):
    """Run Python in a folder where ``trainer`` and ``storage`` are somebody else's."""
    (tmp_path / "trainer.py").write_text(FOREIGN)
    (tmp_path / "storage.py").write_text(FOREIGN)
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ETALON_", "PYTHONPATH"))}
    environment = kept | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}

    def call(*words):
        return subprocess.run(
            [sys.executable, *words],
            cwd=tmp_path,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )

    return call


def test_the_package_stands_beside_modules_of_the_same_names(installed, called):
    ours = "etalon.storage.store, etalon.trainer.config, etalon.advisor.attach"
    words = f"import trainer, storage, {ours}; assert trainer.MINE and storage.MINE"
    assert called("-c", words).stderr == ""
    names = {path.name for path in installed.iterdir()}
    assert names.isdisjoint({"trainer", "storage", "advisor", "app.py", "tests"})
    for module in (installed / "etalon").rglob("*.py"):
        source = module.read_text(encoding="utf-8")
        left = re.findall(
            r'^\s*(?:from|import) (?:storage|trainer|advisor)\b.*|"-m", "\w+"', source, re.M
        )
        assert all('"etalon.' in each or "streamlit" in each for each in left), (module, left)


def test_the_guide_to_trl_leads_to_a_diagnosis(called, tmp_path):
    pytest.importorskip("trl", reason="no trl; pip install -r requirements-trl.txt")
    [script] = re.findall(r"```python\n(.*?)```", GUIDE, re.S)
    (tmp_path / "train.py").write_text(script)
    trained = called("train.py")
    assert trained.returncode == 0, trained.stderr
    assert "advice: " in trained.stderr
    listed = called("-m", "etalon.storage", "list", "--json")
    [run] = json.loads(listed.stdout)["runs"]
    assert (run["kind"], run["status"], run["name"]) == ("attached", "finished", "digits")
    commands = re.findall(r"^    python (-m etalon\.advisor .*RUN.*)$", GUIDE, re.M)
    assert len(commands) == 2
    for command in commands:
        done = called(*command.replace("RUN", run["id"]).split(), "--json")
        assert done.returncode == 0, done.stderr
        answer = json.loads(done.stdout)
        assert answer["reason"]
        assert answer["regime"]


def test_the_wheel_asks_for_no_other_torch(installed):
    [metadata] = installed.glob("etalon-*.dist-info/METADATA")
    asked = re.findall(r"^Requires-Dist: ([\w-]+)", metadata.read_text(encoding="utf-8"), re.M)
    assert {"sqlalchemy", "numpy", "pydantic"} <= set(asked)
    assert set(asked).isdisjoint({"torch", "transformers", "streamlit", "trl"})
