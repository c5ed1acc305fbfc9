"""``python -m advisor guard``: a run in this process, kept within bounds by the governor."""

import argparse
import sys
from contextlib import closing
from importlib import import_module

from storage.commandline import A_RUN, BadInput, print_json, tell
from storage.records import RunInfo, RunStatus
from storage.store import Store
from trainer.config import TrainerConfig, checked_config
from trainer.config_options import add_config_options, config_from_options
from trainer.launch import config_to_resume, reopen
from trainer.ray_cluster import ready_for
from trainer.run_command import check_start, ended, exit_code, result, sentence
from trainer.silence import end_elsewhere

from ..advice import checked_risk
from ..governed_bounds import words
from ..governor import Bounds, Governor
from .guard import create_guarded, found_bounds, kept_bounds

NOT_ASKED = ("ramp_from", "bias_study")
DEFAULT_RISK = 0.05


def add_guard_options(parser: argparse.ArgumentParser) -> None:
    """Add the run, the accepted risk, and the evidence."""
    parser.add_argument(
        "--risk", metavar="X", help=f"accepted P(unsafe); 0 < risk < 1 ({DEFAULT_RISK})"
    )
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--calibration", metavar="ID", help="take this probe alone as evidence")
    what.add_argument("--resume", metavar="RUN", help=f"let a guarded run go on: {A_RUN}")
    add_config_options(parser, skip=NOT_ASKED)


def run(options: argparse.Namespace) -> int:
    """Carry out ``guard`` and return its exit code."""
    if options.resume is not None:
        return _go_on(options)
    config = config_from_options(options)
    risk = checked_risk(DEFAULT_RISK if options.risk is None else options.risk)
    check_start(config)
    with ready_for(config), closing(Store.open(options.db)) as store:
        bounds, advice = found_bounds(store, config, risk, options.calibration)
        import_module("trainer.worker")  # for seconds: interrupted, it leaves no run
        run = create_guarded(store, config, bounds, risk, advice)
        return _carried_out(store, options, run, bounds)


def _go_on(options: argparse.Namespace) -> int:
    """Let a run go on as it was planned: for a longer horizon it would be held to other bounds."""
    own = ("risk", *TrainerConfig.model_fields)
    given = [name for name in own if getattr(options, name, None) is not None]
    if given:
        raise BadInput(*(f"{name}: not with --resume, where the run's own holds" for name in given))
    with closing(Store.open(options.db, create=False)) as store:
        options.resume = store.run_id_of(options.resume)
        config = config_to_resume(store, options.resume, governed=True)
        bounds = kept_bounds(store.run(options.resume).source)
        check_start(config)
        import_module("trainer.worker")
        with ready_for(config):
            end_elsewhere(store, options.resume)
            run = reopen(store, options.resume, RunStatus.RUNNING, governed=True)
            return _carried_out(store, options, run, bounds)


def _carried_out(store: Store, options: argparse.Namespace, run: RunInfo, bounds: Bounds) -> int:
    config = checked_config(run.config)
    tell(words(bounds, config), file=sys.stderr, flush=True)
    run = ended(store, run, Governor(config, bounds))
    acted = [event for event in store.events(run.id) if event.kind == "governor"]
    answer = {**result(store, run), "governor_events": len(acted)}
    if options.json:
        print_json(answer)
    else:
        for event in acted:
            tell(f"step {event.step}: {event.message}")
        tell(sentence(run))
    return exit_code(run.status)
