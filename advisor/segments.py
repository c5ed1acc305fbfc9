"""The segments of a probe: what each says, and the edge that they bracket.

Pure. A probe is a handful of short runs from the starting weights (``next_segment``). A *ramp* with
fresh rollouts lets the learning rate grow until the policy breaks; *holds* at a constant rate tell
by their gain over the start on which side of the edge they lie.

Where the reward is a learned model's, its fall cannot be waited for: it may rise while what was
wanted falls. There the holds measure how √KL(θ_0‖θ) and the displacement grow with Σ η
(theory.md §4).
"""

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from storage.records import Evaluation, LagDrift, RunInfo, StepMetrics
from trainer.config import TrainerConfig
from trainer.losses import clipped_share

BROKEN_BELOW = 0.5
"""A ramp has broken the policy where its reward is below this share of the start's, for good."""
NEAREST_HOLDS = 4
LEAST_ON_A_LINE = 2
FRESH_ABOVE = 1.4
"""The hold with fresh rollouts lies this factor above the edge with stale ones."""
SETTLED_FROM = 0.5
"""A hold is judged by the weights after this share of its steps."""
GENERATING_SHARE = 0.4
"""What generating costs of a learner step, for counting evaluations in learner steps."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Segment:
    """What one probe run measured; what is None was not measured.

    ``gain`` is the mean reward of the settled weights minus that of the start, ``gain_stderr`` its
    standard error; ``broke_at`` the learning rate at which a ramp broke the policy. ``travel``
    holds (Σ η, √KL(θ_0‖θ), ‖θ − θ_0‖) along the way; ``effective_norms`` maps a lag k to the median
    of G_eff(k). ``clip_fraction`` is the mean active clip of the settled steps, ``drift_p95`` the
    95th percentile of their within-cycle drift, ``radii`` the newest clipping radii;
    ``seconds_generate`` and ``seconds_learn`` are medians per learner step.
    """

    run_id: str
    learning_rate: float
    max_staleness: int
    steps: int
    ramp_from: float | None
    start_reward: float | None
    gain: float | None
    gain_stderr: float | None
    broke_at: float | None
    diverged: bool
    travel: tuple[tuple[float, float, float], ...]
    effective_norms: Mapping[str, float]
    clip_fraction: float | None
    drift_p95: float | None
    radii: Mapping[str, float | None]
    cost_steps: float
    seconds_generate: float | None = None
    seconds_learn: float | None = None

    @property
    def is_ramp(self) -> bool:
        """Whether the learning rate grew."""
        return self.ramp_from is not None

    def as_json(self) -> dict[str, Any]:
        """Return the segment for the archive."""
        return asdict(self)


def segment_from(stored: Mapping[str, Any]) -> Segment:
    """Read a segment back from the archive."""
    travel = tuple((float(x), float(kl), float(d)) for x, kl, d in stored["travel"])
    return Segment(**{**stored, "travel": travel})


def is_learned_reward(config: TrainerConfig) -> bool:
    """Whether the reward is a model's opinion, which can be exploited while it rises."""
    return config.workload == "preference" or config.reward_model is not None


def summarise(
    run: RunInfo,
    config: TrainerConfig,
    rows: Sequence[StepMetrics],
    evaluations: Sequence[Evaluation],
    drifts: Sequence[LagDrift],
) -> Segment:
    """Return what a probe run measured. Gold is never read: a user has none."""
    start = next((e for e in evaluations if e.step == 0), None)
    gain, stderr = _gain(config, rows, evaluations, start)
    settled = [row for row in rows if row.step >= SETTLED_FROM * len(rows)]
    shares = (
        clipped_share(config.loss, row.clip_fraction_low, row.clip_fraction_high) for row in settled
    )
    clipped = [share for share in shares if share is not None]
    cycle = sorted(row.cycle_drift for row in settled if row.cycle_drift is not None)
    diverged = run.outcome == "diverged"
    ramp = config.ramp_from is not None
    return Segment(
        run_id=run.id,
        learning_rate=config.learning_rate,
        max_staleness=config.max_staleness,
        steps=len(rows),
        ramp_from=config.ramp_from,
        start_reward=start.reward if start is not None else None,
        gain=gain,
        gain_stderr=stderr,
        broke_at=_broke_at(rows, start, diverged=diverged) if ramp else None,
        diverged=diverged,
        travel=_travel(rows),
        effective_norms=_effective_norms(drifts),
        clip_fraction=statistics.fmean(clipped) if clipped else None,
        drift_p95=cycle[int(0.95 * (len(cycle) - 1))] if cycle else None,
        radii=(rows[-1].clipping_radii if rows else None) or {},
        cost_steps=_cost(config, rows, evaluations),
        seconds_generate=_median([row.seconds_generate for row in rows]),
        seconds_learn=_median([row.seconds_learn for row in rows]),
    )


