"""Which short runs to make in a trainer that is not Etalon's, so that their logs calibrate it.

Pure. Two stale runs at two rates show how drift and clipping grow with η, from which the rate
follows at which the clip takes hold (``logged.safe_rate``). A run with fresh rollouts at the higher
rate shows what two engines differ by at age 0, and whether single steps of that size already hurt.
Where the ages of a stack hardly vary within a run, one at a quarter of S shows how drift grows with
age.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from storage.words import counted
from trainer.config import TrainerConfig

from .advice import Question
from .literature import PublishedRun
from .recommendation import published_edge
from .wording import rate as written

LEAST_STEPS, CYCLES, SPARE_STEPS = 60, 2, 20
"""A run is two cycles of S + 1 and some steps of warm-up long, or 60 steps."""
OWN_FACTOR = 3.0
"""The second rate over a person's own: within 4, beyond which nothing is carried (theory.md §3)."""
LEAST_FACTOR, MOST_FACTOR = 2.0, 4.0
SHORTER_FROM, SHORTER_BY = 4, 4
INTERVAL_LOW = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """One run to make: its rate, S and T in learner steps, and what it is for."""

    name: str
    learning_rate: float
    max_staleness: int
    steps: int
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The runs, and where their rates come from."""

    runs: tuple[PlannedRun, ...]
    rates_from: str

    @property
    def learner_steps(self) -> int:
        """What all runs cost together."""
        return sum(run.steps for run in self.runs)


def plan(
    setting: TrainerConfig,
    *,
    own_rate: float | None,
    ages_vary: bool,
    published: Sequence[PublishedRun],
) -> Plan:
    """Return the two to four runs that calibrate a setting.

    Args:
        setting: S, T and the clip range that will be asked about; its learning rate is ignored.
        own_rate: the rate a person would take, > 0; None takes the published bracket at S and T.
        ages_vary: whether one run of the stack holds every age from 0 to S.
        published: the packaged table.
    """
    low, high, rates_from = _rates(setting, own_rate, published)
    staleness = setting.max_staleness
    steps = run_steps(setting, staleness)
    gentle = "at the gentler rate" if staleness else "gentler of two rates with fresh rollouts"
    runs = [
        _run("gentle", low, staleness, steps, f"{gentle}: drift and clip fraction per unit of η"),
        _run(
            "hard",
            high,
            staleness,
            steps,
            "at the higher rate: how both grow with η, hence the rate at which the clip takes hold",
        ),
    ]
    if staleness:
        runs.append(
            _run(
                "fresh",
                high,
                0,
                run_steps(setting, 0),
                "fresh rollouts at the higher rate: the engines' own difference at age 0, and "
                "whether single steps of this size hurt without staleness",
            )
        )
    if staleness >= SHORTER_FROM and not ages_vary:
        shorter = staleness // SHORTER_BY
        runs.append(
            _run(
                "less_stale",
                high,
                shorter,
                run_steps(setting, shorter),
                "a quarter of the staleness: how drift grows with age, α",
            )
        )
    return Plan(runs=tuple(runs), rates_from=rates_from)


def run_steps(setting: TrainerConfig, max_staleness: int) -> int:
    """Return the length of a run in learner steps: long enough to see each age twice."""
    return min(setting.steps, max(LEAST_STEPS, CYCLES * (max_staleness + 1) + SPARE_STEPS))


def _run(name: str, rate: float, max_staleness: int, steps: int, why: str) -> PlannedRun:
    rounded = float(f"{rate:.2g}")
    return PlannedRun(
        name=name, learning_rate=rounded, max_staleness=max_staleness, steps=steps, why=why
    )


def _rates(
    setting: TrainerConfig, own_rate: float | None, published: Sequence[PublishedRun]
) -> tuple[float, float, str]:
    """Return a gentle and a hard rate, and what they rest on."""
    if own_rate is not None:
        return own_rate, OWN_FACTOR * own_rate, f"your own {written(own_rate)}, and three times it"
    edge = published_edge(Question(setting=setting, risk=INTERVAL_LOW), published)
    low, high = edge.quantile(INTERVAL_LOW), edge.rate_at(0.5)
    factor = min(MOST_FACTOR, max(LEAST_FACTOR, high / low))
    middle = math.sqrt(low * high)
    where = f"S = {setting.max_staleness} over {counted(setting.steps, 'step')}"
    return (
        middle / math.sqrt(factor),
        middle * math.sqrt(factor),
        f"published settings, whose edge lies near {written(high)}, with 95 % above "
        f"{written(low)}, at {where}; they are of other models, so give your own --learning-rate "
        "if you have one",
    )
