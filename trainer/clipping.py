"""What the clip and the importance weights do to a batch, and at which drift the clip takes hold.

Sign conventions: ℓ = log r = log π_θ − log π_φ. What counts as clipped is the loss's own matter
(``clip_criterion``). Definitions: theory.md §4.
"""

import math
from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .clip_criterion import clip_of
from .losses import LOSSES

CLIP_CRITERIA = (0.0005, 0.001, 0.003, 0.01, 0.03, 0.1)
"""Active-clip fractions p* for which a clipping radius is kept."""

TOKENS_PER_CRITERION = 50
"""A radius for p* needs 50/p* pooled tokens with A ≠ 0: 0.1 % of one small batch is no token."""

POOL_TOKENS = 2**17
"""Enough for p* = 0.05 %, which needs 100 000."""

POOLED_SEQUENCES = 2**12
LEAST_SEQUENCES = 1000
M2_LIMIT = 0.04
"""Second moment of the log-ratio at which trust-region methods mask (M2PO; theory.md §7)."""
ESS_LIMIT = 0.5
ESS_BISECTIONS = 20
MOST_SPREADS = 1e3


def batch_metrics(
    log_ratio_B_T: Tensor,
    log_prob_B_T: Tensor,
    advantage_B: Tensor,
    mask_B_T: Tensor,
    epsilon_low: float,
    epsilon_high: float,
    *,
    loss: str = "grpo",
    proximal_log_ratio_B_T: Tensor | None = None,
) -> dict[str, Tensor]:
    """Return every clip and weight statistic of one batch as scalars on the batch's device.

    Keys are columns of ``StepMetrics``: ``clip_fraction_low/high``, ``outside_clip_fraction``,
    ``clipped_gradient_mass`` = Σ_clipped Δw|A|(1−p) / Σ w|A|(1−p), where w is the weight of a
    token's gradient without the clip and Δw what the clip takes of it, ``approx_kl`` =
    mean(r − 1 − ℓ) ≈ KL(φ‖θ) in nats per token, ``log_ratio_rms``, ``m2`` = mean ℓ² over the
    tokens whose ratio moved the way the advantage pushes, ``ess_fraction`` per token and
    ``sequence_ess_fraction`` per sequence, both on untruncated weights. Statistics of an empty
    set, such as the clipped mass when every advantage is 0, are NaN. A loss that is not clipped
    below has no ``clip_fraction_low``.

    Args:
        log_ratio_B_T: ℓ per response token.
        log_prob_B_T: log π_θ of the sampled tokens, ≤ 0.
        advantage_B: advantage of each rollout.
        mask_B_T: 1 for response tokens, 0 for padding.
        epsilon_low: clip range below 1.
        epsilon_high: clip range above 1.
        loss: whose clip it is.
        proximal_log_ratio_B_T: log π_θ − log π_prox; None at the first update on a batch.
    """
    mask = mask_B_T.bool()
    clip = clip_of(
        loss,
        log_ratio_B_T,
        advantage_B,
        mask_B_T,
        epsilon_low,
        epsilon_high,
        proximal_log_ratio_B_T,
    )
    log_ratio = log_ratio_B_T[mask]
    advantage = advantage_B.unsqueeze(1).expand_as(mask)[mask]
    clipped = (clip.low | clip.high)[mask]
    unlikely = -torch.expm1(log_prob_B_T[mask])
    mass = clip.weight[mask] * advantage.abs() * unlikely
    taken = (clip.weight - clip.kept)[mask] * advantage.abs() * unlikely
    moved = log_ratio * advantage > 0
    sequence_log_ratio = (log_ratio_B_T * mask_B_T).sum(dim=1)
    below = {"clip_fraction_low": clip.low[mask].float().mean()} if LOSSES[loss].clips_below else {}
    return below | {
        "clip_fraction_high": clip.high[mask].float().mean(),
        "outside_clip_fraction": clip.outside[mask].float().mean(),
        "clipped_gradient_mass": taken[clipped].sum() / mass.sum(),
        "approx_kl": (torch.expm1(log_ratio) - log_ratio).mean(),
        "log_ratio_rms": log_ratio.square().mean().sqrt(),
        "m2": log_ratio[moved].square().mean(),
        "ess_fraction": ess_fraction(log_ratio),
        "sequence_ess_fraction": ess_fraction(sequence_log_ratio),
    }


def ess_fraction(log_weights_N: Tensor) -> Tensor:
    """Return Kish's effective sample size (Σw)²/(n Σw²) of w = exp(log_weights), in (0, 1].

    Computed relative to the largest weight, so that large log-weights do not overflow. NaN for no
    weights.
    """
    if log_weights_N.numel() == 0:
        return log_weights_N.new_tensor(math.nan)
    weights = (log_weights_N - log_weights_N.max()).exp()
    kish = weights.sum().square() / (weights.numel() * weights.square().sum())
    return kish.clamp_max(1.0)  # rounding may pass 1 by one unit in the last place


