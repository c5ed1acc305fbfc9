"""Frozen records that cross layers: what the trainer writes, what advisor and pages read.

In every record ``None`` means *not measured* and NaN or ±inf means *computed, and it came out so*.
Neither is ever written as 0. Names follow one glossary (README, "How to read each metric").
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import StrEnum
from typing import Any


class RunStatus(StrEnum):
    """The life of a run. ``lost`` is derived on reading and never stored."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    COLLAPSED = "collapsed"
    DIVERGED = "diverged"
    FAILED = "failed"
    STOPPED = "stopped"
    LOST = "lost"

    @property
    def alive(self) -> bool:
        """Whether more rows may still come."""
        return self in (RunStatus.QUEUED, RunStatus.RUNNING)


@dataclass(frozen=True, slots=True, kw_only=True)
class RunInfo:
    """One run: who, where, with which configuration, and how it ended.

    Times are seconds since 1970 in UTC. ``collapse_step`` and ``slide_step`` are on the version
    clock: the learner step whose weights sampled the reward (theory.md §6).
    ``reward_first`` and ``reward_last`` are means over the first and the last 20 learner steps,
    ``reward_best`` the running peak of the smoothed reward, ``reward_final`` the evaluation of the
    last policy. ``unmeasured`` gives, for every column that this run never fills, the reason.
    ``source`` says where an imported run comes from: files, format, stack, what was told, the
    ``window`` of steps that a row averages over, which key became which column, the ``references``
    of drifts (behavior, proximal, reference_model), ``unknown_keys``. ``process_mark`` is that of
    ``storage.liveness.process_mark``.
    """

    id: str
    name: str
    kind: str = "train"
    status: RunStatus = RunStatus.QUEUED
    created_at: float
    started_at: float | None = None
    ended_at: float | None = None
    heartbeat_at: float | None = None
    heartbeat_count: int = 0
    host: str | None = None
    pid: int | None = None
    pid_started: float | None = None
    process_mark: str | None = None
    stop_requested: bool = False
    device: str | None = None
    threads: int | None = None
    parameters: int | None = None
    config: Mapping[str, Any] = field(default_factory=dict)
    workload: str | None = None
    group: str | None = None
    seed: int | None = None
    code_version: str | None = None
    schema_version: str | None = None
    archived: bool = False
    notes: str | None = None
    chance_reward: float | None = None
    outcome: str | None = None
    outcome_reason: str | None = None
    collapse_step: int | None = None
    slide_step: int | None = None
    reward_first: float | None = None
    reward_best: float | None = None
    reward_last: float | None = None
    reward_final: float | None = None
    gold_reward_first: float | None = None
    gold_reward_last: float | None = None
    gold_reward_final: float | None = None
    error: str | None = None
    unmeasured: Mapping[str, str] = field(default_factory=dict)
    recommendation_id: int | None = None
    source: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class StepMetrics:
    """One learner step t, which takes the weights θ_t to θ_{t+1} on rollouts sampled by φ.

    Fractions are in 0…1, KL and entropy in nats per token, drifts in Euclidean parameter units of
    the fp32 weights, ``update_norm`` in parameter units per unit of learning rate. ``cycle_drift``
    is ‖θ_t − φ‖ (before the update), ``displacement`` ‖θ_{t+1} − θ_0‖ and ``path_length`` the sum
    of ‖θ_{i+1} − θ_i‖ up to and with this step. ``sampled_at_step`` is the version of φ: whose
    reward ``reward_mean`` is. ``clipping_radii`` maps an active-clip fraction p* to the drift at
    which it is predicted, ``weight_radii`` the criteria ``m2`` and ``sequence_ess`` of the
    importance weights likewise (theory.md §4). ``kl_to_start`` is KL(θ_0‖θ_{t+1}), ``approx_kl``
    KL(φ‖θ_t). ``reasons`` says why a field of this row is None; reasons that hold for the whole
    run are in ``RunInfo.unmeasured``.
    """

    run_id: str
    step: int
    time: float
    learning_rate: float | None = None
    staleness_mean: float | None = None
    staleness_max: float | None = None
    sampled_at_step: int | None = None
    update_norm: float | None = None
    cycle_drift: float | None = None
    displacement: float | None = None
    path_length: float | None = None
    approx_kl: float | None = None
    kl_to_start: float | None = None
    log_ratio_rms: float | None = None
    clip_fraction_low: float | None = None
    clip_fraction_high: float | None = None
    outside_clip_fraction: float | None = None
    clipped_gradient_mass: float | None = None
    ess_fraction: float | None = None
    sequence_ess_fraction: float | None = None
    gradient_cosine: float | None = None
    grad_norm: float | None = None
    entropy: float | None = None
    reward_mean: float | None = None
    reward_std: float | None = None
    gold_reward_mean: float | None = None
    response_length: float | None = None
    zero_variance_groups: int | None = None
    dropped_groups: int | None = None
    clipping_radii: Mapping[str, float | None] | None = None
    weight_radii: Mapping[str, float | None] | None = None
    m2: float | None = None
    loss: float | None = None
    seconds_generate: float | None = None
    seconds_learn: float | None = None
    seconds_measure: float | None = None
    seconds_wait: float | None = None
    tokens: int | None = None
    reasons: Mapping[str, str] = field(default_factory=dict)
    extra: Mapping[str, Any] = field(default_factory=dict)

    @property
    def clip_fraction(self) -> float | None:
        """Share of response tokens whose gradient the clip removes, both sides; None if unknown."""
        if self.clip_fraction_low is None or self.clip_fraction_high is None:
            return None
        return self.clip_fraction_low + self.clip_fraction_high


