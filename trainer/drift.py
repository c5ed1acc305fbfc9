"""How far the weights move: per step, within a cycle, from the start, along the path, over lags.

Parameter space, on fp32 weights, in Euclidean units (theory.md §4, "Drift").
"""

import torch
from torch import Tensor

from .bias import CountSketch

EXACT_UP_TO = 2**24
"""Models of more weights keep sketches of them instead of snapshots for the lags."""


class DriftTracker:
    """Follows the weights of one run from θ_0."""

    def __init__(self, start: Tensor) -> None:
        self._start = start.clone()
        self._before = start.clone()
        self._path_length = torch.zeros((), device=start.device, dtype=torch.float64)
        self._last_gradient: Tensor | None = None

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
        self, weights: Tensor, learning_rate: float, weight_decay: float
    ) -> dict[str, Tensor]:
        """Measure the update θ_t → θ_{t+1}.

        Returns:
            ``update_norm`` = ‖u_t‖ with θ_{t+1} − θ_t = −η_t·u_t after removing the decoupled
            weight decay −η_t·λ·θ_t; ``displacement`` = ‖θ_{t+1} − θ_0‖; ``path_length``.
        """
        moved = weights - self._before
        self._path_length += torch.linalg.vector_norm(moved)
        if weight_decay:
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
    copy in all, and log2(T) snapshots are kept. Beyond ``exact_up_to`` weights the snapshots are
    CountSketches, whose norms have a standard error of 0.28 %.
    """

    def __init__(self, start: Tensor, exact_up_to: int = EXACT_UP_TO) -> None:
        """Begin all windows at θ_0 = ``start``."""
        self._sketch = CountSketch(start.numel(), start.device, exact_up_to=exact_up_to)
        self._start = self._sketch(start)
        self._windows: dict[int, tuple[Tensor, float]] = {}
        self._rate_sum = 0.0

    def after_update(
        self, step: int, weights: Tensor, learning_rate: float
    ) -> list[tuple[int, float, float]]:
        """Return (lag, ‖Δθ‖ over it, Σ η over it) for each window that ends with this step."""
        self._rate_sum += learning_rate
        ended, lag = [], 2
        sketched: Tensor | None = None
        while (step + 1) % lag == 0:
            sketched = self._sketch(weights) if sketched is None else sketched
            snapshot, rate_sum = self._windows.get(lag, (self._start, 0.0))
            norm = float(torch.linalg.vector_norm(sketched - snapshot))
            ended.append((lag, norm, self._rate_sum - rate_sum))
            self._windows[lag] = (sketched, self._rate_sum)
            lag *= 2
        return ended
