"""Computing in bf16 with weights in fp32, the same way for whoever samples and whoever learns.

Matrix products run in bf16. Weights, gradients, norms and the residual stream stay fp32, and so
does the output layer: logits rounded to eight bits differ by several percent between two ways of
computing the same one, which is most of the mismatch of sampler and learner (MiniMax-M1, arXiv
2506.13585, computes it in fp32 for the same reason).
"""

from typing import Any

import torch
from torch import Tensor, nn


class ComputesInBf16(nn.Module):
    """A causal LM that computes in bf16 and returns fp32 logits."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        head = model.get_output_embeddings()  # type: ignore[operator]
        if type(head) is nn.Linear:
            head.__class__ = _Fp32Linear

    def forward(self, ids: Tensor, **settings: Any) -> Any:
        """Return what the model does."""
        with torch.autocast(ids.device.type, dtype=torch.bfloat16):
            out = self.model(ids, **settings)
        out.logits = out.logits.float()
        return out


class _Fp32Linear(nn.Linear):
    def forward(self, inputs: Tensor) -> Tensor:
        with torch.autocast(inputs.device.type, enabled=False):
            return super().forward(inputs.float())


def saved_form(policy: nn.Module) -> Any:
    """Return the model that ``save_pretrained`` knows."""
    return policy.model if isinstance(policy, ComputesInBf16) else policy
