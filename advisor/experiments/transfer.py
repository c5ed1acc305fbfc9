"""Whether advice may be carried: a probe of a smaller setting is asked about a larger one.

Two moves are judged, each on cells that nothing was fitted on: a probe at half the horizon answers
for the whole of it, and a probe of the small model answers for one with four times the parameters.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from storage.store import Store

from ..advice import Advice, Question
from ..calibrated import advise
from ..measured import Measured
from ..safe_levels import safe_levels
from ..scores import Share, share
from ..transfers import RefusedTransfer
from ..truth import RateOutcome
from .cell_probes import run_probes
from .cell_runs import Progress, runs_at
from .cells import UNUSED_RATE, Cell
from .edges import rounded
from .validation import RUN_SEEDS

SEEDS = (300, 400)
"""Seeds of the probes; no other judgement uses them."""
RISKS = (0.02, 0.1)


@dataclass(frozen=True, slots=True)
class Move:
    """From the setting that is probed to the one that is asked about."""

    name: str
    words: str
    probed: Callable[[Cell], Cell]
    asked: Callable[[Cell], Cell]


def _with(**changes: Callable[[Cell], int]) -> Callable[[Cell], Cell]:
    def changed(cell: Cell) -> Cell:
        return replace(cell, setting={**cell.setting, **{k: f(cell) for k, f in changes.items()}})

    return changed


def _same(cell: Cell) -> Cell:
    return cell


def _steps(cell: Cell) -> int:
    return cell.config(UNUSED_RATE, 0).steps


def _hidden_size(cell: Cell) -> int:
    return cell.config(UNUSED_RATE, 0).hidden_size


MOVES = (
    Move(
        "horizon",
        "probed at T/2, asked about T",
        _with(steps=lambda cell: _steps(cell) // 2),
        _same,
    ),
    Move(
        "size",
        "probed as it is, asked about twice the width, four times the parameters",
        _same,
        _with(hidden_size=lambda cell: 2 * _hidden_size(cell)),
    ),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Carried:
    """What one probe advised for the larger setting, and how runs at that ended.

    ``refused`` says why it gave no advice; then ``advice`` and ``at_risk`` are empty.
    """

    move: Move
    cell: Cell
    probe_seed: int
    probe: Measured
    advice: Mapping[float, Advice]
    at_risk: Mapping[float, RateOutcome]
    refused: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the raw facts; a rate or outcome that is missing is null."""
        return {
            "move": self.move.name,
            "cell": self.cell.name,
            "probe_seed": self.probe_seed,
            "refused": self.refused,
            "at_risk": {
                str(risk): {
                    "max_learning_rate": advice.max_learning_rate,
                    "runs": asdict(self.at_risk[risk]) if risk in self.at_risk else None,
                }
                for risk, advice in self.advice.items()
            },
        }


def judge_transfer(
    store: Store, cells: Sequence[Cell], *, jobs: int | None, progress: Progress
) -> list[Carried]:
    """Probe the smaller setting of every cell and move, advise, and run what was advised.

    Raises:
        ProbeFailed: a probe ended without a calibration.
    """
    return [each for move in MOVES for each in _judge(store, move, cells, jobs, progress)]


def _judge(
    store: Store, move: Move, cells: Sequence[Cell], jobs: int | None, progress: Progress
) -> list[Carried]:
    small = [move.probed(cell) for cell in cells]
    probes = run_probes(store, small, jobs=jobs or 2, progress=progress, seeds=SEEDS)
    carried = [
        _carried(move, cell, seed, probes[cell.name, seed]) for cell in cells for seed in SEEDS
    ]
    wanted: dict[tuple[str, float], tuple[Cell, float]] = {}
    for each in carried:
        for advice in each.advice.values():
            if (rate := advice.max_learning_rate) is not None:
                wanted[each.cell.name, rounded(rate)] = move.asked(each.cell), rate
    outcomes = dict(
        zip(
            wanted,
            runs_at(
                store,
                list(wanted.values()),
                RUN_SEEDS,
                group=f"transfer-{move.name}",
                jobs=jobs,
                progress=progress,
            ),
            strict=True,
        )
    )
    return [
        replace(
            each,
            at_risk={
                risk: outcomes[each.cell.name, rounded(advice.max_learning_rate)]
                for risk, advice in each.advice.items()
                if advice.max_learning_rate is not None
            },
        )
        for each in carried
    ]


