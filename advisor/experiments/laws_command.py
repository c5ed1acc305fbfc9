"""``python -m advisor laws``: make the runs of a study if asked, then read the laws off them."""

import argparse
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, is_dataclass, replace
from typing import Any

from tqdm import tqdm

from storage.commandline import BadInput, print_json, tell
from storage.records import RunInfo
from storage.store import Store
from storage.terminal import for_progress
from trainer.config import TrainerConfig
from trainer.config_options import add_config_options

from ..collapse_laws import ClockFit
from ..laws import bias_law, boundary_law, drift_by_rate, horizon_law
from ..regime import Estimate
from .study import (
    STUDIES,
    Study,
    cells,
    default_group,
    drifts_of,
    lifetimes_of,
    probes_of,
    run_study,
    runs_of,
    tried_of,
)

KINDS = tuple(STUDIES)
OWN = ("learning_rate", "max_staleness", "seed", "name", "group", "bias_study")
MOST_SEEDS = 10_000


def add_laws_options(parser: argparse.ArgumentParser) -> None:
    """Add what a study is made of; everything has a default, fixed beforehand."""
    parser.add_argument("--study", choices=KINDS, help="make the runs of this law first")
    parser.add_argument("--group", metavar="G", help="group of the archive (laws-KIND)")
    parser.add_argument("--learning-rates", metavar="F,F,…", help="of the study's runs")
    parser.add_argument(
        "--stalenesses", metavar="N,N,…", help="S of the runs; in the bias study, lags to measure"
    )
    parser.add_argument("--seeds", metavar="N", help="seeds of every cell (3)")
    parser.add_argument("--jobs", metavar="N", help="runs at a time (default: fill the cores)")
    add_config_options(parser, skip=OWN)


def run(options: argparse.Namespace) -> int:
    """Carry out ``laws`` and return its exit code."""
    study, jobs = None, None
    if options.study is not None:
        study = _study(options)
        jobs = None if options.jobs is None else _whole("jobs", options.jobs)
        cells(options.study, study)  # what is at fault is told before anything is made
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like an interrupt
    with closing(Store.open(options.db, create=options.db is None or study is not None)) as store:
        if study is not None:
            _make(store, options, study, jobs)
        answer = laws(store, group=options.group)
    if options.json:
        print_json({kind: plain(law) for kind, law in answer.items()})
    else:
        tell("\n".join(f"{kind}\n{_text(law)}" for kind, law in answer.items()))
    return 0


def laws(store: Store, *, group: str | None = None) -> dict[str, dict[str, Any]]:
    """Return the three laws on their groups of an archive, or all on one named group."""
    runs = {kind: runs_of(store, group or default_group(kind)) for kind in KINDS}
    return {
        "bias": bias_law(probes_of(store, runs["bias"]), {r.id: r.seed for r in runs["bias"]}),
        "horizon": horizon_law(lifetimes_of(store, runs["horizon"])),
        "horizon_of_boundary_runs": horizon_law(lifetimes_of(store, runs["boundary"]), "boundary"),
        "boundary": boundary_law(
            tried_of(runs["boundary"], unsafe=False), tried_of(runs["boundary"], unsafe=True)
        ),
        "drift": drift_by_rate(drifts_of(store, runs["boundary"]), _beta1(runs["boundary"])),
    }


def _beta1(runs: Sequence[RunInfo]) -> float:
    return max((float(run.config.get("adam_beta1", 0)) for run in runs), default=0.0)


def _make(store: Store, options: argparse.Namespace, study: Study, jobs: int | None) -> None:
    kind = options.study
    unit = "lag" if kind == "bias" else "step"
    with tqdm(total=1, unit=unit, disable=None, file=for_progress()) as bar:

        def progress(words: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_description(words, refresh=False)
            bar.update(done - bar.n)

        group = options.group or default_group(kind)
        made = run_study(store, kind, study, group=group, jobs=jobs, progress=progress)
    lost = [run for run in made if run.status == "failed"]
    for each in lost:
        tell(f"run {each.id} failed: {each.outcome_reason}", file=sys.stderr)


def _study(options: argparse.Namespace) -> Study:
    """Return the study of a law with what was given in place of its defaults."""
    study = STUDIES[options.study]
    names = [name for name in TrainerConfig.model_fields if name not in OWN]
    given = {n: v for n in names if (v := getattr(options, n, None)) is not None}
    changes: dict[str, Any] = {"setting": {**study.setting, **given}}
    if options.learning_rates is not None:
        changes["learning_rates"] = tuple(_numbers("learning_rates", options.learning_rates, float))
    if options.stalenesses is not None:
        changes["stalenesses"] = tuple(_numbers("stalenesses", options.stalenesses, int))
    if options.seeds is not None:
        changes["seeds"] = tuple(range(_whole("seeds", options.seeds)))
    return replace(study, **changes)


def _numbers(name: str, text: str, kind: type) -> list[Any]:
    try:
        return [kind(word) for word in text.split(",")]
    except ValueError:
        what = "whole numbers" if kind is int else "numbers"
        raise BadInput(
            f"{name}: {text!r} is not allowed; allowed: {what}, commas between"
        ) from None


def _whole(name: str, text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_SEEDS:
        raise BadInput(
            f"{name}: {text!r} is not allowed; allowed: whole number, 1 <= {name} <= {MOST_SEEDS}"
        )
    return int(text)


def plain(value: Any) -> Any:
    """Return a law as JSON-ready values; what is None in an estimate gets its reason beside it."""
    if is_dataclass(value) and not isinstance(value, type):
        return plain(asdict(value))
    if isinstance(value, Mapping):
        found = {str(key): plain(item) for key, item in value.items()}
        if "is_bound" in found and found["value"] is None:
            found["value_reason"] = found["reason"] or "only a bound is known"
        return found
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    return value


def _text(law: Mapping[str, Any], indent: str = "  ") -> str:
    lines = []
    for name, value in law.items():
        if isinstance(value, Estimate):
            lines.append(f"{indent}{name:<36} {spelled(value)}")
        elif isinstance(value, Mapping):
            lines.append(f"{indent}{name}\n{_text(value, indent + '  ')}")
        elif isinstance(value, list):
            lines += [f"{indent}{name}", *(_clock(each, indent + "  ") for each in value)]
        else:
            lines.append(f"{indent}{name:<36} {value}")
    return "\n".join(lines)


def _clock(fit: ClockFit, indent: str) -> str:
    likelihood = "not known" if fit.held_out is None else f"{fit.held_out:.3f}"
    return f"{indent}{fit.clock:<14} log-sd {spelled(fit.log_sd)}; held-out {likelihood}"


def spelled(estimate: Estimate) -> str:
    """Write an estimate as value, interval and reason."""
    if estimate.value is None and estimate.low is None and estimate.high is None:
        return f"not known: {estimate.reason}"
    ends = ["?" if end is None else f"{end:.3g}" for end in (estimate.low, estimate.high)]
    value = "bound" if estimate.value is None else f"{estimate.value:.3g}"
    interval = "" if ends == ["?", "?"] else f" ({ends[0]} … {ends[1]})"
    return f"{value}{interval}; {estimate.reason}"
