"""The paired clip bias of a live run, streamed from its own training batches.

On a stale batch the clip takes some tokens' gradient, or a part of it; what it takes, alone and
with its sign turned, is the clip bias c = H_clipped − H_unclipped of that batch. One vector of one
batch is mostly noise, so vectors of like age are gathered over a window and judged by pairs of
different batches, like shards (theory.md §4, "Cost"). Ages 1, 2–3, 4–7, … share a window and are
told by their lowest. The backward pass goes through the sequences with a clipped token only; on a
GPU, where a small model costs less to replay than to tell what to do, through all of them.
"""

import math
from collections import deque
from collections.abc import Mapping
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from .backward import is_one_piece, parts_of, unpadded
from .bias import Bias, CountSketch, bias_of
from .graphs import Captured, cuda_graphs
from .policy import FlatWeights
from .rollout import Rollouts, pieces, score
from .transfer import on_host

WINDOW = 16
"""Batches of like age that make an estimate."""

REPLAYED_UP_TO = 2**27
"""Weights of a model up to which a GPU is kept waiting by the telling rather than by the work."""


class ClipBiasStream:
    """Gathers the clip bias every so many stale learner steps.

    Which stale steps are measured is chosen so that every age comes up: the interval is made
    coprime to the cycle.
    """

    def __init__(
        self,
        policy: nn.Module,
        weights: FlatWeights,
        *,
        every: int,
        max_staleness: int,
        at_once: int | None = None,
    ) -> None:
        """Measure about every ``every``-th stale step; at S = 0 nothing is ever stale.

        ``at_once`` is how many rollouts are scored together, None for all.
        """
        self._policy, self._weights, self._at_once = policy, weights, at_once
        self._every = every
        while math.gcd(self._every, max(1, max_staleness)) > 1:
            self._every += 1
        self._stale_steps = 0
        self._windows: dict[int, _Window] = {}
        self.captured: Captured | None = None
        whole = sum(parameter.numel() for parameter in policy.parameters())
        small = whole <= REPLAYED_UP_TO
        if weights.vector.is_cuda and small and is_one_piece(policy, at_once):
            self.captured = Captured(self._through_all, cuda_graphs())

    @cached_property
    def _sketch(self) -> CountSketch:
        """The map of all batches: of a large model it takes more room than the weights."""
        return CountSketch(self._weights.vector.numel(), self._weights.vector.device)

    def state_dict(self) -> dict[str, Any]:
        """Return how many stale steps were counted, and the windows by lowest age."""
        windows = {age: window.state_dict() for age, window in self._windows.items()}
        return {"stale_steps": self._stale_steps, "windows": windows}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of another stream of the same run."""
        self._stale_steps = state["stale_steps"]
        self._windows = {age: _Window() for age in state["windows"]}
        for age, window in self._windows.items():
            window.load_state_dict(state["windows"][age])

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
        taken_B_T: Tensor,
        divisor_B: Tensor,
    ) -> Bias | None:
        """Add the clip bias of this batch and return the estimate when the window is full.

        Call it at θ_t, with the batch's own gradient in ``weights.gradient``; the gradient is left
        as it was found.

        Args:
            staleness: age of the batch.
            batch: the rollouts.
            taken_B_T: what the clip takes of the factor of ∇log π_θ of each token, Δw·A; 0 where
                it takes nothing and on padding.
            divisor_B: by what the loss divides the sum over a rollout's tokens.
        """
        own = self._weights.gradient.clone()
        removed = self._removed(batch, taken_B_T, divisor_B)
        self._weights.gradient.copy_(own)
        window = self._windows.setdefault(lowest_of_like_age(staleness), _Window())
        window.add(self._sketch(-removed), self._sketch(removed - own))
        return window.estimate() if len(window) == WINDOW else None

    def _removed(self, batch: Rollouts, taken_B_T: Tensor, divisor_B: Tensor) -> Tensor:
        """Return the uphill gradient that the clip takes away, 0 if there is none."""
        if self.captured is not None and not batch.padded:
            self.captured(*parts_of(batch), taken_B_T, divisor_B)
            return self._weights.gradient.clone()
        rows = (taken_B_T != 0).any(dim=1).nonzero().squeeze(1)
        self._weights.gradient.zero_()
        if len(rows) > 0:
            clipped = batch.rows(rows)
            weight = taken_B_T[rows] / divisor_B[rows].clamp_min(1).unsqueeze(1)
            for piece in pieces(clipped, self._at_once):
                log_prob, _ = score(self._policy, clipped.rows(piece))
                torch.autograd.backward((log_prob * weight[piece]).sum() / len(divisor_B))
        return self._weights.gradient.clone()

    def _through_all(self, *tensors: Tensor) -> list[Tensor]:
        """Put the same into ``weights.gradient`` by way of every sequence, for ``Captured``."""
        *parts, taken_B_T, divisor_B = tensors
        self._weights.gradient.zero_()
        log_prob, _ = score(self._policy, unpadded(*parts))
        weight = taken_B_T / divisor_B.clamp_min(1).unsqueeze(1)
        torch.autograd.backward((log_prob * weight).sum() / len(divisor_B))
        return []


def lowest_of_like_age(staleness: int) -> int:
    """Return the lowest age that shares a window with this one: a power of two."""
    return 1 << (staleness.bit_length() - 1)


class _Window:
    """The last batches of like age, and the inner products of their vectors.

    A new batch adds one row and one column; nothing is multiplied twice.
    """

    def __init__(self) -> None:
        self._vectors: deque[tuple[Tensor, Tensor]] = deque(maxlen=WINDOW)
        self._products = {pair: np.zeros((0, 0)) for pair in product(range(2), range(2))}

    def state_dict(self) -> dict[str, Any]:
        return {"vectors": list(self._vectors), "products": list(self._products.values())}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._vectors.extend((bias, unclipped) for bias, unclipped in state["vectors"])
        self._products = dict(zip(self._products, state["products"], strict=True))

    def __len__(self) -> int:
        return len(self._vectors)

    def add(self, bias: Tensor, unclipped: Tensor) -> None:
        """Take in the clip bias and the unclipped gradient of one batch; the oldest leaves."""
        first = len(self._vectors) == WINDOW
        self._vectors.append((bias, unclipped))
        newest = (bias, unclipped)
        products = {}
        for i, j in self._products:
            products[f"row {i} {j}"] = _dots([(newest[i], each[j]) for each in self._vectors])
            products[f"column {i} {j}"] = _dots([(each[i], newest[j]) for each in self._vectors])
        host = on_host(products)
        for (i, j), old in self._products.items():
            grown = np.empty((len(self._vectors), len(self._vectors)))
            grown[:-1, :-1] = old[first:, first:]
            grown[-1, :], grown[:, -1] = host[f"row {i} {j}"], host[f"column {i} {j}"]
            self._products[i, j] = grown

    def estimate(self) -> Bias:
        """Judge the window like shards."""
        bias, cross, back, unclipped = (
            self._products[pair] for pair in ((0, 0), (0, 1), (1, 0), (1, 1))
        )
        return bias_of(
            {
                ("clipped", "clipped"): bias + cross + back + unclipped,
                ("clipped", "fresh"): cross + unclipped,
                ("fresh", "clipped"): back + unclipped,
                ("fresh", "fresh"): unclipped,
            },
            "clipped",
        )


def _dots(pairs: list[tuple[Tensor, Tensor]]) -> Tensor:
    """Return the inner product of each pair."""
    return torch.stack([torch.dot(left, right) for left, right in pairs])
