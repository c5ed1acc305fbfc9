"""The runs behind the three laws: which cells, how they are made, and what a law reads of them.

Every cell is an ordinary run of the archive, made by the same sweep as any other, so a study that
is interrupted goes on where it was.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from storage.records import BiasProbe, LagDrift, RunInfo
from storage.store import Store
from trainer.config import TrainerConfig, checked_config
from trainer.governing import GOVERNED
from trainer.losses import LOSSES

from ..collapse_laws import CLOCKS, Lifetime, Tried
from ..stored_facts import ENDED
from ..truth import UNSAFE

SERIES = (
    "step",
    "learning_rate",
    "path_length",
    "displacement",
    "kl_to_start",
    "clip_fraction_low",
    "clip_fraction_high",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Study:
    """Cells of one law: every rate with every staleness and seed of one setting.

    For the bias study ``stalenesses`` are the lags at which each run's last policy is measured; its
    runs themselves have fresh rollouts.
    """

    setting: Mapping[str, Any]
    learning_rates: tuple[float, ...]
    stalenesses: tuple[int, ...]
    seeds: tuple[int, ...] = (0, 1, 2)


STUDIES: dict[str, Study] = {
    "bias": Study(
        setting={"workload": "arithmetic", "steps": 64},
        learning_rates=(1e-4, 2e-4, 4e-4),
        stalenesses=(0, 1, 2, 4, 8, 16),
    ),
    "horizon": Study(
        setting={"workload": "preference", "steps": 1000, "kl_to_start_every": 5},
        learning_rates=(0.5e-4, 1e-4, 2e-4, 4e-4, 8e-4),
        stalenesses=(0, 3, 15),
        seeds=(3, 4, 5),  # the annotators' bias and noise were chosen on runs of seeds 0 to 2
    ),
    "boundary": Study(
        setting={"workload": "arithmetic", "steps": 600, "kl_to_start_every": 5},
        learning_rates=(2e-4, 2.8e-4, 4e-4, 5.6e-4, 8e-4, 1.1e-3, 1.6e-3, 2.3e-3),
        stalenesses=(0, 3, 15, 63),
    ),
}
"""Fixed before the runs that docs/laws.md judges."""


def default_group(kind: str) -> str:
    """Return the group of a study whose name was not given."""
    return f"laws-{kind}"


def cells(kind: str, study: Study) -> list[TrainerConfig]:
    """Return the configurations of a study's runs.

    Raises:
        BadInput: a setting is not allowed; one line per fault.
    """
    own: list[dict[str, Any]] = [{"max_staleness": s} for s in study.stalenesses]
    if kind == "bias":
        own = [{"max_staleness": 0, "bias_study": ",".join(map(str, study.stalenesses))}]
    return [
        checked_config({**study.setting, **each, "learning_rate": rate, "seed": seed})
        for rate, each, seed in product(study.learning_rates, own, study.seeds)
    ]


def run_study(
    store: Store,
    kind: str,
    study: Study,
    *,
    group: str,
    jobs: int | None,
    progress: Callable[[str, int, int], None],
) -> list[RunInfo]:
    """Make the runs of a study that are not in its group yet, and return all of them.

    ``progress(words, done, total)`` counts learner steps, or in the bias study measured lags.
    """
    from trainer.sweep import run_cells

    configs = cells(kind, study)
    lags = len(study.stalenesses) * len(configs)

    def measured(words: str, _done: int, _total: int) -> None:
        runs = store.runs(group=group, archived=False)
        probes = sum(len(store.bias_probes(run.id)) for run in runs)
        progress(words, probes // 4, lags)

    told = measured if kind == "bias" else progress
    return run_cells(store, configs, group=group, jobs=jobs, progress=told)


# -- what a law reads of the archive ----------------------------------------------------------


def runs_of(store: Store, group: str) -> list[RunInfo]:
    """Return the ended runs of a group that were not put away and tell their rate and S.

    What a governor kept is left out: its rate is not that of its configuration.
    """
    told = ("learning_rate", "max_staleness", "steps")
    return [
        run
        for run in store.runs(group=group, archived=False)
        if run.kind != GOVERNED
        and run.status in ENDED
        and all(isinstance(run.config.get(n), int | float) for n in told)
    ]


def probes_of(store: Store, runs: Sequence[RunInfo]) -> list[BiasProbe]:
    """Return what bias studies measured; what live runs streamed is left out."""
    studied = [run for run in runs if run.config.get("bias_study")]
    steps = {run.id: run.config["steps"] for run in studied}
    return [p for run in studied for p in store.bias_probes(run.id) if p.step == steps[p.run_id]]


def drifts_of(store: Store, runs: Sequence[RunInfo]) -> dict[float, list[list[LagDrift]]]:
    """Return the drift windows of runs that did not collapse, by learning rate."""
    found: dict[float, list[list[LagDrift]]] = {}
    for run in runs:
        if run.outcome not in UNSAFE:
            found.setdefault(float(run.config["learning_rate"]), []).append(store.drifts(run.id))
    return found


def tried_of(runs: Sequence[RunInfo], *, unsafe: bool) -> list[Tried]:
    """Return each run's rate, S and verdict: bad by collapse alone, or by anything ``unsafe``."""
    bad = UNSAFE if unsafe else ("collapsed", "diverged")
    return [
        Tried(
            learning_rate=float(run.config["learning_rate"]),
            max_staleness=int(run.config["max_staleness"]),
            seed=int(run.seed or 0),
            bad=run.outcome in bad,
        )
        for run in runs
        if run.outcome not in (None, "undetermined")
    ]


