"""``python -m advisor validate``: try the advice on cells and write down how it went."""

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from tqdm import tqdm

from storage.commandline import BadInput, print_json, tell
from storage.store import Store
from storage.terminal import for_progress

from .cell_probes import ProbeFailed
from .cells import SPLITS, TUNING, Cell, read_cells
from .fitting import fit
from .followed import Evidence, evidence
from .transfer import judge_transfer, transfer_document
from .validation import judge
from .validation_document import document

MOST_JOBS = 1024


def add_validation_options(parser: argparse.ArgumentParser) -> None:
    """Add which cells, and where the report goes."""
    parser.add_argument("--cells", metavar="FILE", help="JSON list of settings (default: bundled)")
    parser.add_argument(
        "--split", choices=SPLITS, default=SPLITS[1], help=f"which of them ({SPLITS[1]})"
    )
    parser.add_argument("--report", metavar="FILE", help="write a report in Markdown here")
    parser.add_argument(
        "--fit", metavar="FILE", help="write safe levels fitted to these cells, instead of judging"
    )
    parser.add_argument(
        "--learned-rewards",
        metavar="DB",
        action="append",
        default=[],
        help="fit: an archive whose runs on learned rewards set their levels, instead of the cells "
        "with one; it must hold none that judges them; may be given again",
    )
    parser.add_argument(
        "--transfer",
        action="store_true",
        help="judge advice that is carried to twice the horizon or four times the parameters",
    )
    parser.add_argument("--jobs", metavar="N", help="runs at a time (default: fill the cores)")


def run(options: argparse.Namespace) -> int:
    """Carry out ``validate`` and return its exit code."""
    chosen = _cells(options)
    if options.fit is not None and options.split != TUNING:
        raise BadInput("fit: not allowed on cells that judge; allowed: with --split tuning")
    if options.fit is not None and options.transfer:
        raise BadInput("transfer: not allowed together with --fit; allowed: one of them")
    if options.learned_rewards and options.fit is None:
        raise BadInput("learned-rewards: not allowed without --fit")
    jobs = _jobs(options.jobs)
    others = [_evidence_of(db) for db in options.learned_rewards]
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # ends like an interrupt
    with (
        closing(Store.open(options.db)) as store,
        tqdm(total=1, unit="step", disable=None, file=for_progress()) as bar,
    ):

        def progress(words: str, done: int, total: int) -> None:
            bar.total = total
            bar.set_description(words, refresh=False)
            bar.update(done - bar.n)

        try:
            if options.fit is not None:
                levels = fit(store, chosen, others, jobs=jobs, progress=progress)
                words = json.dumps(levels, indent=2) + "\n"
                Path(options.fit).write_text(words, encoding="utf-8")
                tell(words, end="")
                return 0
            if options.transfer:
                carried = judge_transfer(store, chosen, jobs=jobs, progress=progress)
                words = transfer_document(carried)
                facts = {"transfer": [each.as_json() for each in carried]}
            else:
                found = judge(store, chosen, split=options.split, jobs=jobs, progress=progress)
                words, facts = document(found), found.as_json()
        except ProbeFailed as error:
            tell(error, file=sys.stderr)
            return 1
    if options.report is not None:
        Path(options.report).write_text(words, encoding="utf-8")
    if options.json:
        print_json(json.loads(json.dumps(facts)))
    else:
        tell(words)
    return 0


def _evidence_of(db: str) -> Evidence:
    with closing(Store.open(db, create=False)) as store:
        return evidence(store)


def _cells(options: argparse.Namespace) -> Sequence[Cell]:
    cells = read_cells(None if options.cells is None else Path(options.cells))
    chosen = [cell for cell in cells if cell.split == options.split]
    if not chosen:
        raise BadInput(f"cells: none of the {len(cells)} cells is of the split {options.split!r}")
    return chosen


def _jobs(text: str | None) -> int | None:
    if text is None:
        return None
    if not text.isdecimal() or not 1 <= int(text) <= MOST_JOBS:
        raise BadInput(
            f"jobs: {text!r} is not allowed; allowed: whole number, 1 <= jobs <= {MOST_JOBS}"
        )
    return int(text)
