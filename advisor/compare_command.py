"""``python -m advisor compare RUN RUN …``: what differs between runs, and how each ended."""

import argparse
import math
from collections.abc import Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import asdict
from typing import Any

from storage.commandline import A_RUN, BadInput, print_json, tell
from storage.errors import RunNotFound
from storage.liveness import PulseReader
from storage.records import RunInfo
from storage.store import Store
from storage.words import in_a_line

from .compare import OUTCOME_FIELDS, differing_configuration, outcome_rows, summary
from .glossary import label_of
from .wording import MISSING, number

METRICS = ("reward_mean", "gold_reward_mean", "approx_kl", "displacement", "sequence_ess_fraction")
WIDTH = 36


def add_compare_options(parser: argparse.ArgumentParser) -> None:
    """Add which runs."""
    parser.add_argument("runs", metavar="RUN", nargs="+", help=f"two or more; each: {A_RUN}")
    parser.add_argument("--baseline", metavar="RUN", help="run that the others are held against")


def run(options: argparse.Namespace) -> int:
    """Carry out ``compare`` and return its exit code.

    Raises:
        BadInput: fewer than two different runs, or a baseline that is none of them.
        RunNotFound: one is not in the archive.
    """
    with closing(Store.open(options.db, create=False)) as store:
        ids = list(dict.fromkeys(map(store.run_id_of, options.runs)))
        baseline = options.baseline
        if baseline is not None:
            with suppress(RunNotFound):
                baseline = store.run_id_of(baseline)
        _check(ids, baseline)
        runs = [store.run(run_id) for run_id in ids]
        summaries = {name: _summaries(store, runs, name) for name in METRICS}
    if options.json:
        print_json(_as_json(runs, summaries, baseline))
    else:
        tell(_text(runs, summaries, baseline))
    return 0


def _check(ids: Sequence[str], baseline: str | None) -> None:
    if len(ids) < 2:
        raise BadInput("run: two different runs are needed to compare; see python -m storage list")
    if baseline is not None and baseline not in ids:
        raise BadInput(f"baseline: {baseline!r} is not allowed; allowed: one of {', '.join(ids)}")


def _summaries(store: Store, runs: Sequence[RunInfo], name: str) -> dict[str, dict[str, Any]]:
    return {
        run.id: asdict(summary(store.series(run.id, ["step", name]), name, run.collapse_step))
        for run in runs
    }


def _as_json(
    runs: Sequence[RunInfo], summaries: Mapping[str, Any], baseline: str | None
) -> dict[str, Any]:
    names = sorted({name for run in runs for name in run.config})
    differing = [n for n in names if len({repr(run.config.get(n)) for run in runs}) > 1]
    return {
        "runs": [
            {
                "run_id": run.id,
                "name": run.name,
                "setting": {name: run.config.get(name, "unknown") for name in differing},
                **_outcome(run),
                "metrics": {
                    name: _plain(run, name, found[run.id], found.get(baseline or ""))
                    for name, found in summaries.items()
                },
            }
            for run in runs
        ],
        "baseline": baseline,
        **({} if baseline else {"baseline_reason": "none was named"}),
    }


def _outcome(run: RunInfo) -> dict[str, Any]:
    verdict = "the run has not ended" if run.status.alive else "the run ended without one"
    answer: dict[str, Any] = {}
    for name in OUTCOME_FIELDS:
        value = PulseReader().status(run) if name == "status" else getattr(run, name)
        finite = value is not None and not (isinstance(value, float) and not math.isfinite(value))
        answer[name] = value if finite else None
        if not finite:
            stayed = name in ("collapse_step", "slide_step") and run.outcome is not None
            why = verdict if value is None else f"computed {value}"
            answer[f"{name}_reason"] = "the run did not collapse" if stayed else why
    return answer


def _plain(
    run: RunInfo, name: str, found: Mapping[str, Any], pinned: Mapping[str, Any] | None
) -> dict[str, Any]:
    """Return a summary as JSON: no NaN, and beside each null why."""
    why = dict.fromkeys(found, run.unmeasured.get(name, "not measured"))
    if found["last"] is not None:
        why["best"] = "neither direction of this metric is good"
        why["at_collapse"] = "the run did not collapse"
    answer: dict[str, Any] = {}
    for key, value in found.items():
        finite = value is not None and math.isfinite(value)
        answer[key] = value if finite else None
        if not finite:
            answer[f"{key}_reason"] = why[key] if value is None else f"computed {value}"
        if pinned is not None:
            other = pinned[key]
            known = finite and other is not None and math.isfinite(other)
            answer[f"{key}_difference"] = value - other if known else None
            if not known:
                answer[f"{key}_difference_reason"] = "one of the two is not known"
    return answer


def _text(runs: Sequence[RunInfo], summaries: Mapping[str, Any], baseline: str | None) -> str:
    def line(title: str, cells: Sequence[Any]) -> str:
        row = f"{title[:WIDTH]:<{WIDTH}} " + " ".join(f"{cell!s:>24}" for cell in cells)
        return in_a_line(row)

    ids = [run.id for run in runs]
    lines = [line("", ids), line("name", [run.name[:24] for run in runs])]
    for row in differing_configuration(runs):
        lines.append(line(row["setting"], [row[run_id] for run_id in ids]))
    for row in outcome_rows(runs):
        lines.append(line(row["outcome"], [row[run_id] for run_id in ids]))
    for name, found in summaries.items():
        for key in ("best", "last", "at_collapse"):
            cells = [_cell(found, run_id, key, baseline) for run_id in ids]
            if set(cells) != {MISSING}:
                lines.append(line(f"{label_of(name)}, {key.replace('_', ' ')}", cells))
    return "\n".join(lines)


def _cell(
    found: Mapping[str, Mapping[str, Any]], run_id: str, key: str, baseline: str | None
) -> str:
    value = found[run_id][key]
    shown = number(value, ".4g")
    pinned = None if baseline in (None, run_id) else found[baseline or ""][key]
    if value is None or pinned is None or not math.isfinite(value - pinned):
        return shown
    return f"{shown} ({value - pinned:+.3g})"
