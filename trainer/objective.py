"""The algorithm's formulas: group-relative advantages and the clipped surrogate."""

import torch
from torch import Tensor

EQUAL_WITHIN = 1e-6
"""A group whose standard deviation is below this share of its largest reward has equal rewards:
what is left is the rounding of their mean, which grows with the reward."""


def group_advantages(rewards_P_G: Tensor) -> Tensor:
    """Return (r − mean of the group) / standard deviation of the group (GRPO, arXiv 2402.03300).

    Args:
        rewards_P_G: rewards, one row per prompt, one column per rollout of its group.

    Returns:
        Advantages of the same shape. A group whose rewards are all equal teaches nothing: all 0.
    """
    centred = rewards_P_G - rewards_P_G.mean(dim=1, keepdim=True)
    std = rewards_P_G.std(dim=1, keepdim=True, correction=0)
    return torch.where(equal_rewards(rewards_P_G).unsqueeze(1), 0.0, centred / std)


def equal_rewards(rewards_P_G: Tensor) -> Tensor:
    """Return, for each group, whether its rewards are equal up to rounding, [P]."""
    std = rewards_P_G.std(dim=1, correction=0)
    return std <= EQUAL_WITHIN * rewards_P_G.abs().amax(dim=1)


def clipped_surrogate(
    log_ratio_B_T: Tensor,
    advantage_B: Tensor,
    mask_B_T: Tensor,
    epsilon_low: float,
    epsilon_high: float,
) -> Tensor:
    """Return the loss −mean over rollouts of mean over tokens of min(r·A, clip(r)·A).

    The behavior policy is explicit: r = π_θ/π_φ per token with φ the weights that sampled the
    rollout (theory.md §2), so the gradient at θ is minus the surrogate-gradient mapping H(θ, φ).

    Args:
        log_ratio_B_T: log π_θ − log π_φ per response token; the gradient flows through it.
        advantage_B: one advantage per rollout.
        mask_B_T: 1 for response tokens, 0 for padding.
        epsilon_low: clip range below 1.
        epsilon_high: clip range above 1.

    Returns:
        A scalar. A rollout without a response token counts as 0.
    """
    ratio = log_ratio_B_T.exp()
    clipped = ratio.clamp(1 - epsilon_low, 1 + epsilon_high)
    advantage = advantage_B.unsqueeze(1)
    gain = torch.minimum(ratio * advantage, clipped * advantage) * mask_B_T
    return -(gain.sum(dim=1) / mask_B_T.sum(dim=1).clamp_min(1)).mean()


def kl_penalty(log_prob_B_T: Tensor, reference_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Return the mean over rollouts of the mean over tokens of k3 = r − 1 − log r, r = π_ref/π_θ.

    This is GRPO's penalty (arXiv 2402.03300, eq. 4), in nats per token, ≥ 0. On tokens that π_θ
    sampled its mean estimates KL(π_θ‖π_ref) and its gradient is that of KL(π_ref‖π_θ); on stale
    tokens both are biased, and no importance ratio repairs them here.

    Args:
        log_prob_B_T: log π_θ of each response token; the gradient flows through it.
        reference_B_T: log π_ref of the same tokens.
        mask_B_T: 1 for response tokens, 0 for padding.

    Returns:
        A scalar. A rollout without a response token counts as 0.
    """
    log_ratio = (reference_B_T - log_prob_B_T) * mask_B_T
    k3 = torch.expm1(log_ratio) - log_ratio
    return (k3.sum(dim=1) / mask_B_T.sum(dim=1).clamp_min(1)).mean()
