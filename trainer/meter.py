"""Everything that is measured at a learner step, around the update and on its batch."""

import math
import time
from collections.abc import Mapping
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from storage.records import BiasProbe, LagDrift

from .backward import Scored, tensors_of, with_tensors
from .bias import probe_of
from .clip_bias import ClipBiasStream, lowest_of_like_age
from .clip_criterion import clip_of, loss_critical_drifts
from .clipping import ClippingPool, WeightPool, batch_metrics
from .config import TrainerConfig
from .drift import DriftTracker, LagTracker, WeightSample
from .lora import drift_sample
from .losses import LOSSES
from .objective import Objective, equal_rewards
from .policy import FlatWeights
from .transfer import on_host

STRUCTURAL = (
    "structurally impossible: at staleness 0 with one update per batch every ratio is 1, "
    "so the clip removes nothing"
)
NOT_DRIFT = (
    "at staleness 0 in bf16 ratios differ from 1 by rounding alone, of which no radius can be read"
)
ONE_UPDATE = (
    "structurally impossible: the ratio to the proximal policy is clipped, and with one update per "
    "batch it is 1, so the clip removes nothing"
)
NOT_BELOW = "the loss clips nothing below 1: it truncates large weights only"
NO_RADIUS = (
    "the ratio to the proximal policy is clipped, which drift from the behavior policy does not "
    "move; weight_radii say what that drift does to the importance weights"
)
ABOVE_FLOOR = 3
"""How many times σ(0) the log-ratios of a batch must be for drift to be what they tell of."""
CLIP_METRICS = (
    "clip_fraction_low",
    "clip_fraction_high",
    "outside_clip_fraction",
    "clipped_gradient_mass",
)
NO_GOLD = {
    "arithmetic": "the workload has one reward, which is exact; there is no other gold",
    "custom": "the workload has one reward, the one given; there is no other gold",
}
NO_ADVANTAGE = "every group has equal rewards, so no token has an advantage"
NO_DIRECTION = "the gradient of this step or of the one before is zero and has no direction"
NO_MOVE = "no token's ratio moved the way its advantage pushes"


class _Floor:
    """The largest rms log-ratio of a batch of age 0 so far: σ(0) of theory.md §4."""

    def __init__(self) -> None:
        self.value = 0.0

    def raise_to(self, rms: float) -> None:
        if math.isfinite(rms):
            self.value = max(self.value, rms)

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.value = state["value"]


class _Part(Protocol):
    def state_dict(self) -> dict[str, Any]: ...

    def load_state_dict(self, state: Mapping[str, Any]) -> None: ...


