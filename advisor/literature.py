"""Published settings and how they ended: the evidence of last resort, never a calibration.

Reads its packaged table; the source of every row stands in it. Only the *form* of the law carries
over from one setting to another, so what is learned here is wide (theory.md §1).
"""

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from .learning_rate import Trial

TABLE = Path(__file__).parent / "data" / "published_runs.csv"
SAFE_OUTCOME = "stable"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedRun:
    """One published setting; fields the source does not state are None."""

    source: str
    model: str
    method: str
    correction: str
    learning_rate: float | None
    staleness: int
    clip_epsilon: float | None
    steps: int | None
    outcome: str

    @property
    def label(self) -> str:
        """The setting and its outcome in one line."""
        rate = "?" if self.learning_rate is None else f"{self.learning_rate:g}"
        where = f"{self.source}: {self.model}, {self.method} ({self.correction})"
        return f"{where}, η={rate}, S={self.staleness}: {self.outcome}"


def published_runs() -> list[PublishedRun]:
    """Read the packaged table."""
    with TABLE.open(encoding="utf-8", newline="") as file:
        return [_published(row) for row in csv.DictReader(file)]


def _published(row: dict[str, str]) -> PublishedRun:
    return PublishedRun(
        source=row["source"],
        model=row["model"],
        method=row["method"],
        correction=row["correction"],
        learning_rate=_number(row["learning_rate"]),
        staleness=int(row["staleness_updates"]),
        clip_epsilon=_number(row["clip_epsilon"]),
        steps=int(row["horizon_updates"]) if row["horizon_updates"] else None,
        outcome=row["outcome"],
    )


def _number(text: str) -> float | None:
    return float(text) if text else None


def literature_trials(runs: list[PublishedRun]) -> list[Trial]:
    """Return the published settings that state a learning rate, as evidence.

    ``degraded`` counts as unsafe: it learned less than the run it is compared with.
    """
    return [
        Trial(
            learning_rate=run.learning_rate,
            max_staleness=run.staleness,
            steps=run.steps,
            unsafe=run.outcome != SAFE_OUTCOME,
            label=run.label,
        )
        for run in runs
        if run.learning_rate is not None
    ]


def nearest(runs: list[PublishedRun], max_staleness: int, count: int = 3) -> list[PublishedRun]:
    """Return the published settings whose S + 1 is nearest on a logarithmic scale."""

    def distance(run: PublishedRun) -> float:
        return abs(math.log((run.staleness + 1) / (max_staleness + 1)))

    return sorted((r for r in runs if r.learning_rate is not None), key=distance)[:count]
