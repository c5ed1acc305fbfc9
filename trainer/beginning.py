"""What the start of a run is remembered by: its reward, and rollouts to measure the way from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Self

import torch
from torch import Tensor, nn

from .drift import MEASURED_WHOLE_UP_TO, kl_from
from .outcome import Start
from .rollout import Rollouts, log_probs

KL_TO_START_ROLLOUTS = 256
KL_TO_START_ROLLOUTS_LARGE = 64  # a forward pass of more would show in the time of a step


@dataclass(frozen=True, slots=True, kw_only=True)
class Beginning:
    """What θ_0 earned of the reward that matters, and some of its rollouts as it scored them."""

    reward: Start
    batch: Rollouts
    log_prob_B_T: Tensor

    @classmethod
    @torch.no_grad()
    def of(
        cls, policy: nn.Module, parameters: int, batch: Rollouts, at_once: int | None = None
    ) -> Self:
        """Keep the reward of a batch that θ_0 = ``policy`` sampled, and some of its rollouts.

        At most ``at_once`` of them are scored together.
        """
        rewards = batch.decisive_P_G
        large = parameters > MEASURED_WHOLE_UP_TO
        rollouts = KL_TO_START_ROLLOUTS_LARGE if large else KL_TO_START_ROLLOUTS
        kept = batch.first(min(rollouts, len(batch.prompts)))
        return cls(
            reward=Start(
                reward=float(rewards.mean()),
                reward_std=float(rewards.std()),
                rollouts=rewards.numel(),
            ),
            batch=kept,
            log_prob_B_T=log_probs(policy, kept, at_once),
        )

    @torch.no_grad()
    def kl_to(self, policy: nn.Module, at_once: int | None = None) -> Tensor:
        """Return KL(θ_0‖policy) in nats per token on the completions that θ_0 sampled."""
        log_prob_B_T = log_probs(policy, self.batch, at_once)
        return kl_from(self.log_prob_B_T, log_prob_B_T, self.batch.mask_B_T)

    def state_dict(self) -> dict[str, Any]:
        """Return what ``from_state_dict`` makes it of again."""
        return {
            "reward": asdict(self.reward),
            "batch": {f.name: getattr(self.batch, f.name) for f in fields(Rollouts)},
            "log_prob": self.log_prob_B_T,
        }

    @classmethod
    def from_state_dict(cls, state: Mapping[str, Any]) -> Self:
        """Remember what another one did."""
        return cls(
            reward=Start(**state["reward"]),
            batch=Rollouts(**state["batch"]),
            log_prob_B_T=state["log_prob"],
        )
