r"""Record a log of every stack: ``python tools/recorded_logs.py --wheels FOLDER``.

One run of Etalon's own trainer that staleness damages is told under each stack's keys, in its unit
of staleness and against its policies; a real training by TRL is recorded beside it. They lie in
tests/storage/logs. FOLDER has the wheels of the stacks that are packaged:

    pip download --no-deps verl==0.9.1 openrlhf==0.11.2 areal==1.0.4 skyrl==0.3.0 \
        tinker-cookbook==0.6.1 --dest FOLDER

Their own logger classes write, taken out of the wheel without what the rest of it needs. Needs
torch, tensorboard, trl, wandb, orjson, chz, rich and fsspec.
"""

import argparse
import itertools
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(PROJECT), str(PROJECT / "tests")]

import stack_writers as writers  # noqa: E402  (no installed package)

from storage.records import StepMetrics  # noqa: E402
from storage.store import Store  # noqa: E402

LOGS = PROJECT / "tests" / "storage" / "logs"
SETTING = {"learning_rate": 1e-3, "max_staleness": 7, "steps": 40}


def recorded_run(folder: Path) -> list[StepMetrics]:
    """Train by Etalon's own trainer and return the steps."""
    words = [f"--{name.replace('_', '-')}={value}" for name, value in SETTING.items()]
    db = str(folder / "archive.db")
    subprocess.run(
        [sys.executable, "-m", "trainer", "run", "--workload=arithmetic", *words, f"--db={db}"],
        cwd=PROJECT,
        env={"ETALON_HOME": str(folder), **os.environ, "OMP_NUM_THREADS": "1"},
        check=False,  # a damaged run is what is wanted, and ends with 1
    )
    store = Store.open(db, create=False)
    steps = store.steps(store.runs()[0].id)
    store.close()
    return steps


def main() -> None:
    """Make the runs and write every log anew."""
    parser = argparse.ArgumentParser(description="Record a log of every stack.")
    parser.add_argument("--wheels", type=Path, required=True, help="folder of the stacks' wheels")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        steps = recorded_run(Path(folder))
    packaged = (writers.verl, writers.openrlhf, writers.areal, writers.skyrl, writers.tinker)
    others = (writers.slime, writers.nemo_rl, writers.prime_rl, writers.wandb)
    for write in (*packaged, *others, writers.trl):
        folder = LOGS / write.__name__
        for old in (path for path in folder.glob("*") if path.name != "expected.json"):
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        folder.mkdir(parents=True, exist_ok=True)
        if write is writers.trl:
            write(folder)
        elif write in packaged:
            prefix = "tinker_cookbook" if write is writers.tinker else write.__name__
            write(steps, folder, next(options.wheels.glob(f"{prefix}-*.whl")))
        else:
            write(steps, folder)
        numbers = itertools.count()
        for file in sorted(folder.rglob("events.out.tfevents.*")):  # a host's name, a process's id
            file.rename(file.with_name(f"events.out.tfevents.{writers.BEGUN}.host.{next(numbers)}"))
        size = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
        print(f"{write.__name__}: {size} bytes")


if __name__ == "__main__":
    main()
