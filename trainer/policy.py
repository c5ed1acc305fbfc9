"""The policy: a causal language model whose weights and gradients are two flat vectors.

One vector of weights makes snapshots, drifts and the optimizer a handful of large operations
instead of hundreds of small ones; the model's parameters are views into it.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from storage.commandline import BadInput

from .config import TrainerConfig


def load_policy(folder: Path, device: torch.device) -> tuple[nn.Module, Any]:
    """Load a causal LM and its tokenizer from a folder, in fp32 on ``device``.

    Drift is measured on fp32 weights: bf16 copies quantise and mislead (theory.md §4).

    A tokenizer without a padding token pads with its end-of-sequence token: what counts is told by
    the attention mask and by the first end of a completion, never by the padding's id.

    Raises:
        OSError, ValueError: the folder holds no model or tokenizer; the message names it.
        BadInput: the tokenizer has no end-of-sequence token.
    """
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).to(device)
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    if tokenizer.eos_token is None:
        raise BadInput(
            f"model: the tokenizer of {str(folder)!r} has no end-of-sequence token; allowed: one "
            "that has, for otherwise no completion ends"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.eval()  # dropout would make the importance ratio of the same weights differ from 1
    return model, tokenizer


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``auto`` takes an accelerator when there is one.

    Raises:
        BadInput: this machine has no such device.
    """
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    if name == "auto":
        return found or torch.device("cpu")
    wanted = torch.device(name)
    here = 0 if found is None else torch.accelerator.device_count()
    if wanted.type != "cpu" and (found is None or found.type != wanted.type):
        raise BadInput(f"device: {name!r} is not on this machine; allowed: auto | cpu")
    if wanted.index is not None and wanted.index >= here:
        raise BadInput(f"device: {name!r} is not on this machine, which has {here} of them")
    return wanted


class FlatWeights:
    """The trainable weights of a model as one fp32 vector, their gradients as another."""

    def __init__(self, model: nn.Module) -> None:
        parameters = [p for p in model.parameters() if p.requires_grad]
        self.vector = torch.cat([p.detach().reshape(-1) for p in parameters])
        self.gradient = torch.zeros_like(self.vector)
        start = 0
        for parameter in parameters:
            view = slice(start, start + parameter.numel())
            parameter.data = self.vector[view].view_as(parameter)
            parameter.grad = self.gradient[view].view_as(parameter)
            start = view.stop

    def load(self, vector: Tensor) -> None:
        """Copy a snapshot into the model."""
        self.vector.copy_(vector)

    def snapshot(self) -> Tensor:
        """Return a copy of the weights."""
        return self.vector.clone()


def make_optimizer(weights: FlatWeights, config: TrainerConfig) -> torch.optim.Optimizer:
    """Build the optimizer over the flat vector; ``adam_beta1`` is also the momentum of SGD."""
    parameter = nn.Parameter(weights.vector, requires_grad=True)
    parameter.grad = weights.gradient
    if config.optimizer == "sgd":
        return torch.optim.SGD([parameter], lr=config.learning_rate, momentum=config.adam_beta1)
    return torch.optim.AdamW(
        [parameter],
        lr=config.learning_rate,
        betas=(config.adam_beta1, config.adam_beta2),
        weight_decay=config.weight_decay,
        fused=weights.vector.is_cuda or None,  # None: whatever PyTorch takes by itself
    )
