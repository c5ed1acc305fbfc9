"""``python -m advisor probe``: measure a setting, store the calibration, and say what it found."""

import argparse
import sys
from contextlib import closing
from dataclasses import asdict

from tqdm import tqdm

from storage.commandline import BadInput, print_json, tell
from storage.records import Calibration
from storage.store import Store
from storage.terminal import for_progress
from trainer.config import TrainerConfig, checked_config
from trainer.config_options import add_config_options

from ..measured import measured
from ..probed_constants import constants
from ..regime import Estimate, explained
from ..safe_levels import safe_levels
from ..wording import MISSING, NOT_PROBED, short, span
from .probe import BUDGET_PER_STEP, DEFAULT_BUDGET, check_budget, default_budget, probe

UNUSED_RATE = 1e-4


def add_probe_options(parser: argparse.ArgumentParser) -> None:
    """Add the setting, and how much may be spent on it."""
    parser.add_argument(
        "--budget",
        metavar="N",
        help=f"learner steps that may be spent ({DEFAULT_BUDGET}, or {BUDGET_PER_STEP} T if fewer)",
    )
    add_config_options(parser, skip=NOT_PROBED)


def run(options: argparse.Namespace) -> int:
    """Carry out ``probe`` and return its exit code."""
    names = [n for n in TrainerConfig.model_fields if n not in NOT_PROBED]
    given = {name: getattr(options, name) for name in names}
    setting = checked_config({**given, "learning_rate": UNUSED_RATE})
    budget = default_budget(setting) if options.budget is None else _budget(options.budget)
    check_budget(setting, budget)
    from trainer.preflight import check  # torch and transformers take seconds to import

    check(setting)
    with (
        closing(Store.open(options.db)) as store,
        tqdm(total=budget, unit="step", disable=None, file=for_progress()) as bar,
    ):

        def progress(words: str, done: int, _total: int) -> None:
            bar.set_description(words, refresh=False)
            bar.update(max(0, done - bar.n))

        try:
            found = probe(store, setting, budget=budget, progress=progress)
        except RuntimeError as error:
            tell(f"the probe failed: {error}", file=sys.stderr)
            return 1
    answer = explained(report(found))
    if options.json:
        print_json(answer)
    else:
        tell(_text(answer))
    return 0


def _budget(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= 1_000_000:
        raise BadInput(
            f"budget: {text!r} is not allowed; allowed: whole number, 1 <= budget <= 1000000"
        )
    return int(text)


def report(found: Calibration) -> dict[str, object]:
    """Return what ``probe --json`` prints."""
    return {
        "calibration_id": found.id,
        "learner_steps": found.learner_steps,
        "cost_steps": found.cost_steps,
        "seconds": found.seconds,
        **{n: asdict(value) for n, value in constants(measured(found), safe_levels()).items()},
        "run_ids": list(found.run_ids),
    }


def _text(answer: dict[str, object]) -> str:
    lines = [
        f"calibration {answer['calibration_id']}: {answer['learner_steps']} learner steps in "
        f"{answer['seconds']:.0f} s"
    ]
    for name, value in answer.items():
        if isinstance(value, dict):
            found = Estimate(**value)
            middle = MISSING if found.value is None else short(found.value)
            lines.append(f"{name:<12}{middle:>8}  {span(found):<20}  {found.reason or ''}".rstrip())
    lines.append(f"python -m advisor recommend --calibration {answer['calibration_id']} …")
    return "\n".join(lines)
