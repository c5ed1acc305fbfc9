"""The gradient of one batch, piece by piece: a piece is scored, and its graph gone, at a time.

Every loss is a mean over rollouts of what each contributes, with advantages and divisors that are
known before anything is scored. So the gradients of pieces, weighted by their share of the batch,
sum up to that of the whole for every objective.
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from .objective import Objective, kl_penalty
from .rollout import Rollouts, pieces, score


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A batch as the learner sees it at θ_t: ℓ = log π_θ − log π_φ, and A. No gradient.

    ``proximal_log_ratio_B_T`` is log π_θ − log π_prox, None at the first update on the batch.
    ``loss`` is that of the batch with the penalty in it; ``kl_penalty`` None without a reference.
    """

    batch: Rollouts
    advantage_B: Tensor
    log_prob_B_T: Tensor
    log_ratio_B_T: Tensor
    entropy_B_T: Tensor
    proximal_log_ratio_B_T: Tensor | None = None
    loss: Tensor
    kl_penalty: Tensor | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Loss:
    """What is minimised: an objective, with a penalty on the way from a reference policy."""

    objective: Objective
    reference: nn.Module | None = None
    kl_coefficient: float = 0.0

    def backward(
        self,
        policy: nn.Module,
        batch: Rollouts,
        *,
        proximal_B_T: Tensor | None = None,
        at_once: int | None = None,
    ) -> Scored:
        """Add the gradient of a batch to that of the policy's weights, and return the batch scored.

        Args:
            policy: θ_t.
            batch: the rollouts.
            proximal_B_T: log π_prox of the tokens; None at the first update on the batch.
            at_once: rollouts that are scored together; None for all.
        """
        advantage_B = self.objective.advantages(batch.rewards_P_G)
        divisor_B = self.objective.divisors(batch.mask_B_T)
        log_probs, entropies, losses, penalties = [], [], [], []
        for rows in pieces(batch, at_once):
            piece = batch.rows(rows)
            share = len(piece.mask_B_T) / len(batch.mask_B_T)
            reference_B_T = self._reference(piece)
            log_prob_B_T, entropy_B_T = score(policy, piece)
            loss = share * self.objective.surrogate(
                log_prob_B_T - piece.behavior_log_probs_B_T,
                advantage_B[rows],
                piece.mask_B_T,
                None if proximal_B_T is None else log_prob_B_T - proximal_B_T[rows],
                divisor_B[rows],
            )
            if reference_B_T is not None:
                penalty = share * kl_penalty(
                    log_prob_B_T, reference_B_T, piece.mask_B_T, divisor_B[rows]
                )
                penalties.append(penalty.detach())
                loss = loss + self.kl_coefficient * penalty
            torch.autograd.backward(loss)
            losses.append(loss.detach())
            log_probs.append(log_prob_B_T.detach())
            entropies.append(entropy_B_T)
        log_prob_B_T = torch.cat(log_probs)
        return Scored(
            batch=batch,
            advantage_B=advantage_B,
            log_prob_B_T=log_prob_B_T,
            log_ratio_B_T=log_prob_B_T - batch.behavior_log_probs_B_T,
            entropy_B_T=torch.cat(entropies),
            proximal_log_ratio_B_T=None if proximal_B_T is None else log_prob_B_T - proximal_B_T,
            loss=torch.stack(losses).sum(),
            kl_penalty=torch.stack(penalties).sum() if penalties else None,
        )

    @torch.no_grad()
    def _reference(self, piece: Rollouts) -> Tensor | None:
        return None if self.reference is None else score(self.reference, piece)[0]
