"""``python -m advisor guard``: a run in this process, kept within bounds by the governor."""

import argparse
import contextlib
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from importlib import import_module
from typing import Any

from storage.commandline import BadInput, print_json
from storage.errors import RunNotFound
from storage.records import RunInfo, RunStatus
from storage.store import Store
from trainer.config import TrainerConfig, add_config_options, checked_config, config_from_options
from trainer.foreground import check_start, ended, exit_code, result
from trainer.governing import GOVERNED
from trainer.launch import config_to_resume, create_run, reopen
from trainer.ray_cluster import ready_for

from ..answer import ask, calibration_of, consider, fitting_calibration, gather, keep
from ..calibrated import Measured
from ..calibration import RunFacts
from ..governed_bounds import as_json, bounds_of, from_json, words
from ..governor import Bounds, Governor
from ..recommendation import Advice
from ..safe_levels import safe_levels

NOT_ASKED = ("ramp_from", "bias_study")
DEFAULT_RISK = 0.05
WEIGHTS_PER_LAYER = 12
"""Of a transformer, per hidden_size²: attention 4, feed-forward 8. Enough to tell a tiny model."""


def add_guard_options(parser: argparse.ArgumentParser) -> None:
    """Add the run, the accepted risk, and the evidence."""
    parser.add_argument(
        "--risk", metavar="X", help=f"accepted P(unsafe); 0 < risk < 1 ({DEFAULT_RISK})"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--calibration", metavar="ID", help="take this probe alone as evidence")
    what.add_argument("--resume", metavar="RUN", help="let a guarded run go on")
    add_config_options(parser, skip=NOT_ASKED)


def run(options: argparse.Namespace) -> int:
    """Carry out ``guard`` and return its exit code."""
    if options.resume is not None:
        return _go_on(options)
    config = config_from_options(options)
    risk = _risk(options.risk)
    ask(settings=config.model_dump(), evidence=[], risk=risk)  # checked before anything is made
    check_start(config)
    with ready_for(config), closing(Store.open(options.db)) as store:
        bounds, advice = found_bounds(store, config, risk, options.calibration)
        import_module("trainer.worker")  # for seconds: interrupted, it leaves no run
        run = create_guarded(store, config, bounds, risk, advice)
        return _carried_out(store, options, run, bounds)


def _go_on(options: argparse.Namespace) -> int:
    given = [n for n in ("learning_rate", "max_staleness", "risk") if getattr(options, n)]
    if given:
        raise BadInput(f"{given[0]}: not with --resume, where the run's own holds")
    with closing(Store.open(options.db, create=False)) as store:
        config = config_to_resume(store, options.resume, options.steps, governed=True)
        bounds = _kept_bounds(store.run(options.resume).source)
        check_start(config)
        import_module("trainer.worker")
        with ready_for(config):
            run = reopen(store, options.resume, RunStatus.RUNNING, options.steps, governed=True)
            return _carried_out(store, options, run, bounds)


def found_bounds(
    store: Store,
    config: TrainerConfig,
    risk: float,
    calibration_id: str | None = None,
    *,
    alone: bool = False,
) -> tuple[Bounds, Advice]:
    """Return what the archive knows of the limits of a run, and the advice it comes from.

    Args:
        store: the archive.
        config: the run; its learning rate does not matter.
        risk: accepted P(unsafe within T).
        calibration_id: the probe to ask; None for what ``recommend`` would take.
        alone: take nothing from the archive, but what the run itself will show.

    Raises:
        CalibrationNotFound: the named probe is not in the archive.
        BadInput: it says nothing about this setting, or no rate is safe by what is known.
    """
    found = None if calibration_id is None else calibration_of(store, calibration_id)
    evidence = gather(store) if found is None and not alone else []
    settings = config.model_dump()
    question = ask(settings=settings, evidence=[], risk=risk)
    if found is None and not alone:
        found = fitting_calibration(store, question.setting)
    advice = consider(question, evidence, found)
    if advice.calibrated and advice.max_learning_rate is None:
        raise BadInput(f"learning_rate: no rate is safe for a governor to hold: {advice.reason}")
    parameters = _parameters(store, config, evidence, found)
    return bounds_of(question, advice, evidence, found, safe_levels(), parameters), advice


def _parameters(
    store: Store, config: TrainerConfig, evidence: Sequence[RunFacts], found: Measured | None
) -> int | None:
    """Return the size of the model, about; None where only loading it would tell."""
    if found is not None:
        with contextlib.suppress(RunNotFound):  # its segments may be deleted
            return store.run(found.calibration.run_ids[0]).parameters
    known = next((run.parameters for run in evidence if run.parameters is not None), None)
    if known is None and config.model is None:
        return config.layers * WEIGHTS_PER_LAYER * config.hidden_size**2
    return known


def create_guarded(
    store: Store, config: TrainerConfig, bounds: Bounds, risk: float, advice: Advice
) -> RunInfo:
    """Add a guarded run that this process is about to carry out, with what it is held to."""
    question = ask(settings=config.model_dump(), evidence=[], risk=risk)
    return create_run(
        store,
        config,
        kind=GOVERNED,
        source={"governor": {"risk": risk, "bounds": as_json(bounds)}},
        recommendation_id=keep(store, question, advice),
    )


def _carried_out(store: Store, options: argparse.Namespace, run: RunInfo, bounds: Bounds) -> int:
    config = checked_config(run.config)
    print(words(bounds, config), file=sys.stderr, flush=True)
    run = ended(store, run, Governor(config, bounds))
    acted = [event for event in store.events(run.id) if event.kind == "governor"]
    answer = {**result(store, run), "governor_events": len(acted)}
    if options.json:
        print_json(answer)
    else:
        for event in acted:
            print(f"step {event.step}: {event.message}")
        print(f"{run.id} {run.status}: {run.outcome or 'no verdict'} ({run.outcome_reason or '-'})")
    return exit_code(run.status)


def _kept_bounds(source: Mapping[str, Any]) -> Bounds:
    try:
        return from_json(source["governor"]["bounds"])
    except (KeyError, TypeError, ValueError):
        raise BadInput("resume: another version wrote what the run is held to") from None


def _risk(text: str | None) -> float:
    try:
        return DEFAULT_RISK if text is None else float(text)
    except ValueError:
        raise BadInput(f"risk: {text!r} is not allowed; allowed: 0 < risk < 1") from None
