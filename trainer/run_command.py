"""A run carried out in this process: its progress bar, how it ended, and the exit code."""

import argparse
import sys
from typing import Any

from tqdm import tqdm

from storage.commandline import print_json, tell
from storage.records import RunInfo, RunStatus
from storage.store import Store
from storage.terminal import for_progress

from .config import TrainerConfig
from .governing import Governor
from .sweep import steps_taken

ENDS = ("reward_first", "reward_last", "reward_final")


def check_start(config: TrainerConfig, *, here: bool = True) -> None:
    """Refuse what cannot work; ``here`` is whether this machine will carry it out.

    Raises:
        BadInput: one line per fault.
    """
    from .preflight import check  # torch and transformers take seconds to import

    check(config, here=here)


def ended(store: Store, run: RunInfo, govern: Governor | None = None) -> RunInfo:
    """Carry a run out and return it as it ended."""
    try:
        return carry_out(store, run, govern)
    except Exception as error:  # the worker has recorded it in the run with its traceback
        tell(f"the run failed: {type(error).__name__}: {error}", file=sys.stderr)
        return store.run(run.id)


def carry_out(store: Store, run: RunInfo, govern: Governor | None = None) -> RunInfo:
    """Carry a run out with a progress bar; whatever breaks it is raised."""
    begins = f"{run.id} begins: a warm start where none is kept, then {run.config['steps']} steps"
    tell(begins, file=sys.stderr, flush=True)
    from .worker import Worker  # torch and transformers take seconds to import

    with tqdm(total=run.config["steps"], unit="step", disable=None, file=for_progress()) as bar:

        def progress(words: str, step: int, steps: int) -> None:
            bar.set_description(words, refresh=False)
            if bar.n == 0 and step > 1:  # what was done before says nothing about the time left
                bar.initial = bar.n = step - 1
            bar.update(step - bar.n)

        run = Worker(store, run, progress, govern).run()
    if not sys.stderr.isatty():  # where the bar shows it
        tell(f"{run.id} ends: {run.status}", file=sys.stderr, flush=True)
    return run


def told(store: Store, options: argparse.Namespace, run: RunInfo) -> int:
    """Print how a run ended, and return its exit code."""
    say(options, result(store, run), sentence(run))
    return exit_code(run.status)


def exit_code(status: RunStatus) -> int:
    """Return the exit code of a run that ended with this status."""
    return 0 if status in (RunStatus.FINISHED, RunStatus.STOPPED) else 1


def result(store: Store, run: RunInfo) -> dict[str, Any]:
    """Return what ``run --json`` prints: every missing number with its reason."""
    seconds = None
    if run.started_at is not None and run.ended_at is not None:
        seconds = run.ended_at - run.started_at
        seconds = seconds if seconds >= 0 else None
    answer: dict[str, Any] = {
        "run_id": run.id,
        "status": run.status,
        "outcome": run.outcome,
        "outcome_reason": run.outcome_reason,
        "steps": steps_taken(store, run.id),
        "collapse_step": run.collapse_step,
        "reward_first": run.reward_first,
        "reward_last": run.reward_last,
        "reward_final": run.reward_final,
        "gold_reward_first": run.gold_reward_first,
        "gold_reward_last": run.gold_reward_last,
        "gold_reward_final": run.gold_reward_final,
        "seconds": seconds,
    }
    reasons = {
        "outcome": run.outcome_reason or f"the run is {run.status}",
        "collapse_step": "the run did not collapse",
        **dict.fromkeys(ENDS, "no learner step was taken"),
        "reward_final": "the last policy was not evaluated",
        "seconds": "the run has no start or no end, or the clock was set back",
    }
    no_gold = run.unmeasured.get("gold_reward_mean")
    reasons |= {f"gold_{n}": no_gold or reasons[n] for n in ENDS}
    missing = {f"{n}_reason": why for n, why in reasons.items() if answer[n] is None}
    return answer | missing


def sentence(run: RunInfo) -> str:
    """Say in a sentence how a run ended."""
    return f"{run.id} {run.status}: {run.outcome or 'no verdict'} ({run.outcome_reason or '-'})"


def say(options: argparse.Namespace, answer: dict[str, Any], words: str) -> None:
    """Print an answer: as JSON if that is asked, else in words."""
    if options.json:
        print_json(answer)
    else:
        tell(words)
