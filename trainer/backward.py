"""The forward and backward pass of a learner step: a batch in, the gradient of its loss out.

It may go piece by piece: every loss is a mean over rollouts of what each contributes, with
advantages and divisors that are known before anything is scored. So the gradients of pieces,
weighted by their share of the batch, sum up to that of the whole for every objective.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from .graphs import Captured, cuda_graphs
from .objective import Objective, kl_penalty
from .policy import FlatWeights
from .recomputation import checkpointed_layers
from .rollout import Rollouts, pieces, score

PARTS = 6


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A batch as the learner sees it at θ_t: ℓ = log π_θ − log π_φ, and A. No gradient.

    ``proximal_log_ratio_B_T`` is log π_θ − log π_prox, None at the first update on the batch.
    """

    batch: Rollouts
    advantage_B: Tensor
    log_prob_B_T: Tensor
    log_ratio_B_T: Tensor
    entropy_B_T: Tensor
    proximal_log_ratio_B_T: Tensor | None = None


class Backward:
    """Scores batches under one policy and leaves the gradient of their loss in its weights.

    On a CUDA device batches without padded prompts whose shapes repeat replay a recorded graph,
    unless they are taken in pieces or activations are computed again.
    """

    def __init__(
        self,
        policy: nn.Module,
        weights: FlatWeights,
        objective: Objective,
        reference: nn.Module | None,
        kl_coefficient: float,
        at_once: int | None = None,
    ) -> None:
        """Work on ``policy``, whose gradient is in ``weights``; ``reference`` is for a penalty.

        ``at_once`` is how many rollouts are scored together, None for all.
        """
        self._policy, self._weights, self._objective = policy, weights, objective
        self._reference, self._kl_coefficient = reference, kl_coefficient
        self._at_once = at_once
        self.captured: Captured | None = None
        if weights.vector.is_cuda and is_one_piece(policy, at_once):
            self.captured = Captured(self._unpadded, cuda_graphs())

    def __call__(
        self, batch: Rollouts, proximal_B_T: Tensor | None
    ) -> tuple[Scored, dict[str, Tensor]]:
        """Put the gradient of the loss into ``weights.gradient``; return what went into it.

        Args:
            batch: the rollouts.
            proximal_B_T: log π_prox of their tokens; None at the first update on them.

        Returns:
            The batch as scored, without gradient; and by name ``loss``, and ``kl_penalty`` if there
            is one.
        """
        if self.captured is None or batch.padded:
            return self._learn(batch, proximal_B_T)
        known = [] if proximal_B_T is None else [proximal_B_T]
        advantage, log_prob, log_ratio, entropy, *more = self.captured(*parts_of(batch), *known)
        scored = Scored(
            batch=batch,
            advantage_B=advantage,
            log_prob_B_T=log_prob,
            log_ratio_B_T=log_ratio,
            entropy_B_T=entropy,
            proximal_log_ratio_B_T=None if proximal_B_T is None else log_prob - proximal_B_T,
        )
        return scored, dict(zip(("loss", "kl_penalty"), more, strict=False))

    def _unpadded(self, *tensors: Tensor) -> list[Tensor]:
        """Do the same on the tensors of a batch, for ``Captured``."""
        parts, proximal = tensors[:PARTS], tensors[PARTS:]
        scored, losses = self._learn(unpadded(*parts), proximal[0] if proximal else None)
        return [
            scored.advantage_B,
            scored.log_prob_B_T,
            scored.log_ratio_B_T,
            scored.entropy_B_T,
            *losses.values(),
        ]

    def _learn(
        self, batch: Rollouts, proximal_B_T: Tensor | None
    ) -> tuple[Scored, dict[str, Tensor]]:
        advantage_B = self._objective.advantages(batch.rewards_P_G)
        divisor_B = self._objective.divisors(batch.mask_B_T)
        log_probs, entropies, losses, penalties = [], [], [], []
        self._weights.gradient.zero_()
        for rows in pieces(batch, self._at_once):
            piece = batch.rows(rows)
            share = len(piece.mask_B_T) / len(batch.mask_B_T)
            log_prob_B_T, entropy_B_T = score(self._policy, piece)
            loss = share * self._objective.surrogate(
                log_prob_B_T - piece.behavior_log_probs_B_T,
                advantage_B[rows],
                piece.mask_B_T,
                None if proximal_B_T is None else log_prob_B_T - proximal_B_T[rows],
                divisor_B[rows],
            )
            if self._reference is not None:
                penalty = share * self._penalty(
                    self._reference, piece, log_prob_B_T, divisor_B[rows]
                )
                penalties.append(penalty.detach())
                loss = loss + self._kl_coefficient * penalty
            torch.autograd.backward(loss)
            losses.append(loss.detach())
            log_probs.append(log_prob_B_T.detach())
            entropies.append(entropy_B_T)
        log_prob_B_T = torch.cat(log_probs)
        scored = Scored(
            batch=batch,
            advantage_B=advantage_B,
            log_prob_B_T=log_prob_B_T,
            log_ratio_B_T=log_prob_B_T - batch.behavior_log_probs_B_T,
            entropy_B_T=torch.cat(entropies),
            proximal_log_ratio_B_T=None if proximal_B_T is None else log_prob_B_T - proximal_B_T,
        )
        found = {"loss": torch.stack(losses).sum()}
        if penalties:
            found["kl_penalty"] = torch.stack(penalties).sum()
        return scored, found

    @staticmethod
    def _penalty(
        reference: nn.Module, batch: Rollouts, log_prob_B_T: Tensor, divisor_B: Tensor
    ) -> Tensor:
        with torch.no_grad():
            reference_B_T, _ = score(reference, batch)
        return kl_penalty(log_prob_B_T, reference_B_T, batch.mask_B_T, divisor_B)