class ClippingPool:
    """Critical drifts of the most recent tokens with an advantage, pooled over learner steps.

    ``radii`` reads clipping radii off it: the p*-quantile of the critical drifts of *all* tokens is
    the drift at which the predicted active-clip fraction reaches p*, so no forward pass is needed.
    Tokens without an advantage are never clipped; they are counted, not kept.
    """

    def __init__(self, capacity: int = POOL_TOKENS) -> None:
        """Start empty; batches are forgotten, oldest first, beyond ``capacity`` kept tokens."""
        self._capacity = capacity
        self._batches: deque[tuple[NDArray[np.float32], int]] = deque()
        self._kept = self._all = 0

    def state_dict(self) -> dict[str, Any]:
        """Return the pooled batches."""
        return {"batches": list(self._batches), "kept": self._kept, "all": self._all}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Pool what another pool of this capacity held."""
        self._batches = deque((drifts, tokens) for drifts, tokens in state["batches"])
        self._kept, self._all = state["kept"], state["all"]

    def add(self, critical_drift_N: Tensor, advantage_N: Tensor) -> None:
        """Pool one batch of N tokens."""
        kept, tokens = critical_drift_N[advantage_N != 0].detach().cpu().numpy(), len(advantage_N)
        self._kept += kept.size
        self._all += tokens
        if kept.size == 0 and self._batches:  # nothing to keep: no batch, however many there are
            kept, before = self._batches.pop()
            tokens += before
        self._batches.append((kept, tokens))
        while self._kept - self._batches[0][0].size >= self._capacity:
            oldest, tokens = self._batches.popleft()
            self._kept -= oldest.size
            self._all -= tokens

    def radii(self) -> dict[str, float | None]:
        """Return the clipping radius of each p* of ``CLIP_CRITERIA``, keyed by p* as text.

        None while fewer than 50/p* tokens with an advantage are pooled; inf when fewer than a
        share p* of all tokens would ever be clipped along the realised direction.
        """
        radii: dict[str, float | None] = dict.fromkeys(map(str, CLIP_CRITERIA))
        known = [p for p in CLIP_CRITERIA if self._kept * p >= TOKENS_PER_CRITERION]
        if not known:
            return radii
        pooled = np.concatenate([drifts for drifts, _ in self._batches])
        places = {p: math.ceil(p * self._all) - 1 for p in known}
        reached = [k for k in places.values() if k < pooled.size]
        ordered = np.partition(pooled, reached) if reached else pooled
        for p, k in places.items():
            radii[str(p)] = float(ordered[k]) if k < pooled.size else math.inf
        return radii


class WeightPool:
    """At which drift the importance weights themselves become useless, by the same scaling.

    Two criteria for losses whose clip does not take hold first (theory.md §4): M2 = mean ℓ² = 0.04
    over the tokens whose ratio moved the way the advantage pushes, which grows as the square of the
    drift; and a sequence ESS of one half, found by scaling pooled sequence log-ratios.
    """

    def __init__(self, capacity: int = POOLED_SEQUENCES) -> None:
        """Start empty; sequences are forgotten, oldest batch first, beyond ``capacity``."""
        self._capacity = capacity
        self._batches: deque[tuple[NDArray[np.float32], float]] = deque()

    def state_dict(self) -> dict[str, Any]:
        """Return the pooled batches."""
        return {"batches": list(self._batches)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Pool what another pool of this capacity held."""
        self._batches = deque((batch, m2) for batch, m2 in state["batches"])

    def add(self, sequence_log_ratio_B: Tensor, m2: float, drift: float) -> None:
        """Pool one batch: log-ratios of whole sequences, and M2 (NaN if no token moved)."""
        per_drift = (sequence_log_ratio_B / drift).detach().cpu().numpy()
        self._batches.append((per_drift, m2 / drift**2))
        while sum(len(batch) for batch, _ in self._batches) - len(self._batches[0][0]) >= (
            self._capacity
        ):
            self._batches.popleft()

    def radii(self) -> dict[str, float | None]:
        """Return the drifts at which M2 reaches 0.04 and the sequence ESS one half.

        None while fewer than 1 000 sequences are pooled; inf when a criterion is never reached.
        """
        pooled = [batch for batch, _ in self._batches]
        if sum(map(len, pooled)) < LEAST_SEQUENCES:
            return {"m2": None, "sequence_ess": None}
        per_drift = [m2 for _, m2 in self._batches if math.isfinite(m2)]
        mean = sum(per_drift) / len(per_drift) if per_drift else 0.0
        return {
            "m2": math.sqrt(M2_LIMIT / mean) if mean > 0 else math.inf,
            "sequence_ess": _drift_at_ess(np.concatenate(pooled).astype(np.float64)),
        }


def _drift_at_ess(per_drift_N: NDArray[np.float64]) -> float:
    """Return the scale s at which the ESS fraction of exp(s·x) falls to one half; inf if never."""

    def ess(scale: float) -> float:
        weights = np.exp(scale * (per_drift_N - per_drift_N.max()))
        return float(weights.sum() ** 2 / (weights.size * (weights**2).sum()))

    spread = float(per_drift_N.std())
    if spread == 0:
        return math.inf
    low, high = 0.0, 1 / spread
    while ess(high) > ESS_LIMIT:
        low, high = high, 2 * high
        if high * spread > MOST_SPREADS:
            return math.inf
    for _ in range(ESS_BISECTIONS):
        middle = (low + high) / 2
        low, high = (middle, high) if ess(middle) > ESS_LIMIT else (low, middle)
    return (low + high) / 2
