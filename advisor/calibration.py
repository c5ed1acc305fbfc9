"""From the facts of runs to the constants of the decision model: R_batch, R_crit, R_slide, R_step.

Pure. A first form: constants come from runs of the *same setting* only, the clip criterion is
bracketed by the literature unless healthy runs of that setting narrow it, and every constant is an
interval or a bound (theory.md §4).
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.special import stdtrit

from storage.words import counted
from trainer.losses import LOSSES

from .regime import Estimate, unknown
from .run_facts import RunFacts, early_steps

HEALTHY_CLIP_FRACTION = 0.0005
"""Active-clip fractions of 0.05–0.07 % are published as healthy (theory.md §4)."""
DEGRADED_CLIP_FRACTION = 0.01
"""0.66–1.22 % are published as degraded, for models of 0.6 B parameters and more."""
TOLERATED_BY_TINY_MODELS = 0.1
"""Tiny models tolerate several percent, so their bracket ends only here."""
TINY_MODEL_PARAMETERS = 10_000_000
HORIZON_LOG_SD = 0.48
"""Spread of Σ η at collapse in a prototype (theory.md §4): what few events are widened by."""
HORIZON_LOG_SD_WEIGHT = 4
INTERVAL = 0.9


def clip_criterion(
    runs: Sequence[RunFacts], parameters: int | None, loss: str = "grpo"
) -> tuple[float, float, str]:
    """Bracket p*, the active-clip fraction at which the batch-level clip takes over.

    The literature brackets it; healthy runs of the same setting raise the lower end to what they
    bore, for they show that this much clipping is survived. What is published is of clipped tokens:
    healthy GSPO runs clip two orders of magnitude more (arXiv 2507.18071), so for it survivors
    alone give a lower end, and there is no upper one.

    Returns:
        Lower end, upper end, and where they come from; NaN and inf for an end that nothing gives.
        The upper end never falls below the lower.
    """
    if LOSSES[loss].clips == "answer":
        return _criterion_of_answers(runs, loss)
    tiny = parameters is not None and parameters < TINY_MODEL_PARAMETERS
    low = HEALTHY_CLIP_FRACTION
    high = TOLERATED_BY_TINY_MODELS if tiny else DEGRADED_CLIP_FRACTION
    source = f"clip criterion {low:.2%}…{high:.0%} from the literature"
    if tiny:
        source += " (tiny models tolerate several percent)"
    borne = _borne(runs)
    if borne and max(borne) > low:
        low = max(borne)
        source = _bore(len(borne), low)
    return low, max(low, high), source


def _borne(runs: Sequence[RunFacts]) -> list[float]:
    """Return the active-clip fractions that runs survived."""
    return [run.clip_p95 for run in runs if run.unsafe is False and run.clip_p95 is not None]


def _criterion_of_answers(runs: Sequence[RunFacts], loss: str) -> tuple[float, float, str]:
    nowhere = f"how much clipping of answers {loss} bears is published nowhere"
    if not (borne := _borne(runs)):
        return math.nan, math.inf, f"{nowhere}, and no run of this setting has survived"
    return max(borne), math.inf, f"{_bore(len(borne), max(borne))}; {nowhere}"


def _bore(runs: int, clip_fraction: float) -> str:
    survived = counted(runs, "survived run")
    return f"{survived} of this setting bore {clip_fraction:.2%} of active clipping"


def batch_radius(
    radii: Mapping[str, float | None], criterion: tuple[float, float, str]
) -> Estimate:
    """Return R_batch as the range between the radii at both ends of the clip criterion.

    The kept criterion next *below* each end is used, so each end errs to the safe side. An end for
    which too few tokens are pooled is unknown, and so is an upper end beyond the largest criterion
    that is kept, because survivors bore more than that; the estimate is a bound (theory.md §4).
    """
    low_p, high_p, source = criterion
    low, high = _radius_at(radii, low_p), _radius_at(radii, high_p)
    if radii and high_p > max(map(float, radii)) * (1 + 1e-9):
        high = None
    if low is None and high is None:
        return unknown(f"no clipping radius is measured yet ({source})")
    if low is None or high is None:
        pooled = "" if math.isinf(high_p) else "too few tokens are pooled yet; "
        return Estimate(low=low, high=high, is_bound=True, reason=f"{pooled}{source}")
    middle = math.sqrt(low * high) if math.isfinite(high) else None
    return Estimate(value=middle, low=low, high=high, is_bound=middle is None, reason=source)


def _radius_at(radii: Mapping[str, float | None], p: float) -> float | None:
    below = [float(kept) for kept in radii if float(kept) <= p * (1 + 1e-9)]
    return radii[_key(radii, max(below))] if below else None


def _key(radii: Mapping[str, float | None], p: float) -> str:
    return next(kept for kept in radii if float(kept) == p)


def collapse_cause(run: RunFacts, kappa_staleness: Estimate) -> str:
    """Attribute a collapse: ``local_step``, ``staleness``, ``horizon`` or ``unknown``.

    A collapse while warm-up and momentum are still filling up is the local step's. Later it is
    the staleness limit's if κ_staleness had certainly passed 1, the horizon's if it certainly had
    not; between the two it counts for neither (competing risks, theory.md §4).
    """
    if run.onset is not None and run.onset < early_steps(run.config):
        return "local_step"
    if kappa_staleness.low is not None and kappa_staleness.low >= 1:
        return "staleness"
    if kappa_staleness.high is not None and kappa_staleness.high < 1:
        return "horizon"
    return "unknown"


def staleness_kappa(run: RunFacts, r_batch: Estimate) -> Estimate:
    """Return κ_staleness = p95 of the realised within-cycle drift / R_batch; 0 when S = 0."""
    if run.config.max_staleness == 0:
        return Estimate(value=0.0, low=0.0, high=0.0, reason="S = 0: every rollout is fresh")
    if run.drift_p95 is None:
        missing = run.logged.missing if run.logged is not None else None
        return unknown(missing or "no within-cycle drift is measured yet")
    return r_batch.dividing(run.drift_p95)


def critical_radius(runs: Sequence[RunFacts], causes: Mapping[str, str]) -> Estimate:
    """Return R_crit on the displacement clock, from runs of one setting.

    Horizon collapses give its centre; their number and spread, widened by the prototype's, its
    90 % interval. Without one it is only known to exceed what survivors reached, so the estimate is
    a lower bound. A collapse of another cause bounds nothing: how far it came it came broken.
    """
    events = [
        math.log(run.displacement_at_onset)
        for run in runs
        if causes.get(run.run_id) == "horizon" and run.displacement_at_onset
    ]
    if events:
        return _with_few_events(events, "horizon collapse")
    reached = [run.displacement for run in runs if run.unsafe is False and run.displacement]
    if reached:
        return Estimate(
            low=max(reached),
            is_bound=True,
            reason="no horizon collapse of this setting is archived; "
            f"{counted(len(reached), 'run')} survived displacements up to {max(reached):.2g}",
        )
    return unknown("no run of this setting has survived, nor collapsed at its horizon")


def slide_radius(runs: Sequence[RunFacts], causes: Mapping[str, str]) -> Estimate:
    """Return R_slide: the displacement at which runs that were lost to the horizon began to fall.

    Most of the way to a collapse may lie beyond it, so a warning that shall come before anything
    is lost goes by this radius.
    """
    events = [
        math.log(run.displacement_at_slide)
        for run in runs
        if causes.get(run.run_id) == "horizon" and run.displacement_at_slide
    ]
    if not events:
        return unknown("no run of this setting has begun to fall at its horizon")
    return _with_few_events(events, "fall")


def _with_few_events(events: Sequence[float], what: str) -> Estimate:
    centre = float(np.mean(events))
    squares = sum((x - centre) ** 2 for x in events)
    weight = HORIZON_LOG_SD_WEIGHT
    spread = math.sqrt((weight * HORIZON_LOG_SD**2 + squares) / (weight + len(events) - 1))
    t = float(stdtrit(weight + len(events) - 1, (1 + INTERVAL) / 2))
    half = t * spread * math.sqrt(1 + 1 / len(events))
    return Estimate(
        value=math.exp(centre),
        low=math.exp(centre - half),
        high=math.exp(centre + half),
        reason=f"{counted(len(events), what)} of this setting",
    )


def step_radius(runs: Sequence[RunFacts], causes: Mapping[str, str]) -> Estimate:
    """Return R_step: the size of a single early update that breaks the policy at once.

    It lies between the largest that a survivor took and the smallest of a run that collapsed
    while its warm-up was filling up; without such a collapse only the lower bound is known.
    """
    borne = [run.largest_step for run in runs if run.unsafe is False and run.largest_step]
    broke = [
        run.largest_step
        for run in runs
        if causes.get(run.run_id) == "local_step" and run.largest_step
    ]
    low, high = max(borne, default=None), min(broke, default=None)
    if low is None and high is None:
        return unknown("no run of this setting has survived, nor broken at its first steps")
    if low is None or high is None:
        which = "no run broke at its first steps" if high is None else "no run survived"
        return Estimate(low=low, high=high, is_bound=True, reason=f"{which} at this setting")
    low, high = min(low, high), max(low, high)
    return Estimate(
        value=math.sqrt(low * high),
        low=low,
        high=high,
        reason=f"{counted(len(borne), 'run')} survived and {len(broke)} broke at the first steps",
    )
