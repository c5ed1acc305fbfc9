"""How far the weights move: per step, within a cycle, from the start, along the path, over lags.

Parameter space, on fp32 weights, in Euclidean units (theory.md §4, "Drift").
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

MEASURED_WHOLE_UP_TO = 2**22
BLOCK, BLOCKS = 64, 2**13
"""Larger models are measured on 8 192 random blocks of 64 weights side by side."""


class WeightSample:
    """A fixed random sample of the weights, scaled so that norms and products keep their size.

    The norms of a step read every weight several times, which costs a small share of a step in
    arithmetic but a large one in memory traffic. ‖x‖² estimated from m blocks of n is unbiased; its
    relative standard error is the blocks' coefficient of variation over √m, below 1 % unless a few
    blocks hold most of the norm. Up to 2²² weights the sample is the weights themselves.
    """

    degree = 1
    """How the sample scales with the weights."""

    def __init__(self, size: int, device: torch.device, whole_up_to: int = MEASURED_WHOLE_UP_TO):
        """Draw the blocks, the same for every run of this size."""
        self._rows: Tensor | None = None
        if size > whole_up_to:
            blocks = size // BLOCK
            chosen = torch.randperm(blocks, generator=torch.Generator().manual_seed(0))
            self._rows = chosen[:BLOCKS].sort().values.to(device)
            self._used = blocks * BLOCK
            self._scale = math.sqrt(size / (len(self._rows) * BLOCK))

    @property
    def is_whole(self) -> bool:
        """Whether the sample is the vector itself."""
        return self._rows is None

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the sample of a vector of this size; of a small one, the vector itself."""
        if self._rows is None:
            return vector
        return vector[: self._used].view(-1, BLOCK)[self._rows].mul_(self._scale).view(-1)


class DriftTracker:
    """Follows the weights of one run from θ_0, all of them or a ``WeightSample``."""

    def __init__(self, start: Tensor) -> None:
        self._start = start.clone()
        self._before = start.clone()
        self._path_length = torch.zeros((), device=start.device, dtype=torch.float64)
        self._last_gradient: Tensor | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return what has to be known between two learner steps besides θ_0."""
        return {"path_length": self._path_length, "last_gradient": self._last_gradient}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of another tracker of the same start."""
        self._path_length.copy_(state["path_length"])
        self._last_gradient = state["last_gradient"]

    def before_update(
        self, weights: Tensor, behavior: Tensor, gradient: Tensor
    ) -> dict[str, Tensor]:
        """Measure what the batch of this step sees, and keep θ_t for ``after_update``.

        Args:
            weights: θ_t.
            behavior: φ, the weights that sampled the batch.
            gradient: the raw gradient of the loss at θ_t, before it is clipped by norm: with
                momentum the *updates* correlate even on pure noise.

        Returns:
            ``cycle_drift`` = ‖θ_t − φ‖, ``grad_norm``, and ``gradient_cosine`` with the raw
            gradient of the step before (absent at the first step).
        """
        self._before.copy_(weights)
        found = {
            "cycle_drift": torch.linalg.vector_norm(weights - behavior),
            "grad_norm": torch.linalg.vector_norm(gradient),
        }
        if self._last_gradient is None:
            self._last_gradient = gradient.clone()
        else:
            scale = found["grad_norm"] * torch.linalg.vector_norm(self._last_gradient)
            found["gradient_cosine"] = torch.dot(gradient, self._last_gradient) / scale
            self._last_gradient.copy_(gradient)
        return found

    def after_update(
        self, weights: Tensor, learning_rate: float, weight_decay: float | Tensor
    ) -> dict[str, Tensor]:
        """Measure the update θ_t → θ_{t+1}; the decay may be one of each weight.

        Returns:
            ``update_norm`` = ‖u_t‖ with θ_{t+1} − θ_t = −η_t·u_t after removing the decoupled
            weight decay −η_t·λ·θ_t; ``displacement`` = ‖θ_{t+1} − θ_0‖; ``path_length``.
        """
        moved = weights - self._before
        self._path_length += torch.linalg.vector_norm(moved)
        if isinstance(weight_decay, Tensor):
            moved.addcmul_(self._before, weight_decay, value=learning_rate)
        elif weight_decay:
            moved.add_(self._before, alpha=learning_rate * weight_decay)
        return {
            "update_norm": torch.linalg.vector_norm(moved) / learning_rate,
            "displacement": torch.linalg.vector_norm(weights - self._start),
            "path_length": self._path_length.clone(),
        }


def kl_from(log_prob_start_B_T: Tensor, log_prob_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Return KL(θ_0‖θ_t) in nats per token on samples of θ_0, by k3 = mean(r − 1 − log r), ≥ 0.

    Args:
        log_prob_start_B_T: log π_θ0 of tokens that θ_0 sampled.
        log_prob_B_T: log π_θt of the same tokens.
        mask_B_T: 1 for response tokens.
    """
    log_ratio = (log_prob_B_T - log_prob_start_B_T)[mask_B_T.bool()]
    return (torch.expm1(log_ratio) - log_ratio).mean()


class LagTracker:
    """Measures ‖θ_{t+k} − θ_t‖ at lags k = 2, 4, 8, … over windows that follow each other.

    The snapshot of lag k is renewed every k learner steps, so a step costs about one norm and one
    copy in all, and log2(T) snapshots are kept, of all weights or of a ``WeightSample``.
    """

    def __init__(self, start: Tensor) -> None:
        """Begin all windows at θ_0 = ``start``."""
        self._start = start.clone()
        self._windows: dict[int, tuple[Tensor, float]] = {}
        self._rate_sum = 0.0

    def state_dict(self) -> dict[str, Any]:
        """Return the windows by lag, and Σ η so far; windows of one step share a snapshot."""
        return {"windows": dict(self._windows), "rate_sum": self._rate_sum}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from the state of another tracker of the same start."""
        self._windows = {lag: (kept, rates) for lag, (kept, rates) in state["windows"].items()}
        self._rate_sum = state["rate_sum"]

    def after_update(
        self, step: int, weights: Tensor, learning_rate: float
    ) -> list[tuple[int, Tensor, float]]:
        """Return (lag, ‖Δθ‖ over it, Σ η over it) for each window that ends with this step."""
        self._rate_sum += learning_rate
        ended, lag = [], 2
        kept: Tensor | None = None
        while (step + 1) % lag == 0:
            kept = weights.clone() if kept is None else kept
            snapshot, rate_sum = self._windows.get(lag, (self._start, 0.0))
            norm = torch.linalg.vector_norm(kept - snapshot)
            ended.append((lag, norm, self._rate_sum - rate_sum))
            self._windows[lag] = (kept, self._rate_sum)
            lag *= 2
        return ended
