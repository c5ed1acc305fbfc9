"""Kill learners and rollout workers of queue mode at random moments, and see that nothing is lost.

    python -m benchmarks.kills [--kills N] [--per-run N] [--seed N]

Runs are started, killed and resumed like a person's: each is a process of its own with an archive
in a temporary home. A kill is −9 and hits the learner, a rollout worker, or both. Half of the time
it comes up to ``LONGEST`` seconds after the one before, which is often in the middle of a start;
else up to ``LONGEST`` seconds after the first learner step since, in the middle of a step, a batch
or a checkpoint. A killed learner is resumed once its process and its workers are gone. In the end
every run must have finished with each of its rows once, and none older than S.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from storage.records import RunStatus
from storage.store import Store
from trainer.config import TrainerConfig, checked_config
from trainer.launch import launch, resume
from trainer.workloads.arithmetic import build_model, build_tokenizer

LONGEST = 4.0
PATIENCE = 300.0
REWARD = """
import time
def judge(prompts, completions, **keys):
    time.sleep(0.03)
    return [len(each) for each in completions]
"""
SETTING = {
    "schedule": "queue",
    "rollout_workers": 2,
    "max_staleness": 3,
    "learning_rate": 1e-3,
    "steps": 1000,
    "checkpoint_every": 10,
    "prompts": 4,
    "group_size": 4,
    "evaluation_rollouts": 16,
    "max_new_tokens": 3,
    "stop_on_collapse": False,
}


def a_setting(folder: Path) -> TrainerConfig:
    """Write a small model, prompts and a reward, and return the configuration of a run on them."""
    model: Any = build_model(16, 1)
    model.save_pretrained(folder / "model")
    build_tokenizer().save_pretrained(folder / "model")
    prompts = [{"prompt": f"{a}+{a}="} for a in range(10, 40)]
    (folder / "prompts.jsonl").write_text("\n".join(map(json.dumps, prompts)))
    (folder / "reward.py").write_text(REWARD)
    files = {
        "workload": "custom",
        "model": str(folder / "model"),
        "prompts_file": str(folder / "prompts.jsonl"),
        "reward": f"{folder / 'reward.py'}:judge",
    }
    return checked_config({**SETTING, **files})


def killed_run(
    store: Store, config: TrainerConfig, kills: int, chance: random.Random
) -> dict[str, Any]:
    """Start a run, kill of it at most so many times, and return what became of it."""
    run_id = launch(store, config)
    hit: Counter[str] = Counter()
    while hit.total() < kills:
        if chance.random() < 0.5:
            _wait_for_a_step_since(store, run_id, time.time())
        time.sleep(chance.uniform(0, LONGEST))
        learner = _learner(store, run_id)
        if learner is None:
            break  # it has come to its end
        workers = _rollout_workers(learner)
        target = chance.choice(("learner", "worker", "both"))
        if target != "learner" and workers:
            _kill(chance.choice(workers))
            hit["worker"] += 1
        if target != "worker":
            _kill(learner)
            hit["learner"] += 1
            _wait_until_gone(learner, *workers)
            if not store.run(run_id).status.alive:
                break  # it came to its end just before
            resume(store, run_id)
    _wait(lambda: _learner(store, run_id) is None)
    run, rows = store.run(run_id), store.steps(run_id)
    return {
        "status": run.status,
        "kills": dict(hit),
        "resumed": sum(event.kind == "resumed" for event in store.events(run_id)),
        "replaced": sum(event.kind == "rollout_worker" for event in store.events(run_id)),
        "rows_once_each": [row.step for row in rows] == list(range(config.steps)),
        "oldest": max((row.staleness_max or 0.0 for row in rows), default=0.0),
        "error": run.error,
    }


def _learner(store: Store, run_id: str) -> psutil.Process | None:
    """Return the process of a run that is not at its end; None at its end."""
    run = store.run(run_id)
    if not run.status.alive or run.pid is None:
        return None
    try:
        return psutil.Process(run.pid)
    except psutil.NoSuchProcess:
        return None


def _rollout_workers(learner: psutil.Process) -> list[psutil.Process]:
    try:
        children = learner.children()
        return [each for each in children if "spawn_main" in " ".join(each.cmdline())]
    except psutil.Error:
        return []


def _kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def _gone(process: psutil.Process) -> bool:
    try:
        return not process.is_running() or process.status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def _wait_for_a_step_since(store: Store, run_id: str, moment: float) -> None:
    def taken() -> bool:
        newest = store.steps(run_id, last=1)
        return bool(newest and newest[0].time > moment) or not store.run(run_id).status.alive

    _wait(taken)


def _wait_until_gone(*processes: psutil.Process) -> None:
    _wait(lambda: all(map(_gone, processes)))


def _wait(true: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE
    while not true():
        if time.monotonic() > until:
            raise TimeoutError(f"not within {PATIENCE:.0f} s")
        time.sleep(0.05)


def main() -> int:
    """Kill, resume, and print what became of every run; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--per-run", type=int, default=10)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    chance, done, sound = random.Random(options.seed), 0, True
    with tempfile.TemporaryDirectory() as name:
        os.environ["ETALON_HOME"] = name
        store = Store.open(f"sqlite:///{Path(name) / 'etalon.db'}")
        config = a_setting(Path(name))
        while done < options.kills:
            found = killed_run(store, config, min(options.per_run, options.kills - done), chance)
            print(json.dumps(found), flush=True)
            done += sum(found["kills"].values())
            sound &= found["status"] == RunStatus.FINISHED and found["rows_once_each"]
            sound &= found["oldest"] <= config.max_staleness
        store.close()
    print(f"{done} kills: {'nothing was lost' if sound else 'SOMETHING WAS LOST'}")
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main())