def _carried(move: Move, cell: Cell, seed: int, probe: Measured) -> Carried:
    setting = move.asked(cell).config(UNUSED_RATE, 0)
    levels = safe_levels()
    try:
        given = {r: advise(Question(setting=setting, risk=r), probe, levels) for r in RISKS}
        why = None
    except RefusedTransfer as error:
        given, why = {}, str(error)
    return Carried(
        move=move, cell=cell, probe_seed=seed, probe=probe, advice=given, at_risk={}, refused=why
    )


def false_safe(carried: Sequence[Carried], risk: float) -> Share:
    """Return how many runs at the rate advised for a risk were unsafe."""
    outcomes = [each.at_risk[risk] for each in carried if risk in each.at_risk]
    return share(sum(o.unsafe for o in outcomes), sum(o.runs for o in outcomes))


TITLE = """# May advice be carried?

A probe of a smaller setting is asked about a larger one, and runs are made at what it advised. The
cells are those of [validation.md](validation.md) that were held out: nothing was fitted on them.
Two probes each, seeds 300 and 400; three run seeds, 10, 11, 12. Written by

    python -m advisor validate --transfer --report docs/transfer.md

Target at risk 2 %: at most 10 % of the runs unsafe. Intervals are exact at 95 %. The rules and what
they assume stand at `transfer` in `advisor/limits.py`."""


def transfer_document(carried: Sequence[Carried]) -> str:
    """Return the report in Markdown."""
    parts = [TITLE]
    for move in MOVES:
        mine = [each for each in carried if each.move == move]
        parts += [f"## {move.name.capitalize()}: {move.words}", _summary(mine), _table(mine)]
    return "\n\n".join(parts) + "\n"


def _summary(carried: Sequence[Carried]) -> str:
    rows = ["| stated risk | unsafe runs | observed |", "|---|---|---|"]
    for risk in RISKS:
        seen = false_safe(carried, risk)
        words = f"{seen.k / seen.n:.1%} ({seen.low:.1%} … {seen.high:.1%})" if seen.n else "no run"
        rows.append(f"| {risk:.0%} | {seen.k} of {seen.n} | {words} |")
    refused = sorted({f"{each.cell.name}: {each.refused}" for each in carried if each.refused})
    words = "" if not refused else "\n\nRefused: " + "; ".join(refused) + "."
    return "\n".join(rows) + words


def _table(carried: Sequence[Carried]) -> str:
    rows = [
        "In brackets: unsafe of the runs at that rate.",
        "",
        "| cell | probe seed | binding | edge | " + " | ".join(f"{r:.0%}" for r in RISKS) + " |",
        "|---|---|---|---|" + "---|" * len(RISKS),
    ]
    for each in carried:
        if each.refused is not None:
            continue
        first = each.advice[RISKS[0]]
        edge = "-" if first.edge is None else f"{first.edge:.2g}"
        cells = [_at(each, risk) for risk in RISKS]
        words = f"| {each.cell.name} | {each.probe_seed} | {first.binding} | {edge} | "
        rows.append(words + " | ".join(cells) + " |")
    return "\n".join(rows)


def _at(each: Carried, risk: float) -> str:
    rate, outcome = each.advice[risk].max_learning_rate, each.at_risk.get(risk)
    if rate is None or outcome is None:
        return "-"
    return f"{rate:.2g} ({outcome.unsafe} of {outcome.runs})"