METRIC_NAMES: tuple[str, ...] = tuple(
    f.name
    for f in fields(StepMetrics)
    if f.name
    not in ("run_id", "step", "time", "clipping_radii", "weight_radii", "reasons", "extra")
)
"""The scalar columns of a step, in the order of the record."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Evaluation:
    """Reward of the *current* policy θ_step on fresh rollouts; ``reward_std`` is per rollout."""

    run_id: str
    step: int
    time: float
    rollouts: int
    reward: float
    reward_std: float | None = None
    gold: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class LagDrift:
    """How far the weights went in ``lag`` learner steps that ended with ``step``.

    ``norm`` is ‖θ_{step+1} − θ_{step+1−lag}‖ and ``rate_sum`` the sum of their learning rates, so
    the effective update norm G_eff(lag) is norm / rate_sum (theory.md §3).
    """

    run_id: str
    step: int
    lag: int
    norm: float | None
    rate_sum: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class BiasProbe:
    """What shards of rollouts say about the bias of the surrogate gradient at θ_step.

    ``correction`` names the gradient: ``clipped``, ``unclipped`` (ε = ∞), ``uncorrected`` (r ≡ 1)
    on stale rollouts, each against the fresh gradient H, so that bias_squared estimates
    ‖H(θ, φ) − H(θ, θ)‖² and harmful ⟨bias, H⟩; and ``clip``, the paired difference clipped −
    unclipped on the same stale batch. Estimates are signed and each comes with its jackknife
    standard error over ``shards``, whose interval is at t_{shards − 1} (theory.md §4). ``drift`` is
    ‖θ − φ‖, ``seconds`` what the measurement cost.
    """

    run_id: str
    step: int
    staleness: int
    correction: str
    time: float
    shards: int
    rollouts: int
    learning_rate: float | None = None
    drift: float | None = None
    log_ratio_rms: float | None = None
    clip_fraction: float | None = None
    bias_squared: float | None = None
    bias_squared_stderr: float | None = None
    norm_squared: float | None = None
    norm_squared_stderr: float | None = None
    harmful: float | None = None
    harmful_stderr: float | None = None
    cosine: float | None = None
    cosine_stderr: float | None = None
    seconds: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One rollout that learner step ``step`` learned from, kept so that a person can read it.

    ``number`` tells the rollouts of a step apart, ``staleness`` is its age in learner steps,
    ``ratio`` the sequence's importance weight π_θ/φ at that step, ``reward`` what was optimised.
    A text that was too long to keep ends in "…".
    """

    run_id: str
    step: int
    number: int
    prompt: str
    completion: str
    reward: float | None = None
    gold: float | None = None
    advantage: float | None = None
    staleness: int | None = None
    ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Something that happened once in a run; ``level`` is info, warning or error."""

    run_id: str
    time: float
    kind: str
    message: str
    level: str = "info"
    step: int | None = None
    data: Mapping[str, Any] = field(default_factory=dict)
    id: int | None = None


class DeliveryState(StrEnum):
    """How a delivery of an alert stands; ``pending`` until it is settled one way or the other."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class AlertDelivery:
    """One alert on its way to one destination.

    A rule alerts once per ``subject`` (which κ, which flag …) and ``episode``: from when it begins
    to hold, at ``time``, until it has not held for a while, ``cleared_at``. A pending delivery is
    tried at ``due_at``, and was ``attempts`` times; ``failure`` says why the last try did not
    succeed.
    """

    run_id: str
    rule: str
    subject: str
    episode: int
    destination: str
    time: float
    message: str
    step: int | None = None
    state: DeliveryState = DeliveryState.PENDING
    attempts: int = 0
    due_at: float | None = None
    settled_at: float | None = None
    cleared_at: float | None = None
    failure: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """What a probe found out about one setting: facts of its segments, from which limits follow.

    ``setting`` is the configuration that was probed, ``segments`` one summary per probe run, in
    order, ``cost_steps`` what it cost in learner steps, evaluations included.
    """

    id: str
    time: float
    setting: Mapping[str, Any]
    segments: tuple[Mapping[str, Any], ...]
    run_ids: tuple[str, ...]
    learner_steps: int
    cost_steps: float
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """What was advised, when, for which question, and from which evidence."""

    time: float
    question: Mapping[str, Any]
    answer: Mapping[str, Any]
    evidence: tuple[str, ...] = ()
    id: int | None = None


def missing_reason(run: RunInfo, row: StepMetrics, name: str) -> str | None:
    """Say why a metric of a row is missing or not finite; None when it is an ordinary number."""
    value = getattr(row, name)
    if value is None:
        return row.reasons.get(name) or run.unmeasured.get(name) or "not measured"
    if isinstance(value, float) and not math.isfinite(value):
        return f"computed {value}"
    return None
