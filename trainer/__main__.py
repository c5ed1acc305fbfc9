"""Command line of the trainer: ``python -m trainer run|sweep|resume|stop``.

``work`` and ``pool`` are the child processes of a detached run and of a sweep.
"""

import argparse
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from importlib import import_module
from typing import Any

from tqdm import tqdm

from storage.commandline import (
    A_RUN,
    BadInput,
    Parser,
    add_common_options,
    be_command,
    parse,
    tell,
)
from storage.liveness import SILENT_SECONDS, is_elsewhere
from storage.patience import patiently
from storage.records import RunInfo, RunStatus
from storage.store import Store
from storage.terminal import for_progress

from .config import TrainerConfig
from .config_options import add_config_options, config_from_options
from .launch import claim, config_to_resume, create_run, launch, queue_run, reopen, resume, stop
from .pool import Carriers, WorkersFailed, carry_out_offered
from .ray_cluster import ready_for
from .run_command import carry_out, check_start, ended, exit_code, result, say, told
from .silence import end_elsewhere, is_silent_elsewhere, watched_to_its_end
from .sweep import add_sweep_options, cells_from_options, run_cells


def main(argv: Sequence[str]) -> int:
    """Run one command of ``python -m trainer`` and return its exit code."""
    options = parse(_parser(), argv)
    if getattr(options, "ray_address", None) is not None:
        os.environ["RAY_ADDRESS"] = options.ray_address  # for the run's own process too
    if options.command == "run":
        return _run(options)
    if options.command == "sweep":
        return _sweep(options)
    store = Store.open(options.db, create=False)
    try:
        if options.command in ("resume", "stop"):  # a person's; `work` waits for the archive
            options.run = store.run_id_of(options.run)
        return int(_COMMANDS[options.command](store, options))
    finally:
        store.close()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m trainer", description="Train, and measure every learner step.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="run|sweep|resume|stop")
    run = commands.add_parser("run", help="train", description="Train one run into the archive.")
    add_common_options(run)
    how = run.add_mutually_exclusive_group()
    how.add_argument("--detach", action="store_true", help="return at once; the run goes on")
    words = "only add it to the archive; advisor watch --max-parallel N starts it"
    how.add_argument("--later", action="store_true", help=words)
    _add_ray_address(run)
    add_config_options(run)
    words = "Train every combination of rates, stalenesses and seeds; again, it goes on."
    sweep = commands.add_parser("sweep", help="train many runs", description=words)
    add_common_options(sweep)
    _add_ray_address(sweep)
    add_sweep_options(sweep)
    halt = commands.add_parser("stop", help="stop a run", description="Stop after this step.")
    add_common_options(halt)
    halt.add_argument("run", help=A_RUN)
    again = commands.add_parser(
        "resume", help="let a run go on", description="Let a run go on from its last checkpoint."
    )
    add_common_options(again)
    again.add_argument("run", help=f"one that was stopped, failed, or lost its process: {A_RUN}")
    again.add_argument("--detach", action="store_true", help="do not wait for the run's end")
    _add_ray_address(again)
    again.add_argument("--steps", metavar="N", help="a longer horizon (default: as planned)")
    work = commands.add_parser("work")
    add_common_options(work)
    work.add_argument("run")
    pool = commands.add_parser("pool")
    add_common_options(pool)
    pool.add_argument("--warm", action="store_true")
    return parser


def _add_ray_address(parser: argparse.ArgumentParser) -> None:
    words = "engine ray: auto | HOST:PORT (default: RAY_ADDRESS, else the cluster on this machine)"
    parser.add_argument("--ray-address", metavar="X", help=words)


def _run(options: argparse.Namespace) -> int:
    config = config_from_options(options)  # before anything is opened, made or written
    away = options.detach or options.later
    _check_before(config, detached=away)
    with ExitStack() as at_the_end:
        with ready_for(config):  # which keeps standard output to itself
            store = Store.open(options.db)
            at_the_end.callback(store.close)
            if not away:
                import_module(".worker", __package__)  # for seconds: interrupted, it leaves no run
                run = ended(store, create_run(store, config))
        if not away:
            return told(store, options, run)
        if options.later:
            run_id = queue_run(store, config).id
            say(options, {"run_id": run_id}, f"{run_id} waits to be started")
            return 0
        run_id = launch(store, config)
        say(options, {"run_id": run_id}, f"{run_id} is starting")
        return 0


def _resume(store: Store, options: argparse.Namespace) -> int:
    config = config_to_resume(store, options.run, options.steps)
    _check_before(config, detached=options.detach)  # before what the run came to is forgotten
    if options.detach:
        end_elsewhere(store, options.run)
        resume(store, options.run, options.steps)
        say(options, {"run_id": options.run}, f"{options.run} goes on")
        return 0
    import_module(".worker", __package__)  # for seconds: interrupted, nothing has changed
    with ready_for(config):
        end_elsewhere(store, options.run)
        run = ended(store, reopen(store, options.run, RunStatus.RUNNING, options.steps))
    return told(store, options, run)


def _check_device(config: TrainerConfig) -> None:
    if config.device not in ("auto", "cpu"):
        from .policy import choose_device  # torch takes seconds to import

        choose_device(config.device)


