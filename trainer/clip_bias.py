"""The paired clip bias of a live run, streamed from its own training batches.

On a stale batch the clip removes some tokens' gradient; what it removes, taken alone, is the clip
bias c = H_clipped − H_unclipped of that batch. One vector of one batch is mostly noise, so vectors
of like age are gathered over a window and judged by pairs of different batches, like shards
(theory.md §4, "Cost"). Ages 1, 2–3, 4–7, … share a window and are told by their lowest. The
backward pass goes through the sequences with a clipped token only.
"""

import math
from collections import deque
from collections.abc import Iterable
from dataclasses import replace

import torch
from torch import Tensor, nn

from .bias import Bias, CountSketch, bias_of, gram_of
from .policy import FlatWeights
from .rollout import Rollouts, score

WINDOW = 16
"""Batches of like age that make an estimate."""


class ClipBiasStream:
    """Gathers the clip bias every so many stale learner steps.

    Which stale steps are measured is chosen so that every age comes up: the interval is made
    coprime to the cycle.
    """

    def __init__(
        self, policy: nn.Module, weights: FlatWeights, *, every: int, max_staleness: int
    ) -> None:
        """Measure about every ``every``-th stale step; at S = 0 nothing is ever stale."""
        self._policy, self._weights = policy, weights
        self._every = every
        while math.gcd(self._every, max(1, max_staleness)) > 1:
            self._every += 1
        self._stale_steps = 0
        self._sketch = CountSketch(weights.vector.numel(), weights.vector.device)
        self._windows: dict[int, deque[tuple[Tensor, Tensor]]] = {}

    def due(self, staleness: int) -> bool:
        """Count a learner step of this age and say whether it is to be measured."""
        if staleness == 0:
            return False
        self._stale_steps += 1
        return (self._stale_steps - 1) % self._every == 0

    def measure(
        self,
        staleness: int,
        batch: Rollouts,
        advantage_B: Tensor,
        log_ratio_B_T: Tensor,
        epsilon: tuple[float, float],
    ) -> Bias | None:
        """Add the clip bias of this batch and return the estimate when the window is full.

        Call it at θ_t, with the batch's own gradient in ``weights.gradient``; the gradient is left
        as it was found.
        """
        own = self._weights.gradient.clone()
        removed = self._removed(batch, advantage_B, log_ratio_B_T.detach(), epsilon)
        self._weights.gradient.copy_(own)
        window = self._windows.setdefault(lowest_of_like_age(staleness), deque(maxlen=WINDOW))
        window.append((self._sketch(-removed), self._sketch(removed - own)))
        return _estimate(window) if len(window) == WINDOW else None

    def _removed(
        self,
        batch: Rollouts,
        advantage_B: Tensor,
        log_ratio_B_T: Tensor,
        epsilon: tuple[float, float],
    ) -> Tensor:
        """Return the uphill gradient of the tokens that the clip removes, 0 if there are none."""
        ratio = log_ratio_B_T.exp()
        advantage = advantage_B.unsqueeze(1)
        clipped = ((ratio > 1 + epsilon[1]) & (advantage > 0)) | (
            (ratio < 1 - epsilon[0]) & (advantage < 0)
        )
        clipped &= batch.mask_B_T.bool()
        rows = clipped.any(dim=1)
        self._weights.gradient.zero_()
        if bool(rows.any()):
            log_prob, _ = score(self._policy, _rows(batch, rows))
            lengths = batch.mask_B_T[rows].sum(dim=1, keepdim=True).clamp_min(1)
            weight = (ratio * advantage * clipped)[rows] / lengths
            torch.autograd.backward((log_prob * weight).sum() / len(advantage_B))
        return self._weights.gradient.clone()


def lowest_of_like_age(staleness: int) -> int:
    """Return the lowest age that shares a window with this one: a power of two."""
    return 1 << (staleness.bit_length() - 1)


def _estimate(window: Iterable[tuple[Tensor, Tensor]]) -> Bias:
    bias, unclipped = (torch.stack(rows) for rows in zip(*window, strict=True))
    return bias_of(gram_of({"clipped": unclipped + bias, "fresh": unclipped}), "clipped")


def _rows(batch: Rollouts, chosen_B: Tensor) -> Rollouts:
    """Return what ``score`` reads of the chosen rollouts; prompts and rewards stay as they are."""
    return replace(
        batch,
        prompt_ids_B_L=batch.prompt_ids_B_L[chosen_B],
        prompt_mask_B_L=batch.prompt_mask_B_L[chosen_B],
        completion_ids_B_T=batch.completion_ids_B_T[chosen_B],
        mask_B_T=batch.mask_B_T[chosen_B],
    )
