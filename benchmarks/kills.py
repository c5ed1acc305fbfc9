"""Kill everything that writes into an archive −9 at random moments, and see that nothing is lost.

    python -m benchmarks.kills [--lockstep N] [--queue N] [--sweep N] [--import N] [--seed N]

- *lockstep*: a learner is killed while it starts, learns, writes a checkpoint, keeps its rows
  because the archive is locked (a third of the time), or goes on; then it is resumed.
- *queue*: likewise; or one of the processes that it started is killed instead, or all with it.
- *sweep*: the process of the sweep or one of its workers is killed; the sweep is started again.
- *import*: a process that imports a log of 500 steps, or one that has grown, is killed.

A learner tells every step once it is committed. After a kill the archive, with the journal of the
run, must hold all of those; in the end every run must have come to its end with each row once, a
lockstep run with the very rows of one that was never disturbed.
"""

import argparse
import json
import os
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from storage.importers.importing import import_file
from storage.records import RunInfo, RunStatus
from storage.store import Store
from trainer.config import TrainerConfig, checked_config
from trainer.launch import claim, process_columns, queue_run, reopen
from trainer.pool import WorkersFailed
from trainer.sweep import run_cells

from .killing import Forked, Tally, committed_steps, damage, hold_lock, killed, wait

LONGEST = {"lockstep": 1.0, "queue": 3.0, "sweep": 8.0}
"""A kill comes up to so many seconds after the one before, or after the first step since."""
KILLS_PER_RUN = 15
LOGGED = (500, 1000)
"""Rows of a log when it is imported first, and when it has grown."""
SMALL: dict[str, Any] = {
    "learning_rate": 2e-4,
    "max_staleness": 3,
    "steps": 80,
    "checkpoint_every": 5,
    "prompts": 4,
    "group_size": 4,
    "evaluation_rollouts": 16,
    "stop_on_collapse": False,
}
SETTINGS: dict[str, dict[str, Any]] = {
    "lockstep": SMALL,
    "queue": SMALL | {"schedule": "queue", "rollout_workers": 2, "steps": 300},
    "sweep": SMALL | {"steps": 40, "group": "killed"},
}


class Place:
    """A home with an archive of its own, and the dice."""

    def __init__(self, folder: Path, seed: int) -> None:
        """Make everything of this process, and of those it starts, lie in the folder."""
        os.environ["ETALON_HOME"] = str(folder)
        self.file = str(folder / "etalon.db")
        self.chance = random.Random(seed)
        self.opened().close()

    def opened(self) -> Store:
        """Open the archive."""
        return Store.open(self.file)


# -- learners ---------------------------------------------------------------------------------


def killed_run(place: Place, config: TrainerConfig, kills: int) -> Tally:
    """Start a run, kill it so many times or until it has come to its end, and let it end."""
    with closing(place.opened()) as store:
        run_id = queue_run(store, config).id
    longest = LONGEST["queue" if config.schedule == "queue" else "lockstep"]
    tally = Tally(runs=1)
    learner = _begun(place, run_id)
    while tally.kills < kills and _wait_a_while(place, longest, learner):
        workers = learner.children()  # of a lockstep run there are none
        target = place.chance.choice(("learner", "worker", "all")) if workers else "learner"
        if target == "worker":
            workers = place.chance.sample(workers, 1)
        if target != "learner":
            tally.kills += sum(map(killed, workers))
        if target == "worker":
            continue
        learner.kill()
        tally.kills += learner.code == -9
        before = learner.committed
        learner.close()
        with closing(place.opened()) as store:
            tally.committed += before
            tally.lost += len(set(range(before)) - committed_steps(store, run_id))
            tally.damaged += damage(store)
            if not store.run(run_id).status.alive:
                return _judged(place, run_id, tally)
        learner = _begun(place, run_id)
        tally.resumed += 1
    wait(lambda: learner.has_ended)
    learner.close()
    return _judged(place, run_id, tally)


def _begun(place: Place, run_id: str) -> Forked:
    """Let a process carry a run out, from its beginning or from its newest checkpoint."""

    def work(tell: Callable[[int], None]) -> None:
        from trainer.worker import Worker

        with closing(place.opened()) as store:
            run = store.run(run_id)
            if not (run.status is RunStatus.QUEUED and claim(store, run_id)):
                reopen(store, run_id, RunStatus.RUNNING)

            def progress(words: str, step: int, steps: int) -> None:
                tell(step)

            Worker(store, store.run(run_id), progress).run()

    learner = Forked(work)
    with closing(place.opened()) as store:
        if store.run(run_id).pid is None:
            store.update_run(run_id, **process_columns(learner.pid))
    return learner


