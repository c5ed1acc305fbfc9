"""The surrogate gradient H of a batch under each correction, and shards of it at a checkpoint.

Corrections on stale rollouts: ``clipped`` is the loss as trained, ``unclipped`` has ε = ∞,
``uncorrected`` has r ≡ 1: it takes stale rollouts for fresh ones (theory.md §4). Gradients point
uphill, H = −∂loss/∂θ, before any norm clipping and without the optimizer; every batch is new, so
the proximal policy of a decoupled loss is θ itself.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from .bias import CountSketch
from .clipping import batch_metrics
from .lora import drift_sample
from .objective import Objective, mean_gain
from .policy import FlatWeights
from .randomness import generator
from .rollout import Rollouts, Task, pieces, sample_rollouts, score

CORRECTIONS = ("clipped", "unclipped", "uncorrected")
PROMPTS_PER_PIECE = 128


def surrogate(
    correction: str,
    objective: Objective,
    log_ratio_B_T: Tensor,
    advantage_B: Tensor,
    mask_B_T: Tensor,
    divisor_B: Tensor | None = None,
) -> Tensor:
    """Return the loss whose negative gradient is H under a correction of ``CORRECTIONS``."""
    if correction == "uncorrected":
        gain = advantage_B.unsqueeze(1) * log_ratio_B_T
        divisor_B = objective.divisors(mask_B_T) if divisor_B is None else divisor_B
        return -mean_gain(gain, mask_B_T, divisor_B)
    if correction == "unclipped":
        objective = replace(objective, epsilon_low=math.inf, epsilon_high=math.inf)
    return objective.surrogate(log_ratio_B_T, advantage_B, mask_B_T, divisor_B=divisor_B)


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How much to measure: K shards of ``prompts`` prompts with ``group_size`` completions each.

    Every random choice comes from ``seed``. Shards draw their prompts independently; shard k uses
    the same prompts and, on the same ``stream``, the same random numbers for every policy. Common
    random numbers keep the estimates unbiased and shrink their error.
    """

    shards: int
    prompts: int
    group_size: int
    seed: int

    @property
    def rollouts(self) -> int:
        """Completions from one policy, over all shards."""
        return self.shards * self.prompts * self.group_size


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """Gradients by correction, [K, d] each, and how far the rollouts were from the policy."""

    vectors: dict[str, Tensor]
    log_ratio_rms: float
    clip_fraction: float


class Checkpoint:
    """A policy frozen at θ, and a second model that takes on the weights of any φ."""

    def __init__(
        self,
        *,
        policy: nn.Module,
        weights: FlatWeights,
        behavior_policy: nn.Module,
        behavior_weights: FlatWeights,
        tokenizer: Any,
        task: Task,
        objective: Objective,
        at_once: int | None = None,
    ) -> None:
        """Take the two models of a run; the second is left with the last φ.

        ``at_once`` is how many rollouts are scored together, None for all.
        """
        self._at_once = at_once
        self._policy, self._weights = policy, weights
        self._behavior_policy, self._behavior_weights = behavior_policy, behavior_weights
        self._tokenizer, self._task = tokenizer, task
        self._objective = objective
        self._sketch = CountSketch(weights.vector.numel(), weights.vector.device)

    def measure(
        self,
        behavior: Tensor,
        plan: Plan,
        *,
        corrections: Sequence[str] = CORRECTIONS,
        stream: int = 0,
        progress: Callable[[], None] = lambda: None,
    ) -> Measured:
        """Measure H(θ, φ) shard by shard on completions of φ = ``behavior``, a flat vector.

        With φ = θ, ``clipped`` alone is the fresh gradient. The lag-0 control needs another
        ``stream``: with common random numbers both batches would be equal. ``progress`` is called
        after each shard.
        """
        self._behavior_weights.load(behavior)
        rows: dict[str, list[Tensor]] = {kind: [] for kind in corrections}
        looks: list[tuple[float, float]] = []
        pieces = math.ceil(plan.prompts / PROMPTS_PER_PIECE)
        for shard in range(plan.shards):
            total = {kind: torch.zeros_like(self._weights.vector) for kind in corrections}
            for piece in range(pieces):
                size = len(range(piece, plan.prompts, pieces))
                batch = self._sampled(size, plan, (plan.seed, shard, piece), stream)
                found, look = self._gradients(batch, corrections)
                looks.append(look)
                for kind in corrections:
                    total[kind].add_(found[kind], alpha=size / plan.prompts)
            for kind in corrections:
                rows[kind].append(self._sketch(total[kind]))
            progress()
        return Measured(
            vectors={kind: torch.stack(each) for kind, each in rows.items()},
            log_ratio_rms=math.sqrt(sum(rms**2 for rms, _ in looks) / len(looks)),
            clip_fraction=sum(clipped for _, clipped in looks) / len(looks),
        )

    def distance(self, one: Tensor, other: Tensor) -> float:
        """Return how far apart two sets of weights are, as drift is measured."""
        sample = drift_sample(self._policy, one.numel(), one.device)
        return float(torch.linalg.vector_norm(sample(one) - sample(other)))

    def _sampled(self, prompts: int, plan: Plan, key: tuple[int, ...], stream: int) -> Rollouts:
        device = self._weights.vector.device
        return sample_rollouts(
            self._behavior_policy,
            self._tokenizer,
            self._task,
            self._task.sample_prompts(prompts, generator(device, *key, 0)),
            plan.group_size,
            generator(device, *key, 1 + stream),
        )

    def _gradients(
        self, batch: Rollouts, corrections: Sequence[str]
    ) -> tuple[dict[str, Tensor], tuple[float, float]]:
        advantage_B = self._objective.advantages(batch.rewards_P_G)
        divisor_B = self._objective.divisors(batch.mask_B_T)
        found = {kind: torch.zeros_like(self._weights.vector) for kind in corrections}
        scored = []
        for rows in pieces(batch, self._at_once):
            piece = batch.rows(rows)
            share = len(piece.mask_B_T) / len(batch.mask_B_T)
            log_prob, _ = score(self._policy, piece)
            log_ratio = log_prob - piece.behavior_log_probs_B_T
            for kind in corrections:
                loss = share * surrogate(
                    kind,
                    self._objective,
                    log_ratio,
                    advantage_B[rows],
                    piece.mask_B_T,
                    divisor_B[rows],
                )
                self._weights.gradient.zero_()
                torch.autograd.backward(loss, retain_graph=kind != corrections[-1])
                found[kind] -= self._weights.gradient
            scored.append(log_prob.detach())
        log_prob_B_T = torch.cat(scored)
        log_ratio_B_T = log_prob_B_T - batch.behavior_log_probs_B_T
        metrics = batch_metrics(
            log_ratio_B_T,
            log_prob_B_T,
            advantage_B,
            batch.mask_B_T,
            self._objective.epsilon_low,
            self._objective.epsilon_high,
            loss=self._objective.loss,
        )
        clipped = float(metrics.get("clip_fraction_low", 0.0) + metrics["clip_fraction_high"])
        return found, (float(metrics["log_ratio_rms"]), clipped)
