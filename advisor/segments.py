"""The segments of a probe: which to run next, and what one that has run says.

Pure. A probe is a handful of short runs from the starting weights. A *ramp* with fresh rollouts
lets the learning rate grow until the policy breaks, which finds the scale; *holds* at the asked
staleness then bracket the rate at which the policy no longer gains on its start; a last hold with
fresh rollouts, just above that rate, tells whether it was staleness that set it. A ramp alone says
the same at every S.

Where the reward is a learned model's, its fall cannot be waited for: it may rise while what was
wanted falls. There the holds measure how the displacement grows with Σ η, and √KL(θ_0‖θ) with it
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

RAMP_STEPS = 26
RAMP = (1e-8, 10.0)
"""The learning rates that a ramp spans, a factor of 2.3 each step: any optimizer, any model."""
HOLD_STEPS = 50
AFTER_THE_FIRST_CYCLE = 16
LONGEST_HOLD = 120
BROKEN_BELOW = 0.5
"""A ramp has broken the policy where its reward is below this share of the start's, for good."""
MOST_RATE = RAMP[1]
RAMP_TO_EDGE = 0.15
"""First guess of edge / rate at which a ramp of this steepness breaks."""
GUESS_PER_STALENESS = 0.2
"""The first guess falls with this power of S + 1."""
STEP_OUT = 2.0
STEP_DOWN_AFTER_A_BREAK = 3.0
LARGE_LOSS = 0.25
"""Share of the start's reward; a hold that lost more than this was far above the edge."""
CLOSE_ENOUGH = 1.3
"""A bracket whose ends differ by at most this factor is not split further."""
NEAREST_HOLDS = 4
LEAST_ON_A_LINE = 2
FRESH_ABOVE = 1.4
"""The hold with fresh rollouts lies this factor above the edge with stale ones."""
SETTLED_FROM = 0.5
"""A hold is judged by the weights after this share of its steps."""
AIMED_SQRT_KL = 0.8
"""Where the holds of a learned reward shall end: just beyond where gold is usually lost."""
LEARNED_HOLDS = 3
NEAR_ENOUGH = 1.15
TRAVEL_PER_SQRT_KL, LATER_TRAVEL_PER_SQRT_KL = 3.0, 2.5
"""√KL grows at first with about the third root of Σ η, later faster."""
MOST_FURTHER = 10.0
EVALUATE_EVERY = 10
EVALUATION_ROLLOUTS = 128
START_ROLLOUTS = 512
FINAL_ROLLOUTS = 1024
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


# -- which to run next ------------------------------------------------------------------------


def next_segment(
    setting: TrainerConfig, done: Sequence[Segment], steps_left: int
) -> TrainerConfig | None:
    """Return the next probe run, or None when enough is known or the budget does not suffice.

    Args:
        setting: what is probed; its learning rate is ignored.
        done: the segments so far.
        steps_left: learner steps that may still be spent.
    """
    ramp = next((s for s in done if s.is_ramp), None)
    if ramp is None:
        if steps_left < RAMP_STEPS:
            return None
        low, high = RAMP
        return _segment(
            setting, done, high, 0, RAMP_STEPS, ramp_from=low, warmup_steps=0, kl_to_start_every=1
        )
    stale = [s for s in done if not s.is_ramp and s.max_staleness == setting.max_staleness]
    length = hold_steps(setting)
    if is_learned_reward(setting):
        return _next_travel(setting, ramp, stale, done, length, steps_left)
    rate = _next_rate(setting, ramp, stale, done)
    if rate is not None:
        return _hold(setting, done, rate, setting.max_staleness, length, steps_left)
    return _fresh_hold(setting, stale, done, steps_left)


def _fresh_hold(
    setting: TrainerConfig, stale: Sequence[Segment], done: Sequence[Segment], steps_left: int
) -> TrainerConfig | None:
    """Hold once with fresh rollouts just above the edge, unless that was done."""
    edge = crossing(stale, done)
    if edge is None or any(not s.is_ramp and s.max_staleness == 0 for s in done):
        return None
    return _hold(setting, done, FRESH_ABOVE * edge[0], 0, HOLD_STEPS, steps_left)


def hold_steps(setting: TrainerConfig) -> int:
    """Return the length of a hold: long enough to see weights that stale rollouts have made."""
    return min(
        setting.steps,
        max(HOLD_STEPS, min(LONGEST_HOLD, setting.max_staleness + 1 + AFTER_THE_FIRST_CYCLE)),
    )


