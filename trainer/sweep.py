"""Many runs as one group of the archive: every cell once, on all cores, and resumable at any time.

A cell is one configuration. What became of it stands in the archive and nowhere else, so a sweep
that is started again, or twice at once, goes on with what is missing. Rules of starting again:

- finished, collapsed and diverged runs are facts: their cells are done;
- a run whose process is gone, or that was stopped, is put away (archived, so it is evidence for
  nothing) and its cell begins from the start; only one that a person stopped while this sweep
  watched stays stopped until the next time;
- a failed run is put away and retried once per sweep, then reported;
- a run that another process carries out is waited for, on another host until it has been silent
  for long (``PulseReader.seconds_to_watch``).
"""

import argparse
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from typing import Any

from pydantic import ValidationError

from storage.commandline import BadInput
from storage.engine import checkpoint_folder
from storage.liveness import PulseReader, is_elsewhere, process_gone
from storage.patience import patiently
from storage.records import RunInfo, RunStatus
from storage.store import Store

from .config import TrainerConfig, allowed_range, checked_config
from .config_options import add_config_options
from .launch import code_version, queued_run
from .pool import Carriers, Pool, cores_used, setting_of
from .silence import ENDED_ELSEWHERE

KIND = "sweep"
DONE = (RunStatus.FINISHED, RunStatus.COLLAPSED, RunStatus.DIVERGED)
_LISTS = {"learning_rate": "learning_rates", "max_staleness": "max_stalenesses"}
ENGINES = ("local", "ray")
MOST_SEEDS = 10_000
MOST_JOBS = 1024
LOOK_SECONDS = (0.3, 5.0)
LOOK_SHARE = 0.05
"""Looking at the archive may take this share of one core, however large the group is."""