def _wait_a_while(place: Place, longest: float, learner: Forked) -> bool:
    """Wait for the moment of a kill; False when the run has come to its end before."""
    before = learner.committed
    way = place.chance.choice(("at once", "after a step", "while locked"))
    if way != "at once":
        wait(lambda: learner.committed > before or learner.has_ended)
    if way == "while locked":
        hold_lock(place.file, place.chance.uniform(0, 4 * longest))
    else:
        time.sleep(place.chance.uniform(0, longest))
    return not learner.has_ended


def _judged(place: Place, run_id: str, tally: Tally) -> Tally:
    with closing(place.opened()) as store:
        run, rows = store.run(run_id), store.steps(run_id)
        planned = range(int(run.config["steps"]))
        steps = [row.step for row in rows]
        tally.lost += len(set(planned) - set(steps))
        tally.doubled += len(steps) - len(set(steps))
        tally.stale += sum((row.staleness_max or 0.0) > run.config["max_staleness"] for row in rows)
        tally.damaged += damage(store)
        tally.stuck += run.status is not RunStatus.FINISHED
        if run.status is not RunStatus.FINISHED:
            print(run.status, run.error or run.outcome_reason, file=sys.stderr, flush=True)
        if run.config["schedule"] != "queue":
            straight = [row.loss for row in store.steps(_undisturbed(store))]
            pairs = zip(straight, rows, strict=False)
            tally.changed += sum(loss != row.loss for loss, row in pairs)
    return tally


def _undisturbed(store: Store) -> str:
    """Return the id of the first run of the archive, which nobody kills."""
    return store.runs()[-1].id


def killed_learners(place: Place, kind: str, kills: int, **changes: Any) -> Tally:
    """Kill learners of this kind so many times, one run after the other."""
    import trainer.worker  # noqa: F401  # loaded here, once for all

    config = checked_config(SETTINGS[kind] | changes)
    if kind == "lockstep":
        with closing(place.opened()) as store:
            straight = queue_run(store, config).id
        learner = _begun(place, straight)
        wait(lambda: learner.has_ended)
    tally = Tally()
    while tally.kills < kills:
        tally.add(killed_run(place, config, min(KILLS_PER_RUN, kills - tally.kills)))
    return tally


# -- sweeps -----------------------------------------------------------------------------------


def killed_sweeps(place: Place, kills: int) -> Tally:
    """Kill a sweep or its workers so many times, one sweep after the other."""
    straight = _swept(place, [checked_config(SETTINGS["sweep"] | {"seed": 999})])
    wait(lambda: straight.has_ended)
    tally = Tally()
    while tally.kills < kills:
        seeds = [4 * tally.runs + n for n in range(4)]
        configs = [checked_config(SETTINGS["sweep"] | {"seed": seed}) for seed in seeds]
        tally.add(_killed_sweep(place, configs, min(KILLS_PER_RUN, kills - tally.kills)))
    return tally


def _killed_sweep(place: Place, configs: Sequence[TrainerConfig], kills: int) -> Tally:
    tally = Tally(runs=len(configs))
    sweep = _swept(place, configs)
    while tally.kills < kills and not (sweep.has_ended and _are_whole(place, configs)):
        time.sleep(place.chance.uniform(0, LONGEST["sweep"]))
        before = _rows_by_run(place)
        workers = sweep.children()
        if workers and place.chance.random() < 0.5:
            tally.kills += killed(place.chance.choice(workers))
        elif not sweep.has_ended:
            sweep.kill()
            tally.kills += 1
            tally.resumed += 1
        after = _rows_by_run(place)
        tally.committed += sum(before.values())
        tally.lost += sum(max(0, n - after.get(run_id, 0)) for run_id, n in before.items())
        with closing(place.opened()) as store:
            tally.damaged += damage(store)
        if sweep.has_ended and not _are_whole(place, configs):
            sweep.close()
            sweep = _swept(place, configs)
    wait(lambda: sweep.has_ended)
    sweep.close()
    if not _are_whole(place, configs):  # the last kill was of the worker that makes the warm start
        again = _swept(place, configs)
        wait(lambda: again.has_ended)
    with closing(place.opened()) as store:
        tally.damaged += damage(store)
    tally.stuck += not _are_whole(place, configs)
    return tally


