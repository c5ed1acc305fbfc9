"""Keeps a live run inside the safe region by scaling its learning rate down. A pure rule.

Told every learner step, it answers with the factor for the next one, never above the schedule of
the run, and with its reason. What it holds the run to are the limits of theory.md §3 with what is
known of them: the rate that a probe or ended runs call safe, the drift at which the clip takes
over, how far one may go from the start, and how few of the sequences may count. What is not known
holds nothing back. While a run is within a limit, that limit leaves its rate alone; a run that is
beyond is brought to where the final reward is expected to be best, not to the edge.
"""

import math
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from storage.records import StepMetrics
from trainer.config import TrainerConfig
from trainer.governing import Schedule
from trainer.losses import LOSSES

from .calibration import batch_radius
from .horizon import ALPHA_SD, NINETY, USUAL_ALPHA, USUAL_WEIGHT
from .horizon import LEAST_STEPS as LEAST_TRAVELLED
from .red_flags import LEAST_SEQUENCE_ESS
from .regime import Estimate
from .staleness_radius import weight_radius
from .wording import rate as written

FLOOR = 1e-3
"""The smallest factor: a factor is positive, and at this one a run stands still."""
RELEASE = 1.05
"""A factor grows by at most this much a step, lest a limit that is just left is met again."""
POWER = 1 / USUAL_ALPHA
RECENT = 10
"""Steps over which drift and sample size are looked at, and S more, at which drift came about."""
LEAST_RECENT = 3
LEAST_SHARE = 1e-12
"""Stands for an effective share of 0, whose logarithm there is none."""
GROWTH_SHARE = 0.25
"""The growth of the displacement is read off this share of the steps so far, the newest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Level:
    """How far something may go, ``safe``, and where it is brought when it would go further."""

    safe: float
    aim: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """What is known of the limits of a run; None holds nothing back, and ``reasons`` says why.

    ``learning_rate`` is in the unit of the schedule's peak, ``displacement`` and ``sqrt_kl`` are
    what they may be after T steps, in parameter units and √nats. ``clip_criterion`` is that of
    ``calibration.clip_criterion``, ``best_share`` the rate that ends best over that of the edge.
    """

    learning_rate: Level | None = None
    displacement: Level | None = None
    sqrt_kl: Level | None = None
    clip_criterion: tuple[float, float, str]
    best_share: float
    reasons: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class _Wish:
    """A share of the planned rate that a limit asks for at the next step, and why."""

    share: float
    reason: str


class Governor:
    """The rule for one run, with what it remembers of it; a function of the rows it was told."""

    def __init__(
        self, config: TrainerConfig, bounds: Bounds, schedule: Schedule | None = None
    ) -> None:
        """Govern a run of this configuration; ``schedule`` gives the planned rate of every step.

        Without one it is that of the configuration.
        """
        self._config, self._bounds = config, bounds
        self._schedule = schedule or config.learning_rate_at
        self._recent: deque[StepMetrics] = deque(maxlen=RECENT + config.max_staleness)
        self._clocks = [
            _Clock(name, level, read, [self._schedule(t) for t in range(config.steps)])
            for name, level, read in (
                ("displacement", bounds.displacement, lambda row: row.displacement),
                ("√KL to the start", bounds.sqrt_kl, _sqrt_kl),
            )
            if level is not None
        ]
        self._is_stale = False
        self._factor, self._reason = 1.0, "every known limit is kept"
        self._next = 0

    def __call__(self, row: StepMetrics | None) -> tuple[float, str]:
        """Return the factor of the next learner step, in (0, 1], and its reason.

        Args:
            row: the step just taken; None before the first one of a process, which changes nothing
                where rows were told before.
        """
        if row is not None:
            self._next = row.step + 1
            self._recent.append(row)
            for clock in self._clocks:
                clock.see(row)
        planned = self._schedule(self._next)
        if planned > 0 and (row is not None or self._next == 0):  # of a plan of 0 no share matters
            wanted, reason = self._wanted(planned)
            if row is not None and wanted > self._factor * RELEASE:
                wanted, reason = self._factor * RELEASE, "let go by degrees: the limits are kept"
            self._factor, self._reason = wanted, reason
        return self._factor, self._reason

    def _wanted(self, planned: float) -> tuple[float, str]:
        safe = self._safe_rate()
        ceiling = 1.0 if safe is None else safe.share
        wishes = [safe, self._staleness(planned, ceiling), self._sample_size(planned)]
        wishes += [clock.wish(self._next, ceiling) for clock in self._clocks]
        lowest = min((w for w in wishes if w is not None), key=lambda w: w.share, default=None)
        if lowest is None or not lowest.share < 1:
            return 1.0, "every known limit is kept"
        return max(FLOOR, lowest.share), lowest.reason

    def _safe_rate(self) -> _Wish | None:
        level, own = self._bounds.learning_rate, self._config.learning_rate
        if level is None or own <= level.safe:
            return None
        return _Wish(
            level.aim / own,
            f"{written(own)} is not safe over {self._config.steps} steps, where up to "
            f"{written(level.safe)} is; the reward is expected to end best at {written(level.aim)}",
        )

    def _staleness(self, planned: float, ceiling: float) -> _Wish | None:
        """Hold drift within a cycle well below R_batch once it has certainly passed it.

        It is let go when the plan, or the share ``ceiling`` of it that is safe, would not pass it
        again.
        """
        found, per_rate = self._latest_radius(), self._drift_per_rate()
        if found is None or found.high is None or per_rate is None:
            return None
        drifts = [r.cycle_drift for r in self._recent if r.cycle_drift is not None]
        beyond = sum(drift > found.high for drift in drifts) >= LEAST_RECENT
        self._is_stale = beyond or (self._is_stale and per_rate * planned * ceiling > found.high)
        if not self._is_stale:
            return None
        return _Wish(
            self._bounds.best_share * found.high / per_rate / planned,
            f"κ_staleness: drift within a cycle reaches {max(drifts):.3g}, and from "
            f"{found.high:.3g} on stale rollouts take over ({found.reason})",
        )

    def _drift_per_rate(self) -> float | None:
        """Return the 95th percentile of drift over the mean rate at which it came about."""
        rates = {row.step: row.learning_rate for row in self._recent}
        found = []
        for row in self._recent:
            since = row.step if row.sampled_at_step is None else row.sampled_at_step
            over = [rate for t in range(since, row.step) if (rate := rates.get(t)) is not None]
            if row.cycle_drift and len(over) == row.step - since and sum(over) > 0:
                found.append(row.cycle_drift / (sum(over) / len(over)))
        found = [each for each in found if math.isfinite(each)]
        return float(np.percentile(found, 95)) if len(found) >= LEAST_RECENT else None

    def _latest_radius(self) -> Estimate | None:
        loss = self._config.loss
        if LOSSES[loss].has_clipping_radius:
            radii = next((r.clipping_radii for r in reversed(self._recent) if r.clipping_radii), {})
            return batch_radius(radii, self._bounds.clip_criterion) if radii else None
        radii = next((r.weight_radii for r in reversed(self._recent) if r.weight_radii), {})
        return weight_radius(radii, loss) if radii else None

    def _sample_size(self, planned: float) -> _Wish | None:
        """Let enough sequences count where their importance weights are not clipped away.

        With log-normal weights ESS = exp(−σ²), and σ goes with the drift, so with the rate.
        """
        if LOSSES[self._config.loss].has_clipping_radius:
            return None
        shares = [
            r.sequence_ess_fraction
            for r in self._recent
            if r.sequence_ess_fraction is not None
            and math.isfinite(r.sequence_ess_fraction)
            and (r.staleness_max or 0) > 0
        ]
        if len(shares) < LEAST_RECENT:
            return None
        share = float(np.mean(shares))
        if share >= LEAST_SEQUENCE_ESS:
            return None
        lower = math.sqrt(math.log(LEAST_SEQUENCE_ESS) / math.log(max(share, LEAST_SHARE)))
        return _Wish(
            self._recent_rate(planned) * lower / planned,
            f"importance weights leave {share:.0%} of the sequences effective, below "
            f"{LEAST_SEQUENCE_ESS:.0%}",
        )

    def _recent_rate(self, planned: float) -> float:
        rates = [r.learning_rate for r in self._recent if r.learning_rate]
        return float(np.mean(rates)) if rates else planned


class _Clock:
    """A clock of the horizon: what it shows, how it grows with Σ η, and what is left of it.

    It grows as (Σ η^(1/α))^α (theory.md §2), so its power 1/α grows with Σ η^(1/α), and rates can
    be shared out over what is left of it.
    """

    def __init__(
        self,
        name: str,
        level: Level,
        read: Callable[[StepMetrics], float | None],
        planned: Sequence[float],
    ) -> None:
        self._name, self._level, self._read, self._planned = name, level, read, planned
        self._left = np.append(np.cumsum(np.array(planned)[::-1] ** POWER)[::-1], 0.0)
        self._sum = 0.0
        self._steps: list[int] = []
        self._shown: list[tuple[float, float]] = []
        self._passed = False
        self._last: _Wish | None = None

    def see(self, row: StepMetrics) -> None:
        if row.learning_rate is not None:
            self._sum += row.learning_rate**POWER
        value = self._read(row)
        if value is not None and value > 0:
            self._steps.append(row.step + 1)
            self._shown.append((self._sum, value))

    def wish(self, step: int, share: float) -> _Wish | None:
        """Return the share that ends at the aim, if this share of the plan ends beyond the level.

        The level is passed for certain only: with the doubt of the projection in its favor. Where
        the plan is at its end and the run goes on, what was wished last still holds.
        """
        if self._shown and step < len(self._planned):
            self._last = self._wish(step, share)
        return self._last

    def _wish(self, step: int, share: float) -> _Wish | None:
        now, (used, value) = self._steps[-1], self._shown[-1]
        gained = self._per_rate(now, used, value)
        if gained is None:
            return None
        left = float(self._left[step]) * share**POWER
        ends = (value**POWER + gained * left) ** USUAL_ALPHA
        further = max(0.0, math.log(len(self._planned) / now))
        doubt = math.exp(NINETY * ALPHA_SD * further * USUAL_WEIGHT / (now + USUAL_WEIGHT))
        self._passed = self._passed or ends / doubt > self._level.safe or value > self._level.safe
        if not self._passed:
            return None
        room = max(0.0, self._level.aim**POWER - value**POWER)
        part = (room / (gained * left)) ** USUAL_ALPHA if left > 0 else 0.0
        return _Wish(
            share * min(1.0, part),
            f"κ_horizon: {self._name} is {value:.3g} after {now} steps and would be {ends:.3g} "
            f"after {len(self._planned)}; up to {self._level.safe:.3g} is safe",
        )

    def _per_rate(self, now: int, used: float, value: float) -> float | None:
        """Return the growth of the clock's power 1/α per Σ η^(1/α) over the newest steps."""
        if now < LEAST_TRAVELLED:
            return None
        since = now - max(LEAST_TRAVELLED // 2, GROWTH_SHARE * now)
        before = bisect_right(self._steps, since)
        used_then, value_then = self._shown[before - 1] if before else (0.0, 0.0)
        if used <= used_then or value <= value_then:
            return float(value**POWER / used) if used > 0 else None
        return float((value**POWER - value_then**POWER) / (used - used_then))


def _sqrt_kl(row: StepMetrics) -> float | None:
    return None if row.kl_to_start is None else math.sqrt(max(0.0, row.kl_to_start))
