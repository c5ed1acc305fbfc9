"""The constants of one setting, gathered from its runs, and κ at any η, S and T.

Pure. What one run measured is carried to another η, S or T of the *same* setting by the drift law
of theory.md §3; nothing is carried to another setting.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .calibration import (
    clip_criterion,
    collapse_cause,
    critical_radius,
    slide_radius,
    staleness_kappa,
    step_radius,
)
from .regime import Estimate, unknown
from .run_facts import RunFacts
from .staleness_radius import staleness_radius


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """G_1, α, R_batch, R_crit, R_slide and R_step of one setting.

    ``cycle_g_1`` makes cycle_g_1·η·S^α the within-cycle drift; ``step_per_rate`` times η is the
    largest early update. Each float that is None was not measured.
    """

    g_1: float | None
    cycle_g_1: float | None
    step_per_rate: float | None
    alpha: float | None
    r_batch: Estimate
    r_crit: Estimate
    r_slide: Estimate
    r_step: Estimate
    causes: Mapping[str, str]


def constants_of(runs: Sequence[RunFacts], *, learning_rate: float | None = None) -> Constants:
    """Gather the constants from runs of one setting.

    Args:
        runs: ended or live runs whose settings agree.
        learning_rate: where they will be used; the run nearest to it gives the drift law, because
            clipping slows the drift at larger rates.
    """
    parameters = next((r.parameters for r in runs if r.parameters is not None), None)
    criterion = clip_criterion(runs, parameters, runs[0].config.loss if runs else "grpo")
    ordered = _by_distance(runs, learning_rate)
    causes = {
        run.run_id: collapse_cause(run, staleness_kappa(run, staleness_radius(run, criterion)))
        for run in runs
        if run.unsafe
    }
    law = next((r for r in ordered if r.drift_law is not None and r.unsafe is not True), None)
    law = law or next((r for r in ordered if r.drift_law is not None), None)
    alpha = law.drift_law[1] if law is not None and law.drift_law is not None else None
    stale = [r for r in ordered if r.config.max_staleness > 0 and r.drift_p95 is not None]
    stepped = next((r for r in ordered if r.largest_step is not None), None)
    return Constants(
        g_1=law.drift_law[0] if law is not None and law.drift_law is not None else None,
        alpha=alpha,
        cycle_g_1=_cycle_g_1(stale[0], alpha) if stale and alpha is not None else None,
        step_per_rate=None
        if stepped is None or stepped.largest_step is None
        else stepped.largest_step / stepped.config.learning_rate,
        r_batch=_radius(stale, criterion),
        r_crit=critical_radius(runs, causes),
        r_slide=slide_radius(runs, causes),
        r_step=step_radius(runs, causes),
        causes=causes,
    )


def _by_distance(runs: Sequence[RunFacts], learning_rate: float | None) -> list[RunFacts]:
    if learning_rate is None:
        return list(runs)
    asked = math.log(learning_rate)
    return sorted(runs, key=lambda run: abs(math.log(run.config.learning_rate) - asked))


def _cycle_g_1(run: RunFacts, alpha: float) -> float | None:
    if run.drift_p95 is None:
        return None
    reach = math.pow(run.config.max_staleness, alpha)
    return run.drift_p95 / (run.config.learning_rate * reach)


def _radius(stale: Sequence[RunFacts], criterion: tuple[float, float, str]) -> Estimate:
    """R_batch of the nearest run that knows both of its ends, else of the nearest at all."""
    radii = [staleness_radius(run, criterion) for run in stale]
    complete = next((r for r in radii if r.low is not None and r.high is not None), None)
    return complete or (radii[0] if radii else unknown("no run with stale rollouts is archived"))


def kappas_at(
    constants: Constants, *, learning_rate: float, max_staleness: int, steps: int
) -> dict[str, Estimate]:
    """Return κ of each limit at a learning rate, S and T (theory.md §3); slide where known."""
    c = constants
    horizon = unknown("no run of this setting is long enough to fit its drift")
    if c.g_1 is not None and c.alpha is not None:
        horizon = c.r_crit.dividing(c.g_1 * learning_rate * steps**c.alpha)
    found = {}
    if c.g_1 is not None and c.alpha is not None and c.r_slide.value is not None:
        found["slide"] = c.r_slide.dividing(c.g_1 * learning_rate * steps**c.alpha)
    local = unknown("no update of this setting is measured")
    if c.step_per_rate is not None:
        local = c.r_step.dividing(c.step_per_rate * learning_rate)
    return {
        "staleness": _staleness(c, learning_rate, max_staleness),
        "horizon": horizon,
        "local_step": local,
        **found,
    }


def _staleness(c: Constants, learning_rate: float, max_staleness: int) -> Estimate:
    if max_staleness == 0:
        return Estimate(value=0.0, low=0.0, high=0.0, reason="S = 0: every rollout is fresh")
    if c.cycle_g_1 is None or c.alpha is None:
        return unknown("no within-cycle drift of this setting is measured")
    return c.r_batch.dividing(c.cycle_g_1 * learning_rate * max_staleness**c.alpha)
