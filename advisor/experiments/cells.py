"""The cells that advice is judged on: settings, each for tuning or held out.

Which cells are for tuning and which are never looked at stands in the cells file.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from storage.commandline import BadInput
from trainer.config import TrainerConfig, checked_config

CELLS = Path(__file__).parent.parent / "data" / "cells.json"
TRUTH_SEEDS = (0, 1, 2)
UNUSED_RATE = 1e-4
TUNING = "tuning"
SPLITS = (TUNING, "held out")


@dataclass(frozen=True, slots=True, kw_only=True)
class Cell:
    """One setting to be judged on, its learning rate left open."""

    name: str
    split: str
    setting: Mapping[str, Any]
    seeds: tuple[int, ...] = TRUTH_SEEDS

    def config(self, learning_rate: float, seed: int) -> TrainerConfig:
        """Return the run of this cell at a rate and a seed."""
        return checked_config({**self.setting, "learning_rate": learning_rate, "seed": seed})


def read_cells(path: Path | None = None) -> list[Cell]:
    """Read a JSON list of settings, each with a name if wanted, a split, and seeds.

    ``seeds`` is a count or a list; a cell without a split counts as held out.

    Raises:
        BadInput: the file cannot be read, or a cell is not allowed; one line per fault.
    """
    where = path or CELLS
    try:
        rows = json.loads(where.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise BadInput(f"cells: {where} cannot be read: {error}; a JSON list is wanted") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(row, dict) for row in rows):
        raise BadInput(
            f"cells: {where} holds no list of settings; a JSON list of objects is wanted"
        )
    cells, faults = [], []
    for number, row in enumerate(rows):
        name = str(row.get("name", f"cell-{number + 1}"))
        try:
            cells.append(_cell(name, dict(row)))
        except BadInput as error:
            faults += [f"cells: {name}: {line}" for line in str(error).splitlines()]
    names = [cell.name for cell in cells]
    faults += [f"cells: {n}: this name is there twice" for n in {*names} if names.count(n) > 1]
    if faults:
        raise BadInput(*faults)
    return cells


def _cell(name: str, row: dict[str, Any]) -> Cell:
    row.pop("name", None)
    split, seeds = row.pop("split", SPLITS[1]), row.pop("seeds", len(TRUTH_SEEDS))
    if split not in SPLITS:
        raise BadInput(f"split: {split!r} is not allowed; allowed: {' | '.join(SPLITS)}")
    if isinstance(seeds, int) and not isinstance(seeds, bool) and 1 <= seeds <= 100:
        seeds = list(range(seeds))
    if not isinstance(seeds, list) or not seeds or not all(type(s) is int for s in seeds):
        raise BadInput(f"seeds: {seeds!r} is not allowed; allowed: 1…100, or a list of seeds")
    for free in ("learning_rate", "seed"):
        if free in row:
            raise BadInput(f"{free}: {row[free]!r} is not allowed; it is what is searched for")
    if len(set(map(str, seeds))) < len(seeds):
        raise BadInput(f"seeds: {seeds!r} is not allowed; allowed: each seed once")
    cell = Cell(name=name, split=split, setting=row, seeds=tuple(seeds))
    for seed in seeds:
        cell.config(UNUSED_RATE, seed)
    return cell