def lifetimes_of(store: Store, runs: Sequence[RunInfo]) -> list[Lifetime]:
    """Return how long each run lived, on every clock; one that diverged is censored there."""
    found = []
    for run in runs:
        series = store.series(run.id, SERIES)
        if series["step"]:
            found.append(lifetime(run, series))
    return found


def lifetime(run: RunInfo, series: Mapping[str, Sequence[Any]]) -> Lifetime:
    """Read a run's lifetime off its steps.

    The onset v is on the version clock, so clocks are read at the weights θ_v: after learner step
    v − 1. The displacement is its running maximum; √KL the newest measurement before v.
    """
    collapsed = run.outcome == "collapsed" and run.collapse_step is not None
    end = max(1, run.collapse_step or 0) if collapsed else len(series["step"])
    columns = {name: _floats(series[name]) for name in SERIES}
    curves = {
        "step": columns["step"] + 1,
        "rate_sum": np.cumsum(columns["learning_rate"]),
        "path_length": columns["path_length"],
        "displacement": np.fmax.accumulate(columns["displacement"]),
        "sqrt_kl": np.sqrt(np.maximum(columns["kl_to_start"], 0.0)),
    }
    clipped = columns["clip_fraction_high"][:end]
    if LOSSES[str(run.config.get("loss", "grpo"))].clips_below:
        clipped = clipped + columns["clip_fraction_low"][:end]
    known = clipped[np.isfinite(clipped)]
    return Lifetime(
        run_id=run.id,
        learning_rate=float(run.config["learning_rate"]),
        max_staleness=int(run.config["max_staleness"]),
        seed=int(run.seed or 0),
        collapsed=collapsed,
        step=end,
        clip_fraction=float(known.mean()) if known.size else None,
        clocks={clock: _newest(curves[clock], end) for clock in CLOCKS},
        slopes={clock: _slope(curves[clock], end) for clock in CLOCKS},
    )


def _floats(values: Sequence[Any]) -> NDArray[np.float64]:
    return np.array([math.nan if v is None else v for v in values], dtype=np.float64)


def _newest(curve: NDArray[np.float64], end: int) -> float | None:
    known = curve[:end][np.isfinite(curve[:end])]
    return float(known[-1]) if known.size else None


def _slope(curve: NDArray[np.float64], end: int) -> float | None:
    """Return d log curve / d log step by least squares over the second half before ``end``."""
    steps = np.arange(1, len(curve) + 1, dtype=np.float64)
    use = (steps <= end) & (steps >= max(1, end // 2)) & np.isfinite(curve) & (curve > 0)
    if use.sum() < 2:
        return None
    return float(np.polyfit(np.log(steps[use]), np.log(curve[use]), 1)[0])
