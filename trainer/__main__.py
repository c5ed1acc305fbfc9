"""Command line of the trainer: ``python -m trainer run|stop`` (and ``work``, its child process)."""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

from tqdm import tqdm

from storage.commandline import Parser, add_common_options, parse, print_json, run_command
from storage.records import RunInfo, RunStatus
from storage.store import Store

from .config import add_config_options, config_from_options
from .launch import create_run, launch, stop

ENDS = ("reward_first", "reward_last", "reward_final")


def main(argv: Sequence[str]) -> int:
    """Run one command of ``python -m trainer`` and return its exit code."""
    options = parse(_parser(), argv)
    if options.command == "run":
        return _run(options)
    store = Store.open(options.db, create=False)
    try:
        return _stop(store, options) if options.command == "stop" else _work(store, options)
    finally:
        store.close()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m trainer", description="Train, and measure every learner step.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="run|stop")
    run = commands.add_parser("run", help="train", description="Train one run into the archive.")
    add_common_options(run)
    run.add_argument("--detach", action="store_true", help="return at once; the run goes on")
    add_config_options(run)
    halt = commands.add_parser("stop", help="stop a run", description="Stop after this step.")
    add_common_options(halt)
    halt.add_argument("run", help="id of the run")
    work = commands.add_parser("work")
    add_common_options(work)
    work.add_argument("run")
    return parser


def _run(options: argparse.Namespace) -> int:
    config = config_from_options(options)  # before anything is opened, made or written
    if config.device not in ("auto", "cpu"):
        from .policy import choose_device  # torch takes seconds to import

        choose_device(config.device)
    store = Store.open(options.db)
    try:
        if options.detach:
            run_id = launch(store, config)
            _print(options, {"run_id": run_id}, f"{run_id} is starting")
            return 0
        run = create_run(store, config)
        try:
            run = _carry_out(store, run)
        except Exception as error:  # the worker has recorded it in the run with its traceback
            print(f"the run failed: {type(error).__name__}: {error}", file=sys.stderr)
            run = store.run(run.id)
        _print(options, result(store, run), _sentence(run))
        return exit_code(run.status)
    finally:
        store.close()


def _carry_out(store: Store, run: RunInfo) -> RunInfo:
    from .worker import Worker  # torch and transformers take seconds to import

    with tqdm(total=run.config["steps"], unit="step", disable=None, file=sys.stderr) as bar:

        def progress(words: str, step: int, steps: int) -> None:
            bar.set_description(words, refresh=False)
            bar.update(step - bar.n)

        return Worker(store, run, progress).run()


def _work(store: Store, options: argparse.Namespace) -> int:
    return exit_code(_carry_out(store, store.run(options.run)).status)


def _stop(store: Store, options: argparse.Namespace) -> int:
    status = stop(store, options.run)
    words = "will stop after its present step" if status.alive else f"is {status}"
    _print(options, {"run_id": options.run, "status": status}, f"{options.run} {words}")
    return 0


def exit_code(status: RunStatus) -> int:
    """Return the exit code of a run that ended with this status."""
    return 0 if status in (RunStatus.FINISHED, RunStatus.STOPPED) else 1


def result(store: Store, run: RunInfo) -> dict[str, Any]:
    """Return what ``run --json`` prints: every missing number with its reason."""
    ended = (run.ended_at or 0) - (run.started_at or 0)
    answer: dict[str, Any] = {
        "run_id": run.id,
        "status": run.status,
        "outcome": run.outcome,
        "outcome_reason": run.outcome_reason,
        "steps": store.step_counts().get(run.id, 0),
        "collapse_step": run.collapse_step,
        "reward_first": run.reward_first,
        "reward_last": run.reward_last,
        "reward_final": run.reward_final,
        "gold_reward_first": run.gold_reward_first,
        "gold_reward_last": run.gold_reward_last,
        "gold_reward_final": run.gold_reward_final,
        "seconds": ended,
    }
    reasons = {
        "collapse_step": "the run did not collapse",
        **dict.fromkeys(ENDS, "no learner step was taken"),
        "reward_final": "the last policy was not evaluated",
    }
    no_gold = run.unmeasured.get("gold_reward_mean")
    reasons |= {f"gold_{n}": no_gold or reasons[n] for n in ENDS}
    missing = {f"{n}_reason": why for n, why in reasons.items() if answer[n] is None}
    return answer | missing


def _sentence(run: RunInfo) -> str:
    return f"{run.id} {run.status}: {run.outcome or 'no verdict'} ({run.outcome_reason or '-'})"


def _print(options: argparse.Namespace, answer: dict[str, Any], words: str) -> None:
    if options.json:
        print_json(answer)
    else:
        print(words)


if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
