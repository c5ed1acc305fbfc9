"""Measures somebody else's training: the way of its weights, and what its batches tell of drift.

The same estimators as for Etalon's own runs (``drift``, ``clipping``), on what a ``Shoulder`` saw.
"""

import math
from collections.abc import Mapping, Sequence
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
UNSEEN = "which weights sampled the rollouts was not seen"
OF_THE_POLICY = (
    *("staleness_mean", "staleness_max", "approx_kl", "log_ratio_rms", "m2"),
    *("ess_fraction", "sequence_ess_fraction", "tokens", *CLIP_METRICS),
)


class WeightMeter:
    """Follows the weights of a model from where they are now."""

    def __init__(self, model: nn.Module) -> None:
        """Begin at θ_0.

        Raises:
            ValueError: this process does not hold the weights; the message says why.
        """
        self._weights = ForeignWeights(model)
        self._now = self._weights.values()
        self._behavior: Tensor | None = None
        self._drift, self._lags = DriftTracker(self._now), LagTracker(self._now)
        self._gradient: Tensor | None = None
        self._rate = 0.0

    def generated(self) -> None:
        """Take the present weights for those that sample from now on."""
        self._behavior = self._now

    def before_update(self, learning_rate: float) -> None:
        """Keep the gradient, which may be clipped already, and the rate of the update to come."""
        self._gradient, self._rate = self._weights.gradients(), learning_rate

    @torch.no_grad()
    def after_update(
        self, step: int, weight_decay: float
    ) -> tuple[dict[str, Any], dict[str, str], list[tuple[int, float, float]]]:
        """Measure the update; return the row's fields, why some are None, and (lag, norm, Σ η)."""
        if self._gradient is None or not self._rate:
            why = "the optimizer took no step, or at a learning rate of 0"
            return {}, dict.fromkeys(OF_THE_WEIGHTS, why), []
        behavior = self._now if self._behavior is None else self._behavior
        found = self._drift.before_update(self._now, behavior, self._gradient)
        self._now = self._weights.values()
        found |= self._drift.after_update(self._now, self._rate, weight_decay)
        del found["grad_norm"]  # of the clipped gradient
        ended = self._lags.after_update(step, self._now, self._rate)
        together = [*found.values(), *(norm for _, norm, _ in ended)]
        values = torch.stack([each.double() for each in together]).tolist()  # one wait
        norms = values[len(found) :]
        numbers: dict[str, Any] = dict(zip(found, values, strict=False))
        reasons = {} if step else {"gradient_cosine": "there is no gradient before the first"}
        if math.isnan(numbers.get("gradient_cosine", 0.0)) and math.isfinite(
            numbers["update_norm"]
        ):
            numbers["gradient_cosine"], reasons["gradient_cosine"] = None, NO_DIRECTION
        if self._behavior is None:
            numbers["cycle_drift"], reasons["cycle_drift"] = None, UNSEEN
        lags = [(lag, norm, rates) for (lag, _, rates), norm in zip(ended, norms, strict=True)]
        return numbers, reasons, lags


class PolicyMeter:
    """Measures the rollouts that each learner step of this process learns from."""

    def __init__(self, setting: Mapping[str, Any]) -> None:
        """Begin; ``setting`` holds ``loss``, ``clip_epsilon`` and what else ``config_of`` found."""
        low = float(setting["clip_epsilon"])
        self._loss = str(setting["loss"])
        self._range = (low, float(setting.get("clip_epsilon_high") or low))
        self._unclipped = setting.get("max_staleness") == 0
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
        found = batch_metrics(
            log_ratio, joined(parts["log_prob"]), advantage, mask, *self._range, loss=self._loss
        )
        numbers |= {name: float(value) for name, value in found.items()}
        numbers["tokens"] = int(mask.sum())
        if drift and math.isfinite(drift):
            batch = (log_ratio, advantage, mask)
            self._clipping.add(*loss_critical_drifts(self._loss, *batch, drift, *self._range))
            self._importance.add((log_ratio * mask).sum(dim=1), numbers["m2"], drift)
            numbers["clipping_radii"] = self._clipping.radii()
            numbers["weight_radii"] = self._importance.radii()
        if self._unclipped:
            numbers |= dict.fromkeys(CLIP_METRICS)
        reasons = {}
        if not bool((advantage != 0).any()):
            reasons = dict.fromkeys(("clipped_gradient_mass", "m2"), NO_ADVANTAGE)
        elif math.isnan(numbers["m2"]) and math.isfinite(numbers["log_ratio_rms"]):
            reasons = {"m2": NO_MOVE}
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