def _check_before(config: TrainerConfig, *, detached: bool) -> None:
    """Refuse what cannot work; of a detached run its own process checks the rest."""
    if config.workload == "custom" or not detached:
        check_start(config)
    else:
        _check_device(config)


def _sweep(options: argparse.Namespace) -> int:
    configs, jobs = cells_from_options(options)  # before anything is opened, made or written
    started = time.time()
    try:
        with _opened(options, configs, jobs) as (store, carriers):
            signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like an interrupt
            runs = _carry_out_cells(store, configs, options.group, jobs, carriers)
            answer: dict[str, Any] = {
                "group": runs[0].group,
                "counts": Counter(run.status for run in runs),
                "cells": [_cell(store, run) for run in runs],
                "seconds": time.time() - started,
            }
    except WorkersFailed as error:
        tell(error, file=sys.stderr)
        return 1
    say(options, answer, _table(answer))
    return 0


@contextmanager
def _opened(
    options: argparse.Namespace, configs: Sequence[TrainerConfig], jobs: int | None
) -> Iterator[tuple[Store, Carriers | None]]:
    """Open the archive, and have who carries the cells out; None for processes of this machine."""
    if options.engine == "ray":
        from .ray_pool import on_ray  # Ray is optional

        if configs[0].workload == "custom":
            check_start(configs[0], here=False)
        with on_ray(options.db, configs, jobs) as found:
            yield found
        return
    if configs[0].workload == "custom":
        check_start(max(configs, key=lambda config: config.max_staleness))
    else:
        _check_device(configs[0])
    store = Store.open(options.db)
    try:
        yield store, None
    finally:
        store.close()


def _carry_out_cells(
    store: Store,
    configs: Sequence[TrainerConfig],
    group: str | None,
    jobs: int | None,
    carriers: Carriers | None,
) -> list[RunInfo]:
    planned = sum(config.steps for config in configs)
    bar = tqdm(total=planned, unit="step", disable=None, file=for_progress(), smoothing=0)
    at_start: int | None = None
    learning = False

    def progress(words: str, done: int, total: int) -> None:
        nonlocal at_start, learning
        at_start = done if at_start is None else at_start
        if not learning:  # an earlier sweep and loading torch say nothing about the time left
            bar.initial, learning = done, done > at_start
            if learning:
                bar.start_t = time.time()
        bar.n, bar.total = done, total
        bar.set_description(words)

    with bar:
        return run_cells(
            store, configs, group=group, jobs=jobs, carriers=carriers, progress=progress
        )


def _cell(store: Store, run: RunInfo) -> dict[str, Any]:
    """Return the row of one cell: what was chosen, then what ``run --json`` prints."""
    chosen = {name: run.config[name] for name in ("learning_rate", "max_staleness", "seed")}
    error = run.error.strip().splitlines()[-1] if run.error else None
    why = {} if error else {"error_reason": "the run did not fail"}
    return {"run_id": run.id, **chosen, **result(store, run), "error": error, **why}


def _table(answer: dict[str, Any]) -> str:
    counts = ", ".join(f"{number} {status}" for status, number in answer["counts"].items())
    lines = [
        f"{cell['run_id']}  η={cell['learning_rate']:<8g} S={cell['max_staleness']:<4} "
        f"seed={cell['seed']:<4} {cell['status']:<10} {cell['outcome'] or '':<12} "
        f"{cell['steps']:>7} steps  reward {_shown(cell['reward_first'])} → "
        f"{_shown(cell['reward_final'])}  {cell['error'] or ''}".rstrip()
        for cell in answer["cells"]
    ]
    total = f"{answer['group']}: {counts} in {answer['seconds']:.0f} s"
    return "\n".join([*lines, total])


def _shown(reward: float | None) -> str:
    return "-" if reward is None else f"{reward:.3f}"


def _work(store: Store, options: argparse.Namespace) -> int:
    if not patiently(partial(claim, store, options.run)):
        raise BadInput(f"run: {options.run} is {store.run(options.run).status}; allowed: queued")
    return exit_code(carry_out(store, store.run(options.run)).status)


def _pool(store: Store, options: argparse.Namespace) -> int:
    carry_out_offered(store, warm=options.warm)
    return 0


def _stop(store: Store, options: argparse.Namespace) -> int:
    status = stop(store, options.run)
    run = store.run(options.run)
    if is_silent_elsewhere(run):
        status = watched_to_its_end(store, run)
    words = f"{options.run} is {status}"
    if status.alive:
        words = f"{options.run} will stop after its present step{_once_heard(run)}"
    say(options, {"run_id": options.run, "status": status}, words)
    return 0


def _once_heard(run: RunInfo) -> str:
    """Say whom a request to stop waits for, where that is a process of another host."""
    if not is_elsewhere(run):
        return ""
    return (
        f", once {run.host} hears it; if that gave no sign of life for "
        f"{SILENT_SECONDS / 60:.0f} minutes, ask again, and the run is ended from here"
    )


_COMMANDS = {"resume": _resume, "stop": _stop, "work": _work, "pool": _pool}

if __name__ == "__main__":
    be_command(main)
