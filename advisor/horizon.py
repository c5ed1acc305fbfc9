"""How much of the horizon a run has used, and when it will be used up (theory.md §3, §4).

Pure. Displacement is projected by the run's own drift law D(k) ∝ k^α, its α pulled to what is usual
while the run is short: the first steps of a run drift slower than what follows.
"""

from .calibration import RunFacts, early_steps
from .regime import Estimate, unknown

USUAL_ALPHA, USUAL_WEIGHT = 0.75, 40
"""The usual drift exponent, worth as many learner steps of a run's own."""
LEAST_STEPS = 20
TOO_FEW = "too few learner steps to say how the displacement grows"


def horizon_kappa(run: RunFacts, r_crit: Estimate) -> Estimate:
    """Return κ_horizon: the displacement projected to the planned T, over R_crit."""
    if run.displacement is None or run.steps == 0:
        return unknown("no displacement is measured yet")
    if run.steps < LEAST_STEPS:
        return unknown(TOO_FEW)
    growth = (max(run.config.steps, run.steps) / run.steps) ** projected_alpha(run)
    return r_crit.dividing(run.displacement * growth)


def projected_alpha(run: RunFacts) -> float:
    """Return the drift exponent by which a run is projected: its own, pulled to the usual one."""
    if run.drift_law is None:
        return USUAL_ALPHA
    own = max(0, run.steps - early_steps(run.config))
    return (run.drift_law[1] * own + USUAL_ALPHA * USUAL_WEIGHT) / (own + USUAL_WEIGHT)


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
