"""What the clip of each loss does to each token, and at which drift it will.

Sign conventions: ℓ = log r = log π_θ − log π_φ. One definition for everything that speaks of
clipping: clip fractions, clipped mass, clipping radii and clip bias (theory.md §4).
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from .losses import LOSSES
from .objective import answer_log_ratio


class Clip(NamedTuple):
    """What a clip does to each token of a batch, [B, T] each; padding is the caller's to leave out.

    ``low`` and ``high`` mark the tokens that lose gradient at that end of the range, ``outside``
    those whose ratio is beyond it whatever their advantage. The gradient of a token is
    w·A·∇log π_θ: ``weight`` is w without the clip and ``kept`` with it.
    """

    low: Tensor
    high: Tensor
    outside: Tensor
    weight: Tensor
    kept: Tensor


def clip_of(
    loss: str,
    log_ratio_B_T: Tensor,
    advantage_B: Tensor,
    mask_B_T: Tensor,
    epsilon_low: float,
    epsilon_high: float,
    proximal_log_ratio_B_T: Tensor | None = None,
) -> Clip:
    """Return what the clip of a loss of ``LOSSES`` does to each token.

    A loss that clips ratios removes a token's gradient where r > 1 + ε_h and A > 0 or r < 1 − ε_l
    and A < 0; r is that of the token, of its answer, or to the proximal policy. One that truncates
    weights cuts r down to 1 + ε_h, whatever the sign of A ≠ 0.

    Args:
        loss: its name.
        log_ratio_B_T: ℓ per response token.
        advantage_B: advantage of each rollout.
        mask_B_T: 1 for response tokens, 0 for padding.
        epsilon_low: range below 1; inf where the loss has none.
        epsilon_high: range above 1.
        proximal_log_ratio_B_T: log π_θ − log π_prox; None at the first update on a batch.
    """
    clips = LOSSES[loss].clips
    advantage = advantage_B.unsqueeze(1)
    ratio = weight = log_ratio_B_T.exp()
    if clips == "answer":
        ratio = weight = answer_log_ratio(log_ratio_B_T, mask_B_T).exp().expand_as(log_ratio_B_T)
    elif clips == "proximal":
        near = proximal_log_ratio_B_T
        ratio = torch.ones_like(weight) if near is None else near.exp()
    below, above = ratio < 1 - epsilon_low, ratio > 1 + epsilon_high
    if clips == "weight":
        high = above & (advantage != 0)
        kept = weight.clamp(max=1 + epsilon_high)
        return Clip(torch.zeros_like(below), high, above, weight, kept)
    low, high = below & (advantage < 0), above & (advantage > 0)
    return Clip(low, high, below | above, weight, weight.masked_fill(low | high, 0.0))


def loss_critical_drifts(
    loss: str,
    log_ratio_B_T: Tensor,
    advantage_B: Tensor,
    mask_B_T: Tensor,
    drift: float,
    epsilon_low: float,
    epsilon_high: float,
) -> tuple[Tensor, Tensor]:
    """Return the critical drift of everything that is clipped as one, and its advantage, [N] each.

    Of each response token, or of each answer where it is clipped as a whole. Where weights are
    truncated the advantage is its magnitude, for either sign is cut alike.

    Args:
        loss: one that has these, not ``decoupled``: its ratio does not grow with this drift.
        log_ratio_B_T: ℓ per response token.
        advantage_B: advantage of each rollout.
        mask_B_T: 1 for response tokens, 0 for padding.
        drift: ‖θ − φ‖ of the batch.
        epsilon_low: range below 1.
        epsilon_high: range above 1.
    """
    mask = mask_B_T.bool()
    advantage_N, log_ratio_N = advantage_B.unsqueeze(1).expand_as(mask)[mask], log_ratio_B_T[mask]
    clips = LOSSES[loss].clips
    if clips == "answer":
        advantage_N = advantage_B
        log_ratio_N = answer_log_ratio(log_ratio_B_T, mask_B_T).squeeze(1)
    elif clips == "weight":
        advantage_N, epsilon_low = advantage_N.abs(), 0.0  # no A is negative: it is never read
    return (
        critical_drifts(log_ratio_N, advantage_N, drift, epsilon_low, epsilon_high),
        advantage_N,
    )


def critical_drifts(
    log_ratio_N: Tensor, advantage_N: Tensor, drift: float, epsilon_low: float, epsilon_high: float
) -> Tensor:
    """Return, for each token, the drift at which scaling its log-ratio makes the clip remove it.

    Along the realised direction ℓ grows in proportion to the drift, so a token with A > 0 and
    ℓ > 0 is clipped at drift·log(1+ε_h)/ℓ, one with A < 0 and ℓ < 0 at drift·log(1−ε_l)/ℓ, and
    all others never (inf). The predicted active-clip fraction at drift ρ is the share of tokens
    whose critical drift is below ρ (theory.md §4, "R_batch").
    """
    never = torch.full_like(log_ratio_N, math.inf)
    high = drift * math.log1p(epsilon_high) / log_ratio_N
    low = drift * math.log1p(-epsilon_low) / log_ratio_N
    rising = (advantage_N > 0) & (log_ratio_N > 0)
    falling = (advantage_N < 0) & (log_ratio_N < 0)
    return torch.where(rising, high, torch.where(falling, low, never))