class Meter:
    """Measures one run. ``drifts`` and ``bias`` hold what the last step brought besides its row."""

    def __init__(
        self,
        run_id: str,
        config: TrainerConfig,
        objective: Objective,
        policy: nn.Module,
        weights: FlatWeights,
    ) -> None:
        """Begin at θ_0 = the present weights, whatever state is loaded later."""
        self._run_id, self._config, self._weights = run_id, config, weights
        self._objective = objective
        self._epsilon = (objective.epsilon_low, objective.epsilon_high)
        self._unclipped = unclipped(config) is not None
        size, device = weights.vector.numel(), weights.vector.device
        self._sample = drift_sample(policy, size, device)
        self._gradient_sample = WeightSample(size, device)
        start = self._sample(weights.vector)
        self._drift, self._lags = DriftTracker(start), LagTracker(start)
        self._clipping, self._importance = ClippingPool(), WeightPool()
        self._floor = _Floor()
        self.stream = ClipBiasStream(
            policy,
            weights,
            every=config.bias_every,
            max_staleness=config.max_staleness,
            at_once=config.micro_batch_size,
        )
        self._parts: dict[str, _Part] = {
            "drift": self._drift,
            "lags": self._lags,
            "clipping": self._clipping,
            "importance": self._importance,
            "stream": self.stream,
            "floor": self._floor,
        }
        self._found: dict[str, Tensor] = {}
        self.drifts: list[LagDrift] = []
        self.bias: BiasProbe | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return everything that earlier steps left to measure later ones by, but θ_0."""
        return {name: part.state_dict() for name, part in self._parts.items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of another meter of the same run."""
        for name, part in state.items():
            self._parts[name].load_state_dict(part)

    def before_update(
        self, step: int, version: int, behavior: Tensor, scored: Scored, learning_rate: float
    ) -> Tensor:
        """Measure at θ_t, with the raw gradient of the batch in place; return its norm."""
        gradient = self._weights.gradient
        self._found = self._drift.before_update(
            self._sample(self._weights.vector),
            self._sample(behavior),
            self._gradient_sample(gradient),
        )
        if not self._gradient_sample.is_whole:  # the update is scaled by it
            self._found["grad_norm"] = torch.linalg.vector_norm(gradient)
        self.bias = self._clip_bias(step, step - version, scored, learning_rate)
        return self._found["grad_norm"]

    def after_update(
        self,
        step: int,
        learning_rate: float,
        scored: Scored,
        unread: Mapping[str, Tensor],
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Measure the update and the batch; return the row's fields and why some are None.

        What is as long as the weights is measured on the device. Its results, the batch's numbers
        per token and those of ``unread``, scalars by name, come to the host together, and what is
        measured of the batch is measured there.
        """
        weights = self._sample(self._weights.vector)
        decay = self._config.weight_decay if self._config.optimizer == "adamw" else 0.0
        decay *= self._sample.degree  # to first order
        found = self._found | self._drift.after_update(weights, learning_rate, decay) | dict(unread)
        ended = self._lags.after_update(step, weights, learning_rate)
        norms = {f"lag {lag}": norm for lag, norm, _ in ended}
        host = on_host(found | norms | tensors_of(scored))
        scored = with_tensors(scored, host)
        self.drifts = [
            LagDrift(
                run_id=self._run_id,
                step=step,
                lag=lag,
                norm=float(host[f"lag {lag}"]),
                rate_sum=rates,
            )
            for lag, _, rates in ended
        ]
        measured = {name: host[name] for name in found} | self._batch_metrics(scored)
        numbers: dict[str, Any] = {name: float(value) for name, value in measured.items()}
        if self._config.max_staleness > 0:
            self._pool(scored, numbers)
            if self._clips_by_drift:
                numbers["clipping_radii"] = self._clipping.radii()
            numbers["weight_radii"] = self._importance.radii()
        numbers["zero_variance_groups"] = int(equal_rewards(scored.batch.rewards_P_G).sum())
        numbers["tokens"] = int(scored.batch.mask_B_T.sum())
        return self._without_the_unknown(step, numbers, scored)

    @torch.no_grad()
    def _batch_metrics(self, scored: Scored) -> dict[str, Tensor]:
        batch = scored.batch
        found = batch_metrics(
            scored.log_ratio_B_T,
            scored.log_prob_B_T,
            scored.advantage_B,
            batch.mask_B_T,
            *self._epsilon,
            loss=self._objective.loss,
            proximal_log_ratio_B_T=scored.proximal_log_ratio_B_T,
        )
        found["entropy"] = scored.entropy_B_T.sum() / batch.mask_B_T.sum()
        found["reward_mean"] = batch.rewards_P_G.mean()
        found["reward_std"] = batch.rewards_P_G.std()
        if batch.gold_P_G is not None:
            found["gold_reward_mean"] = batch.gold_P_G.mean()
        found["response_length"] = batch.mask_B_T.sum(dim=1).mean()
        return found

    @torch.no_grad()
    def _pool(self, scored: Scored, numbers: dict[str, Any]) -> None:
        """Pool what radii are read from.

        A batch of age 0 has no direction to scale along, and its log-ratios are what sampler and
        learner differ by in rounding; nor has one whose log-ratios are hardly larger than that.
        """
        drift, rms = numbers["cycle_drift"], numbers["log_ratio_rms"]
        if drift == 0:
            self._floor.raise_to(rms)
        if not (drift > 0 and math.isfinite(drift)) or rms < ABOVE_FLOOR * self._floor.value:
            return
        mask_B_T, log_ratio_B_T = scored.batch.mask_B_T, scored.log_ratio_B_T
        if self._clips_by_drift:
            self._clipping.add(
                *loss_critical_drifts(
                    self._objective.loss,
                    log_ratio_B_T,
                    scored.advantage_B,
                    mask_B_T,
                    drift,
                    *self._epsilon,
                )
            )
        self._importance.add((log_ratio_B_T * mask_B_T).sum(dim=1), numbers["m2"], drift)

    @property
    def _clips_by_drift(self) -> bool:
        return LOSSES[self._objective.loss].clips != "proximal"

    def _clip_bias(
        self, step: int, staleness: int, scored: Scored, learning_rate: float
    ) -> BiasProbe | None:
        if self._unclipped or self._config.bias_every == 0 or not self.stream.due(staleness):
            return None
        started = time.perf_counter()
        mask_B_T = scored.batch.mask_B_T
        found = self.stream.measure(
            staleness, scored.batch, self._taken(scored), self._objective.divisors(mask_B_T)
        )
        if found is None:
            return None
        return probe_of(
            found,
            run_id=self._run_id,
            step=step,
            staleness=lowest_of_like_age(staleness),
            correction="clip",
            time=time.time(),
            rollouts=found.shards * scored.batch.mask_B_T.shape[0],
            learning_rate=learning_rate,
            drift=float(self._found["cycle_drift"]),
            seconds=time.perf_counter() - started,
        )

    @torch.no_grad()
    def _taken(self, scored: Scored) -> Tensor:
        """Return what the clip takes of w·A, 0 where it takes nothing."""
        clip = clip_of(
            self._objective.loss,
            scored.log_ratio_B_T,
            scored.advantage_B,
            scored.batch.mask_B_T,
            *self._epsilon,
            scored.proximal_log_ratio_B_T,
        )
        clipped = (clip.low | clip.high) & scored.batch.mask_B_T.bool()
        taken = (clip.weight - clip.kept) * scored.advantage_B.unsqueeze(1)
        return taken.masked_fill(~clipped, 0.0)

    def _without_the_unknown(
        self, step: int, numbers: dict[str, Any], scored: Scored
    ) -> tuple[dict[str, Any], dict[str, str]]:
        """Turn what this step cannot know into None with its reason, never into a number."""
        reasons: dict[str, str] = {}
        if self._unclipped:
            numbers |= dict.fromkeys(CLIP_METRICS)
        if not bool((scored.advantage_B != 0).any()):
            unknown = ("clipped_gradient_mass", "m2", "gradient_cosine")
            numbers |= dict.fromkeys(unknown)
            reasons |= dict.fromkeys(unknown, NO_ADVANTAGE)
            return numbers, reasons
        if step == 0:
            reasons["gradient_cosine"] = "there is no gradient before the first"
        for name, source, why in (
            ("gradient_cosine", "grad_norm", NO_DIRECTION),
            ("m2", "log_ratio_rms", NO_MOVE),
        ):
            if math.isnan(numbers.get(name, 0.0)) and math.isfinite(numbers[source]):
                numbers[name], reasons[name] = None, why  # of an empty set, not computed
        return numbers, reasons


def unmeasured(config: TrainerConfig) -> dict[str, str]:
    """Say, for every column that a run of this configuration never fills, why."""
    reasons = {}
    if config.schedule != "queue":
        reasons["seconds_wait"] = "in lockstep nothing waits: generation and learning take turns"
    if config.workload in NO_GOLD:
        reasons["gold_reward_mean"] = NO_GOLD[config.workload]
    loss = LOSSES[config.loss]
    if not loss.clips_below:
        reasons["clip_fraction_low"] = NOT_BELOW
    if loss.clips == "proximal":
        reasons["clipping_radii"] = NO_RADIUS
    if impossible := unclipped(config):
        reasons |= dict.fromkeys(CLIP_METRICS, impossible)
    if config.max_staleness == 0:
        why = STRUCTURAL if config.precision == "fp32" else NOT_DRIFT
        reasons |= dict.fromkeys(("clipping_radii", "weight_radii"), why)
    return reasons


def unclipped(config: TrainerConfig) -> str | None:
    """Say why the clip can never act in a run of this configuration; None where it can.

    In bf16 the ratio of equal weights is 1 up to rounding only, which a narrow range may clip.
    """
    if config.max_staleness == 0 and config.precision == "fp32":
        return STRUCTURAL
    if LOSSES[config.loss].clips == "proximal" and config.updates_per_batch == 1:
        return ONE_UPDATE
    return None
