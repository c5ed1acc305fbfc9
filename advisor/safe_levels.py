"""How far a measured limit lies from where runs really fail: learned from outcomes, and packaged.

A probe is short, a run is long. What turns the one into a statement about the other are a few
numbers per limit: the ratio of the rate at which half of the runs are unsafe to what the probe
measured, and how much that ratio scatters between settings. ``validate --fit`` fits those of
rewards that can be checked to the tuning cells of ``data/cells.json``, and those of learned rewards
to archives of runs on twelve reward models (docs/validation.md). Neither to cells that judge.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

TABLE = Path(__file__).parent / "data" / "safe_levels.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """A positive number and its scatter between settings, as a standard deviation in logarithms."""

    value: float
    log_sd: float


@dataclass(frozen=True, slots=True, kw_only=True)
class SafeLevels:
    """The safe level of every limit.

    ``edge_over_crossing``: edge of runs over the rate at which holds stop gaining.
    ``edge_over_horizon``: edge of runs on a learned reward over the rate at which √KL after T steps
    is projected to reach its level.
    ``sqrt_kl``: √KL(θ_0‖θ) at which half of the runs on a learned reward are unsafe.
    ``best_over_edge``: rate that ends best over the edge, by what sets the edge: ``survival`` or
    ``horizon``. ``collapse_over_damage``: √KL at the onset of collapse over that level.
    """

    edge_over_crossing: Level
    edge_over_horizon: Level
    sqrt_kl: Level
    best_over_edge: Mapping[str, float]
    collapse_over_damage: float


def safe_levels(path: Path = TABLE) -> SafeLevels:
    """Read the packaged levels."""
    stored = json.loads(path.read_text(encoding="utf-8"))
    return SafeLevels(
        edge_over_crossing=Level(**stored["edge_over_crossing"]),
        edge_over_horizon=Level(**stored["edge_over_horizon"]),
        sqrt_kl=Level(**stored["sqrt_kl"]),
        best_over_edge=stored["best_over_edge"],
        collapse_over_damage=stored["collapse_over_damage"],
    )