def is_one_piece(policy: nn.Module, at_once: int | None) -> bool:
    """Whether a whole batch is scored at once with all of its activations, as a recording is."""
    return at_once is None and not checkpointed_layers(policy)


def parts_of(batch: Rollouts) -> tuple[Tensor, ...]:
    """Return the ``PARTS`` tensors of a batch that scoring and the loss depend on."""
    return (
        batch.prompt_ids_B_L,
        batch.prompt_mask_B_L,
        batch.completion_ids_B_T,
        batch.mask_B_T,
        batch.behavior_log_probs_B_T,
        batch.rewards_P_G,
    )


def unpadded(*parts: Tensor) -> Rollouts:
    """Return a batch without padded prompts and without texts, of what ``parts_of`` returned."""
    prompt_ids, prompt_mask, completion_ids, mask, behavior_log_probs, rewards = parts
    return Rollouts(
        prompts=[],
        completions=[],
        prompt_ids_B_L=prompt_ids,
        prompt_mask_B_L=prompt_mask,
        completion_ids_B_T=completion_ids,
        mask_B_T=mask,
        behavior_log_probs_B_T=behavior_log_probs,
        rewards_P_G=rewards,
        padded=False,
    )


def tensors_of(scored: Scored) -> dict[str, Tensor]:
    """Return, by name, what a batch is measured by."""
    batch = scored.batch
    named = {
        "advantage_B": scored.advantage_B,
        "log_prob_B_T": scored.log_prob_B_T,
        "log_ratio_B_T": scored.log_ratio_B_T,
        "entropy_B_T": scored.entropy_B_T,
        "proximal_log_ratio_B_T": scored.proximal_log_ratio_B_T,
        "mask_B_T": batch.mask_B_T,
        "rewards_P_G": batch.rewards_P_G,
        "gold_P_G": batch.gold_P_G,
    }
    return {name: each for name, each in named.items() if each is not None}


def with_tensors(scored: Scored, host: Mapping[str, Tensor]) -> Scored:
    """Return the batch with what ``tensors_of`` names, and no more, from elsewhere: the host."""
    batch = replace(
        scored.batch,
        mask_B_T=host["mask_B_T"],
        rewards_P_G=host["rewards_P_G"],
        gold_P_G=host.get("gold_P_G"),
    )
    return Scored(
        batch=batch,
        advantage_B=host["advantage_B"],
        log_prob_B_T=host["log_prob_B_T"],
        log_ratio_B_T=host["log_ratio_B_T"],
        entropy_B_T=host["entropy_B_T"],
        proximal_log_ratio_B_T=host.get("proximal_log_ratio_B_T"),
    )
