"""``python -m storage list|show``: what the archive holds, and why a value is missing."""

import argparse
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

from .commandline import BadInput, print_json, tell
from .liveness import PulseReader
from .records import METRIC_NAMES, RunInfo, StepMetrics, missing_reason
from .store import Store
from .words import counted, in_a_line, moment

MOST_STEPS = 1_000_000
TIMES = ("created_at", "started_at", "ended_at", "heartbeat_at", "pid_started")
OF_LINES = ("error", "notes")
LISTED = ("id", "name", "kind", "status", "workload", "group", "seed", "archived", "outcome")


def count(text: str) -> int:
    """Read how many steps to show.

    Raises:
        BadInput: it is no whole number, or too large.
    """
    if not text.isdecimal() or int(text) > MOST_STEPS:
        raise BadInput(
            f"last: {text!r} is not allowed; allowed: whole number, 0 <= last <= {MOST_STEPS}"
        )
    return int(text)


def list_runs(store: Store, options: argparse.Namespace) -> int:
    """Print the runs, newest first."""
    found = store.runs(archived=None if options.archived else False)
    counts, pulse = store.step_counts(), PulseReader()
    rows = [
        {name: getattr(run, name) for name in LISTED}
        | {"status": pulse.status(run), "steps": counts.get(run.id, 0)}
        for run in found
    ]
    if options.json:
        why = [_why_missing(run) for run in found]
        print_json({"runs": [explained(*each) for each in zip(rows, why, strict=True)]})
        return 0
    for row in rows:
        words = (
            f"{row['id']}  {row['status']:<10} {row['outcome'] or '':<12} "
            f"{counted(row['steps'], 'step'):>13}  {row['workload'] or '':<11} {row['name']}"
        )
        tell(in_a_line(words))
    if not rows:
        tell("no runs yet; start one with: python -m trainer run --help")
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


def explained(values: dict[str, Any], reasons: Mapping[str, str]) -> dict[str, Any]:
    """Return the values with a reason beside each that is None."""
    answer = dict(values)
    for name in [n for n, v in values.items() if v is None and not n.endswith("_reason")]:
        answer[f"{name}_reason"] = values.get(f"{name}_reason") or reasons.get(name, "not recorded")
    return answer


def show_run(store: Store, options: argparse.Namespace) -> int:
    """Print one run with its newest steps."""
    run = store.run(options.run)
    run = replace(run, status=PulseReader().status(run))
    steps = [_step(run, row) for row in store.steps(run.id, last=options.last)]
    if options.json:
        why = _why_missing(run)
        evaluations = [explained(asdict(row), why) for row in store.evaluations(run.id)]
        shown = explained(asdict(run), why)
        tags = store.tags().get(run.id, ())
        print_json({"run": shown, "steps": steps, "evaluations": evaluations, "tags": tags})
        return 0
    for name, value in asdict(run).items():
        tell(f"{name:<20} {_told(name, value)}")
    for step in steps:
        tell(f"\nstep {step['step']}")
        for name in METRIC_NAMES:
            reason = step.get(f"{name}_reason")
            tell(f"  {name:<24} {_shown(step[name])}" + (f"  ({reason})" if reason else ""))
    return 0


def _step(run: RunInfo, row: StepMetrics) -> dict[str, Any]:
    shown = asdict(row)
    for name in list(shown):
        if reason := missing_reason(run, row, name):
            shown[f"{name}_reason"] = reason
    if None in (row.clipping_radii or {}).values():
        shown["clipping_radii_reason"] = "a radius is null until enough tokens are pooled for it"
    return shown


def _told(name: str, value: Any) -> str:
    """Write a field of a run: a time as one, of a mapping one line for each entry."""
    if name in TIMES and value is not None:
        return moment(value)
    if isinstance(value, Mapping):
        lines = (in_a_line(f"{key:<24} {_shown(each)}") for key, each in value.items())
        return "".join(f"\n  {line}" for line in lines) or "-"
    return _shown(value) if name in OF_LINES else in_a_line(_shown(value))


def _shown(value: Any) -> str:
    return "-" if value is None else str(value)
