"""How much of the horizon a run has used, and when it will be used up (theory.md §3, §4).

Pure. Displacement is projected by the run's own drift law D(k) ∝ k^α.
"""

from .calibration import RunFacts
from .regime import Estimate, unknown

TOO_FEW = "too few learner steps to fit how the displacement grows"


def horizon_kappa(run: RunFacts, r_crit: Estimate) -> Estimate:
    """Return κ_horizon: the displacement projected to the planned T, over R_crit."""
    if run.displacement is None or run.steps == 0:
        return unknown("no displacement is measured yet")
    if run.drift_law is None:
        return unknown(TOO_FEW)
    growth = (max(run.config.steps, run.steps) / run.steps) ** run.drift_law[1]
    return r_crit.dividing(run.displacement * growth)


def used_kappa(run: RunFacts, r_crit: Estimate) -> Estimate:
    """Return κ_used: the largest displacement so far, over R_crit."""
    if run.displacement is None:
        return unknown("no displacement is measured yet")
    return r_crit.dividing(run.displacement)


def horizon_step(run: RunFacts, r_crit: Estimate) -> Estimate:
    """Return the learner step at which the displacement reaches R_crit at the present drift."""
    if run.displacement is None or run.drift_law is None:
        return unknown(TOO_FEW)
    steps, reached, alpha = run.steps, run.displacement, run.drift_law[1]

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