def run_cells(
    store: Store,
    configs: Sequence[TrainerConfig],
    *,
    group: str | None = None,
    jobs: int | None = None,
    carriers: Carriers | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[RunInfo]:
    """Bring every cell to its end and return its run, in the order of the configurations.

    Args:
        store: the archive.
        configs: the cells; one that is there twice is one cell.
        group: name of the group; None for one derived from the setting (``group_name``).
        jobs: worker processes at a time; None for as many as fill the cores.
        carriers: who carries the runs out; None for ``jobs`` processes of this machine.
        progress: told ``(words, done, total)`` in learner steps over all cells; a run that ended
            early counts with all its planned steps.

    Raises:
        WorkersFailed: the workers cannot work at all, such as when a warm start fails.
        KeyboardInterrupt: it was interrupted; the workers are stopped and every step is kept.
    """
    cells = Cells(store, configs, group or group_name(configs))
    with carriers or Pool(store, cells.group, jobs or free_jobs(configs)) as pool:

        def looked() -> list[RunInfo]:
            pool.bury()
            runs = cells.look(pool.owns)
            pool.tend(sorted(runs, key=_gentle_first))
            return runs

        while True:
            started = time.thread_time()
            runs = patiently(looked)
            ended = sum(not run.status.alive for run in runs)
            if progress is not None:
                queued = all(run.status is RunStatus.QUEUED for run in runs)
                words = "warm start" if queued else f"{ended} of {len(runs)} runs"
                if watched := cells.silent_elsewhere(r for r in runs if not pool.owns(r)):
                    words += f", watching {watched} that went silent on another host"
                progress(words, *patiently(partial(cells.steps_done, runs)))
            if ended == len(runs):
                return runs
            shortest, longest = LOOK_SECONDS
            pause = (time.thread_time() - started) / LOOK_SHARE
            time.sleep(min(max(pause, shortest), longest))


def group_name(configs: Iterable[TrainerConfig]) -> str:
    """Name a group by the hash of its setting: the same setting, the same group.

    Learning rates, stalenesses and seeds are not part of it, so a larger sweep of a setting goes on
    with a smaller one.
    """
    settings = sorted({setting_of(config) for config in configs})
    workloads = sorted({config.workload for config in configs})
    key = hashlib.sha256(json.dumps(settings).encode()).hexdigest()[:10]
    return f"sweep-{'-'.join(workloads)}-{key}"


def free_jobs(configs: Iterable[TrainerConfig]) -> int:
    """Return how many processes of these runs fill the cores that this process may use."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return max(1, (cores or 1) // max(map(cores_used, configs), default=1))


def _gentle_first(run: RunInfo) -> tuple[float, ...]:
    """Order the longest runs first: of equal horizons a small rate is the likeliest to use it.

    Short runs at the end, such as early collapses, leave no core idle for long.
    """
    return (-float(run.config["steps"]), float(run.config["learning_rate"]))


def add_sweep_options(parser: argparse.ArgumentParser) -> None:
    """Add the lists that span the cells, and the setting that they share."""
    each = f"each {allowed_range('learning_rate')}"
    parser.add_argument("--learning-rates", metavar="F,F,…", help=f"with commas between; {each}")
    each = f"each {allowed_range('max_staleness')}"
    parser.add_argument("--max-stalenesses", metavar="N,N,…", help=f"with commas between; {each}")
    parser.add_argument("--seeds", metavar="N", help="how many seeds every pair of these gets")
    parser.add_argument("--first-seed", metavar="N", default="0", help="the lowest of them (0)")
    parser.add_argument("--jobs", metavar="N", help="runs at a time (default: fill the cores)")
    words = "local: processes of this machine; ray: tasks on every node of a Ray cluster (local)"
    parser.add_argument("--engine", metavar="local|ray", default="local", help=words)
    add_config_options(parser, skip=("learning_rate", "max_staleness", "seed", "engine"))


def cells_from_options(options: argparse.Namespace) -> tuple[list[TrainerConfig], int | None]:
    """Return the configurations of a sweep's cells, and how many jobs were asked for.

    Raises:
        BadInput: one line per fault, each with field, value and allowed range.
    """
    faults: dict[str, None] = {}  # in order, each once
    count = _whole("seeds", options.seeds, MOST_SEEDS, faults) or 1
    if options.engine not in ENGINES:
        faults[f"engine: {options.engine!r} is not allowed; allowed: {' | '.join(ENGINES)}"] = None
    jobs = None if options.jobs is None else _whole("jobs", options.jobs, MOST_JOBS, faults)
    seeds = [_plus(options.first_seed, offset) for offset in range(count)]
    spans: dict[str, list[Any]] = {
        "learning_rate": _listed("learning_rate", options.learning_rates, faults) or ["1"],
        "max_staleness": _listed("max_staleness", options.max_stalenesses, faults) or ["0"],
        "seed": [seeds[0], seeds[-1]],
    }
    names = set(TrainerConfig.model_fields) & set(vars(options)) - {"engine"}
    setting = {n: v for n, v in vars(options).items() if n in names and v is not None}
    for i in range(
        max(len(values) for values in spans.values())
    ):  # each value once: files are read
        try:
            checked_config(setting | {n: values[i % len(values)] for n, values in spans.items()})
        except BadInput as error:
            faults.update(dict.fromkeys(str(error).splitlines()))
    if faults:
        raise BadInput(*faults)
    spans["seed"] = seeds
    cells = [dict(zip(spans, values, strict=True)) for values in product(*spans.values())]
    return [TrainerConfig.model_validate(setting | cell) for cell in cells], jobs


def _listed(name: str, text: str | None, faults: dict[str, None]) -> list[str]:
    if text is None:
        allowed = f"{allowed_range(name)}, with commas between"
        faults[f"{_LISTS[name]}: not given; allowed: {allowed}"] = None
        return []
    return [word.strip() for word in text.split(",")]


def _whole(name: str, text: str | None, most: int, faults: dict[str, None]) -> int | None:
    try:
        value = int(text) if text is not None else 0
    except ValueError:
        value = 0
    if 1 <= value <= most:
        return value
    given = "not given" if text is None else f"{text!r} is not allowed"
    faults[f"{name}: {given}; allowed: whole number, 1 <= {name} <= {most}"] = None
    return None


def _plus(first: str, offset: int) -> int | str:
    """Add to a number that was given as text; text that is none is left for pydantic to refuse."""
    try:
        return int(first) + offset
    except ValueError:
        return first


class Cells:
    """The cells of one sweep and what it knows beyond the archive."""

    def __init__(self, store: Store, configs: Sequence[TrainerConfig], group: str) -> None:
        """Take equal configurations as one cell; nothing is written yet."""
        self.group = group
        self._store = store
        grouped = [config.model_copy(update={"group": group}) for config in configs]
        self._configs = {_key(config): config for config in grouped}
        self._version = code_version()
        self._pulses = PulseReader()
        self._watched: set[str] = set()  # runs seen alive
        self._retried: set[str] = set()  # cells

    def look(self, owns: Callable[[RunInfo], bool]) -> list[RunInfo]:
        """Return the run of every cell, after adding those that are missing or to be made again.

        ``owns`` tells the runs whose process the sweep looks after itself.
        """
        found = self._current(self._store.runs(group=self.group, archived=False))
        if len(found) < len(self._configs) or any(self._due(k, r, owns) for k, r in found.items()):
            before = {run.id for run in found.values()}
            self._store.revise_group(self.group, lambda runs: self._revised(runs, owns))
            found = self._current(self._store.runs(group=self.group, archived=False))
            for run_id in before - {run.id for run in found.values()}:  # put away: made again
                shutil.rmtree(checkpoint_folder(run_id), ignore_errors=True)
        self._watched.update(run.id for run in found.values() if run.status.alive)
        return [found[key] for key in self._configs]

    def _current(self, runs: Iterable[RunInfo]) -> dict[str, RunInfo]:
        """Return the run that stands for each cell: one that is done, else the newest."""
        found: dict[str, RunInfo] = {}
        for run in runs:
            key = _key_of(run.config)
            if run.archived or run.kind != KIND or key is None or key not in self._configs:
                continue
            if key not in found or (run.status in DONE and found[key].status not in DONE):
                found[key] = run
        return found

    def _due(self, key: str, run: RunInfo, owns: Callable[[RunInfo], bool]) -> str | None:
        """Say why a cell is to be made again; None when it is not."""
        if run.status is RunStatus.FAILED and key not in self._retried:
            return "it failed"
        if run.status is RunStatus.STOPPED:
            by_a_person_just_now = run.stop_requested and run.id in self._watched
            return None if by_a_person_just_now else "it was stopped"
        if run.status is RunStatus.RUNNING and not owns(run):
            if is_elsewhere(run):
                silent = self._pulses.seconds_to_watch(run) <= 0
                return f"its process on {run.host} was silent for long" if silent else None
            return "its process is gone" if process_gone(run) else None
        return None

    def _revised(
        self, runs: Iterable[RunInfo], owns: Callable[[RunInfo], bool]
    ) -> Iterable[RunInfo]:
        """Return new runs for the cells that need one, and the runs they replace, put away."""
        found = self._current(runs)
        for key, config in self._configs.items():
            old = found.get(key)
            reason = None if old is None else self._due(key, old, owns)
            if old is not None and reason is None:
                continue
            new = queued_run(config, self._version, kind=KIND)
            self._watched.add(new.id)
            yield new
            if old is not None:
                if old.status is RunStatus.FAILED:
                    self._retried.add(key)
                yield _put_away(old, f"{reason}; made again as {new.id}")

    def silent_elsewhere(self, runs: Iterable[RunInfo]) -> int:
        """Return how many runs may have lost their process on another host."""
        return sum(self._pulses.status(r) is RunStatus.LOST for r in runs if is_elsewhere(r))

    def steps_done(self, runs: Iterable[RunInfo]) -> tuple[int, int]:
        """Return the learner steps that are done and those of all cells."""
        done = total = 0
        for run in runs:
            planned = int(run.config["steps"])
            total += planned
            if run.status is RunStatus.RUNNING:
                done += min(planned, steps_taken(self._store, run.id))
            elif run.status is not RunStatus.QUEUED:
                done += planned
        return done, total


def _put_away(run: RunInfo, notes: str) -> RunInfo:
    if run.status.alive:
        if is_elsewhere(run):
            run = replace(run, process_mark=ENDED_ELSEWHERE)
        ended_at = run.heartbeat_at or time.time()
        run = replace(run, status=RunStatus.STOPPED, ended_at=ended_at, outcome_reason=notes)
    return replace(run, archived=True, notes=notes)


def steps_taken(store: Store, run_id: str) -> int:
    """Return how many learner steps of a run are stored."""
    newest = store.steps(run_id, last=1)
    return newest[0].step + 1 if newest else 0


def _key(config: TrainerConfig) -> str:
    return json.dumps(config.model_dump(mode="json", exclude={"name", "group"}), sort_keys=True)


def _key_of(stored: Mapping[str, object]) -> str | None:
    """Return the key of a stored configuration; None when this version cannot read it."""
    try:
        return _key(TrainerConfig.model_validate(stored))
    except ValidationError:
        return None
