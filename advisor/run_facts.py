"""What one run contributes: its drift, displacement, clipping, and how it ended. Pure."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from trainer.config import TrainerConfig
from trainer.losses import LOSSES

from .logged import LoggedDrift

RECENT_STEPS = 50
LEAST_STEPS = 20
LOCAL_STEP_FACTOR = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFacts:
    """What one run contributes; every field that is None was not measured.

    ``steps`` is the number of learner steps taken, ``unsafe`` None while nothing is decided,
    ``drift_p95`` the 95th percentile of the within-cycle drift over the recent steps,
    ``displacement`` the largest ‖θ − θ_0‖ so far, ``displacement_at_onset`` the same when a
    collapse began and ``displacement_at_slide`` when the reward began to fall for good,
    ``largest_step`` the largest ‖Δθ‖ of a single early step, ``drift_law``
    (G_1, α) of D(k) = G_1·η·k^α, and ``clip_p95`` the 95th percentile of the active-clip fraction.
    ``radii`` are the newest clipping radii, ``weight_radii`` those of the importance weights.
    ``logged`` is what its batches tell of drift in the unit of clipping, which is all that the log
    of another trainer has; ``drift_p95`` is in that unit where none in parameter units is known.
    """

    run_id: str
    name: str
    config: TrainerConfig
    steps: int
    verdict: str | None
    unsafe: bool | None
    onset: int | None
    reward_start: float | None
    reward_final: float | None
    drift_p95: float | None
    displacement: float | None
    displacement_at_onset: float | None
    displacement_at_slide: float | None
    largest_step: float | None
    drift_law: tuple[float, float] | None
    clip_p95: float | None
    radii: Mapping[str, float | None]
    parameters: int | None = None
    weight_radii: Mapping[str, float | None] = field(default_factory=dict)
    logged: LoggedDrift | None = None


UNSAFE_VERDICTS = ("collapsed", "diverged", "damaged")
SAFE_VERDICTS = ("healthy", "finished")
SERIES = (
    "step",
    "learning_rate",
    "update_norm",
    "cycle_drift",
    "displacement",
    "clip_fraction_low",
    "clip_fraction_high",
)
"""The columns of a run that ``run_facts`` reads; of ``clipping_radii`` it takes the newest only."""


def run_facts(
    *,
    run_id: str,
    name: str,
    config: TrainerConfig,
    verdict: str | None,
    onset: int | None,
    slide: int | None,
    reward_start: float | None,
    reward_final: float | None,
    series: Mapping[str, Sequence[Any]],
    radii: Mapping[str, float | None],
    ended: bool,
    weight_radii: Mapping[str, float | None] | None = None,
    parameters: int | None = None,
    steps: int | None = None,
) -> RunFacts:
    """Summarise the stored steps of one run; ``steps`` is how many it has, if ``series`` has fewer.

    ``verdict`` counts as an outcome only when the run has ``ended``; a run that was stopped by
    hand before its end is evidence of drift and clipping but not of safety.
    """
    columns = {name: np.array(series[name], dtype=np.float64) for name in SERIES}  # None: NaN
    clipped = columns["clip_fraction_high"]
    if LOSSES[config.loss].clips_below:
        clipped = columns["clip_fraction_low"] + clipped
    displacement = columns["displacement"]
    known = np.isfinite(displacement)
    return RunFacts(
        run_id=run_id,
        name=name,
        config=config,
        steps=len(displacement) if steps is None else steps,
        verdict=verdict,
        unsafe=_is_unsafe(verdict, ended),
        onset=onset,
        reward_start=reward_start,
        reward_final=reward_final,
        drift_p95=_drift_p95(columns["cycle_drift"], config.max_staleness),
        displacement=float(displacement[known].max()) if known.any() else None,
        displacement_at_onset=_at(columns["step"], displacement, onset),
        displacement_at_slide=_at(columns["step"], displacement, slide),
        largest_step=_largest_step(columns, config),
        drift_law=drift_law(columns["step"], displacement, config),
        clip_p95=_percentile95(clipped),
        radii=radii,
        weight_radii=weight_radii or {},
        parameters=parameters,
    )


def _is_unsafe(verdict: str | None, ended: bool) -> bool | None:
    """Whether a verdict is an unsafe outcome; None when it is none, or the run has not ended."""
    if verdict in ("collapsed", "diverged"):
        return True
    if not ended or verdict not in (*UNSAFE_VERDICTS, *SAFE_VERDICTS):
        return None
    return verdict in UNSAFE_VERDICTS


def _percentile95(values: NDArray[np.float64]) -> float | None:
    known = values[np.isfinite(values)]
    return float(np.percentile(known, 95)) if known.size else None


def _drift_p95(drift: NDArray[np.float64], max_staleness: int) -> float | None:
    return _percentile95(drift[-max(RECENT_STEPS, 2 * (max_staleness + 1)) :])


def _at(
    step: NDArray[np.float64], displacement: NDArray[np.float64], onset: int | None
) -> float | None:
    """Largest displacement up to the version at which the collapse began."""
    if onset is None:
        return None
    before = displacement[(step < max(onset, 1)) & np.isfinite(displacement)]
    return float(before.max()) if before.size else None


def early_steps(config: TrainerConfig) -> int:
    """Steps in which warm-up and momentum are still filling up."""
    memory = LOCAL_STEP_FACTOR / (1 - config.adam_beta1)
    return config.warmup_steps + math.ceil(round(memory, 9))  # 2/(1 − 0.9) is a hair above 20


def _largest_step(
    columns: Mapping[str, NDArray[np.float64]], config: TrainerConfig
) -> float | None:
    early = slice(0, early_steps(config))
    sizes = columns["learning_rate"][early] * columns["update_norm"][early]
    sizes = sizes[np.isfinite(sizes)]
    return float(sizes.max()) if sizes.size else None


def drift_law(
    step: NDArray[np.float64], displacement: NDArray[np.float64], config: TrainerConfig
) -> tuple[float, float] | None:
    """Fit D(k) = G_1·η·k^α to the displacement after k learner steps, beyond warm-up and momentum.

    Least squares in logarithms; None with fewer than 20 usable steps. α is held in 0.1…1: faster
    than ballistic is a fit to noise, slower than that is a run that stands still.
    """
    k = step + 1
    use = (k > early_steps(config)) & np.isfinite(displacement) & (displacement > 0)
    if use.sum() < LEAST_STEPS:
        return None
    log_k, log_d = np.log(k[use]), np.log(displacement[use])
    slope = float(np.polyfit(log_k, log_d, 1)[0])
    alpha = min(1.0, max(0.1, slope))
    g_1 = math.exp(float(np.mean(log_d - alpha * log_k))) / config.learning_rate
    return g_1, alpha