def _are_whole(place: Place, configs: Sequence[TrainerConfig]) -> bool:
    """Whether a sweep has each of its cells once, and every row of it once."""
    wanted = sorted(config.seed for config in configs)
    with closing(place.opened()) as store:
        runs = store.runs(group="killed", archived=False)
        cells = [run for run in runs if run.config["seed"] in wanted]
        found = sorted(run.config["seed"] for run in cells)
        return found == wanted and all(_is_whole(store, run) for run in cells)


def _is_whole(store: Store, run: RunInfo) -> bool:
    steps = store.series(run.id, ["step"])["step"]
    return run.status is RunStatus.FINISHED and steps == list(range(run.config["steps"]))


def _swept(place: Place, configs: Sequence[TrainerConfig]) -> Forked:
    def work(tell: Callable[[int], None]) -> None:
        with closing(place.opened()) as store, suppress(WorkersFailed):  # its only one was killed
            run_cells(store, configs, group="killed", jobs=2)

    return Forked(work)


def _rows_by_run(place: Place) -> dict[str, int]:
    with closing(place.opened()) as store:
        return store.step_counts()


# -- imports ----------------------------------------------------------------------------------


def killed_imports(place: Place, kills: int) -> Tally:
    """Kill so many imports, of logs that are new and of logs that have grown; then import them."""
    log = Path(place.file).with_name("log.jsonl")
    tally, seconds = Tally(), 1.0
    while tally.kills < kills:
        new = f"log {tally.runs}"
        there = 0
        tally.runs += 1
        for rows in LOGGED:
            log.write_text("".join(json.dumps(_logged(step)) + "\n" for step in range(rows)))
            importing = Forked(partial(_import, place, log, new))
            time.sleep(place.chance.uniform(0, seconds))
            importing.kill()
            importing.close()
            tally.kills += importing.code == -9
            tally.committed += there
            with closing(place.opened()) as store:
                counts = {run.name: run.id for run in store.runs()}
                found = store.step_counts().get(counts.get(new, ""), 0)
                tally.lost += max(0, there - found)
                tally.damaged += damage(store) or found not in (there, rows)
                started = time.monotonic()
                done = import_file(store, log, name=new, stack="verl")
                seconds = 1.2 * max(0.1, time.monotonic() - started)
                steps = store.series(done.run_id, ["step"])["step"]
                tally.doubled += len(steps) - len(set(steps))
                tally.stuck += len(set(steps)) != rows
                there = rows
        with closing(place.opened()) as store:
            store.delete_run(done.run_id)
    return tally


def _logged(step: int) -> dict[str, Any]:
    return {"step": step, "data": {"actor/lr": 1e-6, "critic/rewards/mean": step / LOGGED[-1]}}


def _import(place: Place, log: Path, name: str, tell: Callable[[int], None]) -> None:
    with closing(place.opened()) as store:
        import_file(store, log, name=name, stack="verl")


KINDS: dict[str, Callable[[Place, int], Tally]] = {
    "lockstep": lambda place, kills: killed_learners(place, "lockstep", kills),
    "queue": lambda place, kills: killed_learners(place, "queue", kills),
    "sweep": killed_sweeps,
    "import": killed_imports,
}
DEFAULT_KILLS = {"lockstep": 300, "queue": 60, "sweep": 60, "import": 580}


def main() -> int:
    """Kill, resume, and print what became of every kind; 1 if anything was lost."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    for kind, kills in DEFAULT_KILLS.items():
        parser.add_argument(f"--{kind}", type=int, default=kills, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = vars(parser.parse_args())
    total = Tally()
    for kind, killing in KINDS.items():
        if not options[kind]:
            continue
        with tempfile.TemporaryDirectory() as name:
            started = time.monotonic()
            tally = killing(Place(Path(name), options["seed"]), options[kind])
        seconds = round(time.monotonic() - started)
        print(json.dumps({"kind": kind, **asdict(tally), "seconds": seconds}), flush=True)
        total.add(tally)
    print(json.dumps({"kind": "all", **asdict(total)}))
    return 0 if total.is_sound else 1


if __name__ == "__main__":
    sys.exit(main())