def _hold(
    setting: TrainerConfig,
    done: Sequence[Segment],
    rate: float,
    max_staleness: int,
    length: int,
    steps_left: int,
) -> TrainerConfig | None:
    if steps_left < length:
        return None
    return _segment(setting, done, min(rate, MOST_RATE), max_staleness, length, kl_to_start_every=2)


def _segment(
    setting: TrainerConfig,
    done: Sequence[Segment],
    rate: float,
    max_staleness: int,
    steps: int,
    **changes: Any,
) -> TrainerConfig:
    own = {
        "learning_rate": float(f"{rate:.4g}"),
        "max_staleness": max_staleness,
        "steps": steps,
        "seed": (1000 * (setting.seed + 1) + len(done)) % 2**31,
        "evaluate_every": EVALUATE_EVERY,
        "evaluation_rollouts": EVALUATION_ROLLOUTS,
        "bias_study": None,
        "bias_every": 0,
        "stop_on_collapse": False,
        "name": None,
    }
    return TrainerConfig.model_validate({**setting.model_dump(), **own, **changes})


def _next_rate(
    setting: TrainerConfig, ramp: Segment, stale: Sequence[Segment], done: Sequence[Segment]
) -> float | None:
    """Bracket the rate at which the gain is lost, then halve the bracket in logarithms."""
    points = gains(stale, done)
    if not points:
        if stale:  # what was held could not be judged, so another rate would not be either
            return None
        scale = ramp.broke_at if ramp.broke_at is not None else ramp.learning_rate
        return RAMP_TO_EDGE * scale * math.pow(setting.max_staleness + 1, -GUESS_PER_STALENESS)
    found = bracket(points)
    if found is not None:
        low, high = points[found - 1][0], points[found][0]
        return None if high - low <= math.log(CLOSE_ENOUGH) else math.exp((low + high) / 2)
    gained = [x for x, gain, _ in points if gain > 0]
    if gained:
        highest = max(gained)
        return None if highest >= math.log(MOST_RATE) else math.exp(highest) * STEP_OUT
    lost, loss, _ = points[0]
    broke = -loss > LARGE_LOSS * abs(pooled_start(done) or 1.0)
    return math.exp(lost) / (STEP_DOWN_AFTER_A_BREAK if broke else STEP_OUT)


def bracket(points: Sequence[tuple[float, float, float]]) -> int | None:
    """Return the index of the first hold that lost above one that gained; None without one.

    Losses below every gain are left out: the gentlest holds hardly learn, so noise decides there.
    """
    for i in range(1, len(points)):
        if points[i][1] <= 0 and points[i - 1][1] > 0:
            return i
    return None


def _next_travel(
    setting: TrainerConfig,
    ramp: Segment,
    stale: Sequence[Segment],
    done: Sequence[Segment],
    length: int,
    steps_left: int,
) -> TrainerConfig | None:
    """Aim at √KL = 0.8 by a short and a longer hold; then go on, or there at half the rate."""
    if len(stale) >= LEARNED_HOLDS:
        return None
    if not stale:
        reached = [x for x, kl, _ in ramp.travel if kl <= AIMED_SQRT_KL]
        rate = (reached[-1] if reached else ramp.learning_rate) / length
        return _hold(setting, done, rate, setting.max_staleness, length, steps_left)
    longer = min(setting.steps, steps_left // (LEARNED_HOLDS - len(stale)))
    if longer < length and longer < setting.steps:
        return None
    last = stale[-1]
    if len(stale) == 1:
        miss = AIMED_SQRT_KL / _end(last) if _end(last) else 1.0
        further = min(MOST_FURTHER, max(1 / MOST_FURTHER, miss**TRAVEL_PER_SQRT_KL))
        rate = last.learning_rate * further * last.steps / longer
    else:
        miss = AIMED_SQRT_KL / _end(last) if _end(last) else MOST_FURTHER
        further = min(MOST_FURTHER, miss**LATER_TRAVEL_PER_SQRT_KL) if miss > NEAR_ENOUGH else 0.5
        rate = last.learning_rate * further
    return _hold(setting, done, rate, setting.max_staleness, longer, steps_left)


def _end(segment: Segment) -> float:
    """Return √KL where a segment ended, 0 if it was never measured."""
    return segment.travel[-1][1] if segment.travel else 0.0


# -- what one says ----------------------------------------------------------------------------


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
