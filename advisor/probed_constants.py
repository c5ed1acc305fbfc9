"""The constants of the decision model as a probe measured them, each with its interval. Pure."""

import math
import statistics
from typing import Any

from .calibrated import NINETY
from .learned_reward import critical_displacement
from .limits import RateLimit, alpha_of, g_1_of
from .measured import Measured, limits_at
from .regime import Estimate, unknown
from .safe_levels import SafeLevels
from .segments import crossing, is_learned_reward


def constants(found: Measured, levels: SafeLevels) -> dict[str, Any]:
    """Return G_1, α, R_batch, R_crit and the local-step limit, each with interval and bound."""
    limits = {x.binding: x for x in limits_at(found, found.setting, levels)}
    return {
        "g_1": _norm(found),
        "alpha": _alpha(found),
        "r_batch": _batch_radius(found, "staleness" in limits),
        "r_crit": _critical(found, levels),
        "local_step": _local_step(limits),
    }


def _norm(found: Measured) -> Estimate:
    each = [g for s in found.holds if (g := g_1_of([s])) is not None]
    if not each:
        return unknown("no hold is long enough to fit its drift")
    middle = statistics.median(each)
    return Estimate(value=middle, low=min(each), high=max(each), reason=f"{len(each)} holds")


def _alpha(found: Measured) -> Estimate:
    each = [alpha_of([s]) for s in found.holds if g_1_of([s]) is not None]
    if not each:
        return unknown("no hold is long enough to fit its drift")
    middle = statistics.median(each)
    return Estimate(value=middle, low=min(each), high=max(each), reason=f"{len(each)} holds")


def _batch_radius(found: Measured, binds: bool) -> Estimate:
    if found.setting.max_staleness == 0:
        return unknown("S = 0: no rollout is stale")
    at = crossing(found.stale, found.segments)
    drifts = sorted((s.learning_rate, s.drift_p95) for s in found.stale if s.drift_p95)
    if at is None or len(drifts) < 2:
        return unknown("the probe did not bracket the edge, so no drift is known to be too far")
    near = min(drifts, key=lambda d: abs(math.log(d[0] / at[0])))
    value, half = near[1] * at[0] / near[0], NINETY * at[1]
    if not binds:
        return Estimate(low=value, is_bound=True, reason="the local step limits before it")
    return Estimate(
        value=value,
        low=value * math.exp(-half),
        high=value * math.exp(half),
        reason="within-cycle drift at which holds stop gaining",
    )


def _critical(found: Measured, levels: SafeLevels) -> Estimate:
    if not is_learned_reward(found.setting):
        gained = [s.travel[-1][2] for s in found.holds if s.travel and (s.gain or 0) > 0]
        if not gained:
            return unknown("no hold gained, so how far the policy may go is not known")
        return Estimate(low=max(gained), is_bound=True, reason="largest displacement that gained")
    level = critical_displacement(found.setting, found.holds, levels)
    if level is None:
        return unknown("the probe measured too little of √KL")
    half = NINETY * level.log_sd
    return Estimate(
        value=level.value,
        low=level.value * math.exp(-half),
        high=level.value * math.exp(half),
        reason="displacement at which half of such runs are unsafe",
    )


def _local_step(limits: dict[str, RateLimit]) -> Estimate:
    local, stale = limits.get("local_step"), limits.get("staleness")
    if local is not None and local.bound is None:
        half = NINETY * local.log_sd
        return Estimate(
            value=local.median,
            low=local.median * math.exp(-half),
            high=local.median * math.exp(half),
            reason=local.reason,
        )
    known = local or stale
    if known is None:
        return unknown("the reward is a learned model's: its fall cannot be waited for")
    if known.bound == "high":
        return Estimate(high=known.median * 2, is_bound=True, reason=known.reason)
    return Estimate(low=known.median, is_bound=True, reason=known.reason)
