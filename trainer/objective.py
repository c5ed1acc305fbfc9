"""The algorithm's formulas: group-relative advantages, and the surrogate of each loss.

Every loss is −mean over rollouts of Σ_t gain_t / divisor, and its gradient −Σ w·A·∇log π_θ with a
weight w per token (``clip_criterion``). They differ in the gain, in the divisor, and ``dr_grpo`` in
the advantage. The behavior policy φ, which sampled, is explicit in all of them (theory.md §2).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from .config import TrainerConfig
from .losses import LOSSES

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


def centred_rewards(rewards_P_G: Tensor) -> Tensor:
    """Return r − mean of the group, without a standard deviation (Dr. GRPO, arXiv 2503.20783).

    Dividing by it gives easy and hard prompts, whose rewards hardly vary, the largest weight. A
    group whose rewards are all equal up to rounding gives exactly 0.
    """
    centred = rewards_P_G - rewards_P_G.mean(dim=1, keepdim=True)
    return torch.where(equal_rewards(rewards_P_G).unsqueeze(1), 0.0, centred)


def clipped_gain(
    log_ratio_B_T: Tensor, advantage_B: Tensor, epsilon_low: float, epsilon_high: float
) -> Tensor:
    """Return min(r·A, clip(r)·A) of each token, r = exp(log_ratio) (PPO, arXiv 1707.06347).

    Its gradient is r·A·∇log r, or 0 where the ratio has passed the end of the range towards which
    the advantage pushes it: r > 1 + ε_h with A > 0, r < 1 − ε_l with A < 0.
    """
    ratio = log_ratio_B_T.exp()
    clipped = ratio.clamp(1 - epsilon_low, 1 + epsilon_high)
    advantage = advantage_B.unsqueeze(1)
    return torch.minimum(ratio * advantage, clipped * advantage)


def truncated_gain(log_ratio_B_T: Tensor, advantage_B: Tensor, epsilon_high: float) -> Tensor:
    """Return min(r, 1 + ε_h)·A·log r of each token, with the first factor held constant.

    Truncated importance sampling: every token keeps its gradient, min(r, 1 + ε_h)·A·∇log π_θ. The
    constant log π_φ in log r changes the value only; on-policy it is 0.
    """
    weight = log_ratio_B_T.detach().exp().clamp(max=1 + epsilon_high)
    return weight * advantage_B.unsqueeze(1) * log_ratio_B_T


def decoupled_gain(
    log_ratio_B_T: Tensor,
    proximal_log_ratio_B_T: Tensor,
    advantage_B: Tensor,
    epsilon_low: float,
    epsilon_high: float,
) -> Tensor:
    """Return π_prox/π_φ · min(u·A, clip(u)·A) of each token, u = π_θ/π_prox.

    Decoupled PPO (arXiv 2110.00641; for asynchronous RL AReaL, arXiv 2505.24298): what corrects for
    the sampler and what holds the update in a trust region are two policies. The first factor is
    constant and has no range, so staleness is not clipped at all.

    Args:
        log_ratio_B_T: log π_θ − log π_φ; φ sampled.
        proximal_log_ratio_B_T: log π_θ − log π_prox; π_prox is θ at the first update on the batch.
        advantage_B: one advantage per rollout.
        epsilon_low: clip range of u below 1.
        epsilon_high: clip range of u above 1.
    """
    weight = (log_ratio_B_T - proximal_log_ratio_B_T).detach().exp()
    return weight * clipped_gain(proximal_log_ratio_B_T, advantage_B, epsilon_low, epsilon_high)


def answer_log_ratio(log_ratio_B_T: Tensor, mask_B_T: Tensor) -> Tensor:
    """Return the mean log-ratio of each answer, [B, 1]: log s of GSPO (arXiv 2507.18071).

    s = (Π_t r_t)^(1/length), so its range is that of a mean over tokens: orders of magnitude
    narrower than a token's. 0 for an answer without a token.
    """
    mean_B = (log_ratio_B_T * mask_B_T).sum(dim=1) / mask_B_T.sum(dim=1).clamp_min(1)
    return mean_B.unsqueeze(1)


def clipped_surrogate(
    log_ratio_B_T: Tensor,
    advantage_B: Tensor,
    mask_B_T: Tensor,
    epsilon_low: float,
    epsilon_high: float,
) -> Tensor:
    """Return the loss −mean over rollouts of mean over tokens of min(r·A, clip(r)·A).

    This is GRPO's (arXiv 2402.03300). The behavior policy is explicit: r = π_θ/π_φ per token with φ
    the weights that sampled the rollout (theory.md §2), so the gradient at θ is minus the
    surrogate-gradient mapping H(θ, φ).

    Args:
        log_ratio_B_T: log π_θ − log π_φ per response token; the gradient flows through it.
        advantage_B: one advantage per rollout.
        mask_B_T: 1 for response tokens, 0 for padding.
        epsilon_low: clip range below 1.
        epsilon_high: clip range above 1.

    Returns:
        A scalar. A rollout without a response token counts as 0.
    """
    gain = clipped_gain(log_ratio_B_T, advantage_B, epsilon_low, epsilon_high)
    return -mean_gain(gain, mask_B_T, mask_B_T.sum(dim=1))


def mean_gain(gain_B_T: Tensor, mask_B_T: Tensor, divisor_B: Tensor) -> Tensor:
    """Return the mean over rollouts of Σ_t gain / divisor; a divisor below 1 counts as 1."""
    return ((gain_B_T * mask_B_T).sum(dim=1) / divisor_B.clamp_min(1)).mean()


@dataclass(frozen=True, slots=True, kw_only=True)
class Objective:
    """A loss with its clip range, and what its normalisation needs to know.

    ``loss`` is a name of ``LOSSES``, ``group_size`` the rollouts per prompt, ``token_budget`` the
    most tokens that an answer may have.
    """

    loss: str
    epsilon_low: float
    epsilon_high: float
    group_size: int
    token_budget: int

    @classmethod
    def of(cls, config: TrainerConfig, token_budget: int) -> "Objective":
        """Return the objective that a run is told to optimise."""
        return cls(
            loss=config.loss,
            epsilon_low=config.epsilon_low,
            epsilon_high=config.epsilon_high,
            group_size=config.group_size,
            token_budget=token_budget,
        )

    def advantages(self, rewards_P_G: Tensor) -> Tensor:
        """Return the advantage of each rollout, [B], prompt by prompt."""
        relative = centred_rewards if self.loss == "dr_grpo" else group_advantages
        return relative(rewards_P_G).reshape(-1)

    def divisors(self, mask_B_T: Tensor) -> Tensor:
        """Return by what the sum over the tokens of each rollout is divided, [B].

        Its own length; for ``dr_grpo`` the token budget, so that a token weighs the same in a short
        and in a long answer; for ``cispo`` the mean length in its group, so that the tokens of a
        group weigh the same (CISPO, MiniMax-M1, arXiv 2506.13585).
        """
        length_B = mask_B_T.sum(dim=1)
        if self.loss == "dr_grpo":
            return torch.full_like(length_B, self.token_budget)
        if self.loss == "cispo":
            mean_P_1 = length_B.view(-1, self.group_size).mean(dim=1, keepdim=True)
            return mean_P_1.expand(-1, self.group_size).reshape(-1)
        return length_B

    def surrogate(
        self,
        log_ratio_B_T: Tensor,
        advantage_B: Tensor,
        mask_B_T: Tensor,
        proximal_log_ratio_B_T: Tensor | None = None,
        divisor_B: Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a batch, or of a part of one, a scalar.

        Args:
            log_ratio_B_T: log π_θ − log π_φ per response token; the gradient flows through it.
            advantage_B: one advantage per rollout.
            mask_B_T: 1 for response tokens, 0 for padding.
            proximal_log_ratio_B_T: log π_θ − log π_prox with gradient, for ``decoupled`` alone;
                None at the first update on a batch, where π_prox = π_θ.
            divisor_B: ``divisors``; given where groups are not whole, as some losses need them.
        """
        low, high = self.epsilon_low, self.epsilon_high
        match LOSSES[self.loss].clips:
            case "token":
                gain = clipped_gain(log_ratio_B_T, advantage_B, low, high)
            case "answer":
                mean_B_1 = answer_log_ratio(log_ratio_B_T, mask_B_T)
                gain = clipped_gain(mean_B_1, advantage_B, low, high)
            case "weight":
                gain = truncated_gain(log_ratio_B_T, advantage_B, high)
            case "proximal":
                if proximal_log_ratio_B_T is None:
                    proximal_log_ratio_B_T = log_ratio_B_T - log_ratio_B_T.detach()
                gain = decoupled_gain(log_ratio_B_T, proximal_log_ratio_B_T, advantage_B, low, high)
        divisor_B = self.divisors(mask_B_T) if divisor_B is None else divisor_B
        return -mean_gain(gain, mask_B_T, divisor_B)


def kl_penalty(
    log_prob_B_T: Tensor,
    reference_B_T: Tensor,
    mask_B_T: Tensor,
    divisor_B: Tensor | None = None,
) -> Tensor:
    """Return the mean over rollouts of the mean over tokens of k3 = r − 1 − log r, r = π_ref/π_θ.

    This is GRPO's penalty (arXiv 2402.03300, eq. 4), in nats per token, ≥ 0. On tokens that π_θ
    sampled its mean estimates KL(π_θ‖π_ref) and its gradient is that of KL(π_ref‖π_θ); on stale
    tokens both are biased, and no importance ratio repairs them here.

    Args:
        log_prob_B_T: log π_θ of each response token; the gradient flows through it.
        reference_B_T: log π_ref of the same tokens.
        mask_B_T: 1 for response tokens, 0 for padding.
        divisor_B: what the loss divides the sum over an answer's tokens by; None for its length.

    Returns:
        A scalar. A rollout without a response token counts as 0.
    """
    log_ratio = (reference_B_T - log_prob_B_T) * mask_B_T
    k3 = torch.expm1(log_ratio) - log_ratio
    return mean_gain(k3, mask_B_T, mask_B_T.sum(dim=1) if divisor_B is None else divisor_B)
