"""How much of the horizon a run has used, and when it will be used up (theory.md §3, §4).

Pure. Displacement is projected by the run's own drift law D(k) ∝ k^α, its α pulled to what is usual
while the run is short: the first steps of a run drift slower than what follows.
"""

import math
from dataclasses import replace

from .regime import Estimate, unknown
from .run_facts import RunFacts, early_steps

USUAL_ALPHA, USUAL_WEIGHT = 0.75, 40
"""The usual drift exponent, worth as many learner steps of a run's own."""
ALPHA_SD, NINETY = 0.15, 1.645
"""How much α differs between runs; with steps of its own the doubt about a run's goes away."""
LEAST_STEPS = 20
TOO_FEW = "too few learner steps to say how the displacement grows"


def horizon_kappa(run: RunFacts, r_crit: Estimate) -> Estimate:
    """Return κ_horizon: the displacement projected to the planned T, over R_crit."""
    if run.displacement is None or run.steps == 0:
        return unknown("no displacement is measured yet")
    if run.steps < LEAST_STEPS:
        return unknown(TOO_FEW)
    further = math.log(max(run.config.steps, run.steps) / run.steps)
    growth = math.exp(further * projected_alpha(run))
    doubt = math.exp(NINETY * ALPHA_SD * further * USUAL_WEIGHT / (_own_steps(run) + USUAL_WEIGHT))
    found = r_crit.dividing(run.displacement * growth)
    return replace(
        found,
        low=None if found.low is None else found.low / doubt,
        high=None if found.high is None else found.high * doubt,
    )


def projected_alpha(run: RunFacts) -> float:
    """Return the drift exponent by which a run is projected: its own, pulled to the usual one."""
    if run.drift_law is None:
        return USUAL_ALPHA
    own = _own_steps(run)
    return (run.drift_law[1] * own + USUAL_ALPHA * USUAL_WEIGHT) / (own + USUAL_WEIGHT)


def _own_steps(run: RunFacts) -> int:
    return max(0, run.steps - early_steps(run.config))


def used_kappa(run: RunFacts, r_crit: Estimate) -> Estimate:
    """Return κ_used: the largest displacement so far, over R_crit."""
    if run.displacement is None:
        return unknown("no displacement is measured yet")
    return r_crit.dividing(run.displacement)


def horizon_step(run: RunFacts, r_crit: Estimate) -> Estimate:
    """Return the learner step at which the displacement reaches R_crit at the present drift."""
    if run.displacement is None or run.steps < LEAST_STEPS:
        return unknown(TOO_FEW)
    steps, reached, alpha = run.steps, run.displacement, projected_alpha(run)

    def when(radius: float | None) -> float | None:
        return None if radius is None else steps * (radius / reached) ** (1 / alpha)

    return Estimate(
        value=when(r_crit.value),
        low=when(r_crit.low),
        high=when(r_crit.high),
        is_bound=r_crit.is_bound,
        reason=r_crit.reason,
    )


def local_kappa(run: RunFacts, r_step: Estimate) -> Estimate:
    """Return κ_local: the largest early update over R_step."""
    if run.largest_step is None:
        return unknown("no update is measured yet")
    return r_step.dividing(run.largest_step)