def _median(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def _cost(
    config: TrainerConfig, rows: Sequence[StepMetrics], evaluations: Sequence[Evaluation]
) -> float:
    """Count learner steps, and evaluations by the rollouts that they generate."""
    batch = config.prompts * config.group_size
    return len(rows) + GENERATING_SHARE * sum(e.rollouts for e in evaluations) / batch


def _gain(
    config: TrainerConfig,
    rows: Sequence[StepMetrics],
    evaluations: Sequence[Evaluation],
    start: Evaluation | None,
) -> tuple[float | None, float | None]:
    """Compare the settled weights with the start, by batches that they sampled and evaluations.

    A run that diverged has no such weights, and a reward that is not a number is worth nothing: it
    lost everything, gain −inf.
    """
    if start is None or not math.isfinite(start.reward):
        return None, None
    settled = SETTLED_FROM * config.steps
    batch = float(config.prompts * config.group_size)
    weighed = [
        (row.reward_mean, batch, row.reward_std or 0.0)
        for row in rows
        if row.reward_mean is not None and (row.sampled_at_step or 0) >= settled
    ] + [
        (e.reward, float(e.rollouts), e.reward_std or 0.0) for e in evaluations if e.step >= settled
    ]
    total = sum(weight for _, weight, _ in weighed)
    if len(rows) < config.steps or not all(math.isfinite(reward) for reward, _, _ in weighed):
        return -math.inf, None
    if not total:
        return None, None
    mean = sum(reward * weight for reward, weight, _ in weighed) / total
    spread = math.sqrt(sum(sd * sd * weight for _, weight, sd in weighed) / total)
    own = spread / math.sqrt(total)
    first = (start.reward_std or 0.0) / math.sqrt(start.rollouts)
    return mean - start.reward, math.hypot(own, first)


def _broke_at(
    rows: Sequence[StepMetrics], start: Evaluation | None, *, diverged: bool
) -> float | None:
    """Return the rate of the first step after which the reward stays below half of the start's.

    A ramp that diverged broke at its last rate at the latest.
    """
    if start is None or not start.reward > 0 or not rows:
        return None
    enough = BROKEN_BELOW * start.reward
    low = [row.reward_mean is None or not row.reward_mean >= enough for row in rows]
    if not low[-1]:
        return rows[-1].learning_rate if diverged else None
    first = len(low)
    while first > 0 and low[first - 1]:
        first -= 1
    return rows[max(0, first - 1)].learning_rate


def _travel(rows: Sequence[StepMetrics]) -> tuple[tuple[float, float, float], ...]:
    total, points = 0.0, []
    for row in rows:
        total += row.learning_rate or 0.0
        kl, distance = row.kl_to_start, row.displacement
        if kl is None or distance is None or not math.isfinite(kl + distance):
            continue
        points.append((total, math.sqrt(max(0.0, kl)), distance))
    return tuple(points)


def _effective_norms(drifts: Sequence[LagDrift]) -> dict[str, float]:
    by_lag: dict[int, list[float]] = {}
    for drift in drifts:
        if drift.norm is not None and drift.rate_sum and math.isfinite(drift.norm):
            by_lag.setdefault(drift.lag, []).append(drift.norm / drift.rate_sum)
    return {str(lag): statistics.median(found) for lag, found in sorted(by_lag.items())}


def pooled_start(segments: Sequence[Segment]) -> float | None:
    """Return the mean reward of the start over all segments: they begin at the same weights."""
    starts = [s.start_reward for s in segments if s.start_reward is not None]
    known = [start for start in starts if math.isfinite(start)]
    return statistics.fmean(known) if known else None


def gains(
    holds: Sequence[Segment], segments: Sequence[Segment]
) -> list[tuple[float, float, float]]:
    """Return (ln η, gain over the pooled start, standard error) of holds, by rate.

    ``segments`` are all of the probe: their evaluations of the start are pooled. A gain of −inf is
    a hold that broke, its standard error inf; a hold that could not be judged is left out.
    """
    start = pooled_start(segments)
    return sorted(
        (
            math.log(s.learning_rate),
            s.gain + s.start_reward - start,
            s.gain_stderr if s.gain_stderr is not None else math.inf,
        )
        for s in holds
        if s.gain is not None
        and not math.isnan(s.gain)
        and s.start_reward is not None
        and math.isfinite(s.start_reward)
        and start is not None
    )


def bracket(points: Sequence[tuple[float, float, float]]) -> int | None:
    """Return the index of the first hold that lost above one that gained; None without one.

    Losses below every gain are left out: the gentlest holds hardly learn, so noise decides there.
    """
    for i in range(1, len(points)):
        if points[i][1] <= 0 and points[i - 1][1] > 0:
            return i
    return None


def crossing(stale: Sequence[Segment], segments: Sequence[Segment]) -> tuple[float, float] | None:
    """Return the rate at which the gain crosses 0, and its standard error in ln η.

    A line through the holds nearest to the bracket, from the largest gain on, gain against ln η,
    weighted by their errors; a rate that broke altogether says little about where, so losses are
    held to three times the largest gain and what diverged only bounds. None without a hold that
    gained and one above it that lost.
    """
    points = gains(stale, segments)
    found = bracket(points)
    if found is None:
        return None
    low, high = points[found - 1], points[found]
    most = 3 * max(gain for _, gain, _ in points)
    middle = (low[0] + high[0]) / 2
    width = high[0] - low[0]
    peak = max(range(found), key=lambda i: points[i][1])
    falling = [p for p in points[peak:] if math.isfinite(p[2])]
    near = sorted(falling, key=lambda p: abs(p[0] - middle))[:NEAREST_HOLDS]
    if len(near) < LEAST_ON_A_LINE:
        return math.exp(middle), width / 2
    x = [p[0] - middle for p in near]
    y = [max(p[1], -most) for p in near]
    w = [1 / max(p[2], 1e-6) ** 2 for p in near]
    total = sum(w)
    mx = sum(a * b for a, b in zip(w, x, strict=True)) / total
    my = sum(a * b for a, b in zip(w, y, strict=True)) / total
    sxx = sum(a * (b - mx) ** 2 for a, b in zip(w, x, strict=True))
    slope = sum(a * (b - mx) * (c - my) for a, b, c in zip(w, x, y, strict=True)) / sxx
    at = mx - my / slope if slope < 0 else 0.0
    at = min(max(at, low[0] - middle - width / 2), high[0] - middle + width / 2)
    noise = 1 / math.sqrt(total) / max(abs(slope), 1e-12)
    return math.exp(middle + at), min(math.hypot(noise, 0.2 * width), width)
