"""Measures somebody else's training: the way of its weights, and what its batches tell of drift.

The same estimators as for Etalon's own runs (``drift``, ``clipping``), on what a ``Shoulder`` saw.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from ..clip_criterion import loss_critical_drifts
from ..clipping import ClippingPool, WeightPool, batch_metrics
from ..drift import DriftTracker, LagTracker
from ..meter import CLIP_METRICS, NO_ADVANTAGE, NO_DIRECTION, NO_MOVE
from .shoulder import Seen
from .weights import ForeignWeights

OF_THE_WEIGHTS = ("update_norm", "cycle_drift", "displacement", "path_length", "gradient_cosine")
BY_ENGINE = "with vLLM the clip is around the proximal policy, not the one that sampled"
MIXED = "the rollouts of this step were sampled by more than one version of the weights"
MOST_VERSIONS = 16
UNSEEN = "which weights sampled the rollouts was not seen"
OF_THE_POLICY = (
    *("staleness_mean", "staleness_max", "approx_kl", "log_ratio_rms", "m2"),
    *("ess_fraction", "sequence_ess_fraction", "tokens", *CLIP_METRICS),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Clip:
    """Which clip a training has: Etalon's loss of the same kind, and its range around 1.

    ``fault`` says why nothing can be said of it, None where it can.
    """

    loss: str
    low: float
    high: float
    fault: str | None = None


class WeightMeter:
    """Follows the weights of a model from where they are now."""

    def __init__(self, model: nn.Module, *, versions: int = 1) -> None:
        """Begin at θ_0; the newest ``versions`` that sampled are kept, at most 16.

        Raises:
            ValueError: this process does not hold the weights; the message says why.
        """
        self._weights = ForeignWeights(model)
        self._now = self._weights.values()
        self._sampled: dict[int, Tensor] = {}
        self._versions = min(versions, MOST_VERSIONS)
        self._drift, self._lags = DriftTracker(self._now), LagTracker(self._now)
        self._gradient: Tensor | None = None
        self._rate, self._decay, self._steps = 0.0, torch.zeros(()), 0

    def published(self, step: int) -> None:
        """Take the present weights, those after ``step`` updates, for what samples from now on."""
        self._sampled[step] = self._now
        while len(self._sampled) > self._versions:
            del self._sampled[min(self._sampled)]

    def before_update(self, optimizer: torch.optim.Optimizer) -> None:
        """Keep the gradient, which may be clipped already, and the rate of the update to come."""
        self._gradient = self._weights.gradients()
        self._rate = float(optimizer.param_groups[0]["lr"])
        if not self._steps:
            self._decay = self._weights.decays(optimizer)

    @torch.no_grad()
    def after_update(
        self, step: int, *, skipped: bool, ages: set[int]
    ) -> tuple[dict[str, Any], dict[str, str], list[tuple[int, float, float]]]:
        """Measure the update; return the row's fields, why some are None, and (lag, norm, Σ η).

        ``skipped`` says that the optimizer took no step, ``ages`` how old the rollouts were.
        """
        if self._gradient is None:
            return {}, dict.fromkeys(OF_THE_WEIGHTS, "no gradient was seen"), []
        rate = 0.0 if skipped else self._rate
        behavior = self._sampled.get(step - min(ages)) if ages else None
        before = self._now if behavior is None else behavior
        found = self._drift.before_update(self._now, before, self._gradient)
        self._now = self._weights.values()
        found |= self._drift.after_update(self._now, rate or 1.0, self._decay if rate else 0.0)
        del found["grad_norm"]  # of the clipped gradient
        ended = self._lags.after_update(self._steps, self._now, rate)
        self._steps += 1
        together = [*found.values(), *(norm for _, norm, _ in ended)]
        values = torch.stack([each.double() for each in together]).tolist()  # one wait
        norms = values[len(found) :]
        numbers: dict[str, Any] = dict(zip(found, values, strict=False))
        reasons = {}
        if not rate:
            reasons["update_norm"] = "the optimizer took no step, or at a learning rate of 0"
        if "gradient_cosine" not in numbers:
            reasons["gradient_cosine"] = "there is no gradient before the first"
        elif math.isnan(numbers["gradient_cosine"]) and math.isfinite(numbers["update_norm"]):
            reasons["gradient_cosine"] = NO_DIRECTION
        if len(ages) > 1:
            reasons["cycle_drift"] = MIXED
        elif behavior is None:
            reasons["cycle_drift"] = UNSEEN
        lags = [(lag, norm, rates) for (lag, _, rates), norm in zip(ended, norms, strict=True)]
        return numbers | dict.fromkeys(reasons), reasons, lags


class PolicyMeter:
    """Measures the rollouts that each learner step of this process learns from."""

    def __init__(self, clip: Clip, *, unclipped: bool) -> None:
        """Begin; ``unclipped`` says that the clip can remove nothing, whatever it is."""
        self._clip, self._unclipped = clip, unclipped
        self._clipping, self._importance = ClippingPool(), WeightPool()

    @torch.no_grad()
    def measure(self, seen: Seen, drift: float | None) -> tuple[dict[str, Any], dict[str, str]]:
        """Return the row's fields of a step and why some are None; ``drift`` is ‖θ_t − φ‖."""
        numbers: dict[str, Any] = {}
        if seen.ages:
            numbers["staleness_mean"] = sum(seen.ages) / len(seen.ages)
            numbers["staleness_max"] = float(max(seen.ages))
        if not seen.batches:
            return numbers, {}
        parts = {name: [each[name] for each in seen.batches] for name in seen.batches[0]}
        log_ratio, mask, advantage = (joined(parts[n]) for n in ("log_ratio", "mask", "advantage"))
        clip = self._clip
        found = batch_metrics(
            log_ratio,
            joined(parts["log_prob"]),
            advantage,
            mask,
            clip.low,
            clip.high,
            loss=clip.loss,
        )
        numbers |= {name: float(value) for name, value in found.items()}
        numbers["tokens"] = int(mask.sum())
        reasons: dict[str, str] = {}
        if drift and math.isfinite(drift) and not seen.by_engine:
            self._importance.add((log_ratio * mask).sum(dim=1), numbers["m2"], drift)
            numbers["weight_radii"] = self._importance.radii()
            if clip.fault is None and clip.high > 0:
                batch = (clip.loss, log_ratio, advantage, mask, drift, clip.low, clip.high)
                self._clipping.add(*loss_critical_drifts(*batch))
                numbers["clipping_radii"] = self._clipping.radii()
        if seen.by_engine or clip.fault is not None:
            reasons = dict.fromkeys(CLIP_METRICS, clip.fault or BY_ENGINE)
        if self._unclipped:
            numbers |= dict.fromkeys(CLIP_METRICS)
        if not bool((advantage != 0).any()):
            reasons = dict.fromkeys(("clipped_gradient_mass", "m2"), NO_ADVANTAGE) | reasons
        elif math.isnan(numbers["m2"]) and math.isfinite(numbers["log_ratio_rms"]):
            reasons["m2"] = NO_MOVE
        if self._unclipped:  # which the run says already
            reasons = {name: why for name, why in reasons.items() if name not in CLIP_METRICS}
        return numbers | dict.fromkeys(reasons), reasons


def joined(tensors: Sequence[Tensor]) -> Tensor:
    """Return micro-batches as one batch on the host, shorter rows padded with 0 at their ends."""
    if tensors[0].dim() == 1:
        return torch.cat(list(tensors)).float().cpu()
    longest = max(each.shape[1] for each in tensors)
    pad = torch.nn.functional.pad
    return torch.cat([pad(each, (0, longest - each.shape[1])) for each in tensors]).float().cpu()
