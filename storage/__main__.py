"""Command line of the archive: ``python -m storage list|show|check|migrate|archive``."""

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy.exc import DBAPIError

from .check import inconsistencies
from .commandline import BadInput, Parser, add_common_options, parse, print_json, run_command
from .engine import unchecked_engine
from .errors import ArchiveUnavailable
from .liveness import PulseReader
from .records import METRIC_NAMES, RunInfo, StepMetrics, missing_reason
from .store import Store

MOST_STEPS = 1_000_000
LISTED = ("id", "name", "kind", "status", "workload", "group", "seed", "archived", "outcome")


def main(argv: Sequence[str]) -> int:
    """Run one command of ``python -m storage`` and return its exit code."""
    options = parse(_parser(), argv)
    if options.command == "migrate":
        return _migrate(options)
    if options.command == "show":
        options.last = _count(options.last)
    names_a_run = options.command in ("show", "archive")
    store = Store.open(options.db, create=options.db is None and not names_a_run)
    try:
        return int(_COMMANDS[options.command](store, options))
    finally:
        store.close()


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="python -m storage", description="Look into the archive of runs.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, words in (
        ("list", "the runs, newest first"),
        ("show", "one run: configuration, outcome and its newest steps"),
        ("check", "find and name inconsistencies"),
        ("migrate", "bring an older archive to this code's schema"),
        ("archive", "put a run away, out of the lists; nothing is deleted"),
    ):
        command = commands.add_parser(name, help=words, description=words)
        add_common_options(command)
        if name in ("show", "archive"):
            command.add_argument("run", help="id of the run")
        if name == "list":
            command.add_argument("--archived", action="store_true", help="the archived ones too")
        if name == "show":
            command.add_argument(
                "--last", default="1", metavar="N", help="newest steps to show (1)"
            )
        if name == "archive":
            command.add_argument("--undo", action="store_true", help="bring it back")
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_STEPS:
        raise BadInput(
            f"last: {text!r} is not allowed; allowed: whole number, 0 <= last <= {MOST_STEPS}"
        )
    return int(text)


def _list(store: Store, options: argparse.Namespace) -> int:
    found = store.runs(archived=None if options.archived else False)
    counts, pulse = store.step_counts(), PulseReader()
    rows = [
        {name: getattr(run, name) for name in LISTED}
        | {"status": pulse.status(run), "steps": counts.get(run.id, 0)}
        for run in found
    ]
    if options.json:
        why = [_why_missing(run) for run in found]
        print_json({"runs": [_explained(*each) for each in zip(rows, why, strict=True)]})
        return 0
    for row in rows:
        print(
            f"{row['id']}  {row['status']:<10} {row['outcome'] or '':<12} "
            f"{row['steps']:>7} steps  {row['workload'] or '':<11} {row['name']}"
        )
    if not rows:
        print("no runs yet; start one with: python -m trainer run --help")
    return 0


def _why_missing(run: RunInfo) -> dict[str, str]:
    """Say why fields of a run, or of its evaluations, are empty; for the rest nothing is known."""
    verdict = "the run has not ended" if run.status.alive else "the run ended without a verdict"
    gold = run.unmeasured.get("gold_reward_mean", "no gold reward is recorded")
    golds = ("gold", "gold_reward_first", "gold_reward_last", "gold_reward_final")
    return {
        "group": "the run belongs to no group",
        "outcome": verdict,
        "collapse_step": "the run did not collapse" if run.outcome else verdict,
        "error": "the run did not fail",
        **dict.fromkeys(golds, gold),
    }


def _explained(values: dict[str, Any], reasons: Mapping[str, str]) -> dict[str, Any]:
    """Return the values with a reason beside each that is None."""
    answer = dict(values)
    for name in [n for n, v in values.items() if v is None and not n.endswith("_reason")]:
        answer[f"{name}_reason"] = values.get(f"{name}_reason") or reasons.get(name, "not recorded")
    return answer


def _show(store: Store, options: argparse.Namespace) -> int:
    run = store.run(options.run)
    run = replace(run, status=PulseReader().status(run))
    steps = [_step(run, row) for row in store.steps(run.id, last=options.last)]
    if options.json:
        why = _why_missing(run)
        evaluations = [_explained(asdict(row), why) for row in store.evaluations(run.id)]
        shown = _explained(asdict(run), why)
        print_json({"run": shown, "steps": steps, "evaluations": evaluations})
        return 0
    for name, value in asdict(run).items():
        print(f"{name:<20} {_shown(value)}")
    for step in steps:
        print(f"\nstep {step['step']}")
        for name in METRIC_NAMES:
            reason = step.get(f"{name}_reason")
            print(f"  {name:<24} {_shown(step[name])}" + (f"  ({reason})" if reason else ""))
    return 0


def _step(run: RunInfo, row: StepMetrics) -> dict[str, Any]:
    shown = asdict(row)
    for name in list(shown):
        if reason := missing_reason(run, row, name):
            shown[f"{name}_reason"] = reason
    if None in (row.clipping_radii or {}).values():
        shown["clipping_radii_reason"] = "a radius is null until enough tokens are pooled for it"
    return shown


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)


def _check(store: Store, options: argparse.Namespace) -> int:
    found = inconsistencies(store)
    if options.json:
        print_json({"inconsistencies": found, "checked_at": time.time()})
    else:
        print("\n".join(found) or "no inconsistency found")
    return 1 if found else 0


def _migrate(options: argparse.Namespace) -> int:
    from .migrate import upgrade  # alembic is slow to import

    engine = unchecked_engine(options.db)
    try:
        before, after = upgrade(engine)
    except DBAPIError as error:
        shown = engine.url.render_as_string()
        raise ArchiveUnavailable(f"db: cannot migrate {shown}: {error.orig}") from error
    finally:
        engine.dispose()
    if options.json:
        print_json(_explained({"before": before, "after": after}, {"before": "empty"}))
    else:
        print(f"schema {before or 'none'} -> {after}")
    return 0


def _archive(store: Store, options: argparse.Namespace) -> int:
    store.update_run(options.run, archived=not options.undo)
    if options.json:
        print_json({"run_id": options.run, "archived": not options.undo})
    else:
        print(f"{options.run} is {'back in the lists' if options.undo else 'archived'}")
    return 0


_COMMANDS = {"list": _list, "show": _show, "check": _check, "archive": _archive}

if __name__ == "__main__":
    sys.exit(run_command(main, sys.argv[1:]))
