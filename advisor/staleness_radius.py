"""At which drift stale rollouts take over, by the criterion of the loss: clip or weights. Pure."""

import math
from collections.abc import Mapping

from trainer.config import TrainerConfig
from trainer.losses import LOSSES

from .calibration import batch_radius
from .logged import ALPHAS, radius
from .regime import Estimate, unknown
from .run_facts import RunFacts


def staleness_radius(run: RunFacts, criterion: tuple[float, float, str]) -> Estimate:
    """Return R_batch of a run, in the unit of its ``drift_p95``, by the criterion of its loss.

    Where drift from the behavior policy makes the clip take gradients away it is the clipping
    radius (theory.md §4). Where it does not, the staleness limit has none, and the importance
    weights decide.
    """
    if run.logged is not None and not run.radii:
        return radius(run.logged, criterion, ALPHAS[1])
    loss = run.config.loss
    if LOSSES[loss].has_clipping_radius:
        return batch_radius(run.radii, criterion)
    return weight_radius(run.weight_radii, loss)


def no_clipping_radius(config: TrainerConfig) -> str:
    """Say in a sentence that staleness has no clipping radius; nothing where it has one."""
    if config.max_staleness == 0 or LOSSES[config.loss].has_clipping_radius:
        return ""
    return f"Staleness has no clipping radius under the loss {config.loss}."


def weight_radius(radii: Mapping[str, float | None], loss: str) -> Estimate:
    """Return R_batch where weights are not clipped away: between the radii of their two criteria.

    M2 = 0.04 on the tokens that moved as their advantage pushes, and a sequence ESS of one half;
    the smaller radius is the low end, and the reason names it.
    """
    none = f"{loss} has no clipping radius, for its clip takes no gradient away as staleness grows"
    names = {"m2": "M2 = 0.04", "sequence_ess": "a sequence ESS of one half"}
    known = {words: r for name, words in names.items() if (r := radii.get(name)) is not None}
    if len(known) < len(names):
        return unknown(f"{none}; too few sequences are pooled for that of its weights")
    first = min(known, key=lambda words: known[words])
    low, high = known[first], max(known.values())
    middle = math.sqrt(low * high) if math.isfinite(high) else None
    reason = f"{none}; its importance weights reach {first} first"
    return Estimate(value=middle, low=low, high=high, is_bound=middle is None, reason=reason)
