"""The policy: a causal language model whose weights and gradients are two flat vectors.

One vector of weights makes snapshots, drifts and the optimizer a handful of large operations
instead of hundreds of small ones; the model's parameters are views into it.
"""

import shutil
import tempfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer

from storage.commandline import BadInput

from .config import TrainerConfig
from .lora import with_adapters
from .precision import ComputesInBf16, saved_form
from .recomputation import make_checkpointed


def load_policy(
    folder: Path, device: torch.device, config: TrainerConfig | None = None
) -> tuple[nn.Module, Any]:
    """Load a causal LM and its tokenizer from a folder, its weights in fp32 on ``device``.

    ``config`` says how it computes and what of it is trained; None for fp32 and all of it.

    Drift is measured on fp32 weights: bf16 copies quantise and mislead (theory.md §4).

    A tokenizer without a padding token pads with its end-of-sequence token: what counts is told by
    the attention mask and by the first end of a completion, never by the padding's id.

    Raises:
        BadInput: the folder holds no model or tokenizer that can be loaded, some weights are
            missing, the tokenizer has no end-of-sequence token, or the model cannot be trained as
            ``config`` says.
    """
    model: Any = loaded(AutoModelForCausalLM, folder, "model").to(device)
    tokenizer = loaded_tokenizer(folder, "model", padding_side="left")
    if tokenizer.eos_token is None:
        raise BadInput(
            f"model: the tokenizer of {str(folder)!r} has no end-of-sequence token; allowed: one "
            "that has, for otherwise no completion ends"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model.eval()  # dropout would make the importance ratio of the same weights differ from 1
    return model if config is None else _as_told(model, config, folder), tokenizer


def _as_told(model: Any, config: TrainerConfig, folder: Path) -> nn.Module:
    if config.gradient_checkpointing:
        make_checkpointed(model, folder)
    if config.lora_rank is not None:
        model = with_adapters(model, config, config.seed, folder)
    return ComputesInBf16(model) if config.precision == "bf16" else model


def loaded(kind: Any, folder: Path, setting: str) -> Any:
    """Load a model with ``kind.from_pretrained``, in fp32.

    A folder is data: neither code nor a pickled object in it is run. Weights that it lacks would
    be random numbers, and a run on them would look like one.

    Raises:
        BadInput: it cannot be loaded, or weights are missing.
    """
    try:
        model, report = kind.from_pretrained(
            folder,
            dtype=torch.float32,
            output_loading_info=True,
            local_files_only=True,
            trust_remote_code=False,
        )
    except Exception as error:  # whatever a file that is damaged makes of its reader
        raise BadInput(_unloadable(setting, folder, error)) from error
    if missing := sorted(report["missing_keys"]):
        raise BadInput(
            f"{setting}: {str(folder)!r} lacks {len(missing)} of its weights, the first is "
            f"{missing[0]}; allowed: a complete folder from save_pretrained"
        )
    return model


def loaded_tokenizer(folder: Path, setting: str, **settings: Any) -> Any:
    """Load a tokenizer.

    Raises:
        BadInput: it cannot be loaded.
    """
    try:
        return AutoTokenizer.from_pretrained(
            folder, local_files_only=True, trust_remote_code=False, **settings
        )
    except Exception as error:
        raise BadInput(_unloadable(setting, folder, error, "the tokenizer of ")) from error


def _unloadable(setting: str, folder: Path, error: Exception, part: str = "") -> str:
    why = str(error).strip().split("\n", 1)[0]
    return (
        f"{setting}: {part}{str(folder)!r} cannot be loaded: {type(error).__name__}: {why}; "
        "allowed: a folder from save_pretrained"
    )


def save_policy(policy: nn.Module, tokenizer: Any, folder: Path) -> Path:
    """Save a policy as ``from_pretrained`` loads it; one with adapters as its adapters alone.

    The folder has its name once it is complete; one of an earlier time is replaced.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    making = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        saved_form(policy).save_pretrained(making)
        tokenizer.save_pretrained(making)
        shutil.rmtree(folder, ignore_errors=True)
        return making.replace(folder)
    except BaseException:
        shutil.rmtree(making, ignore_errors=True)
        raise


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


def parameter_count(model: nn.Module) -> int:
    """Return the number of parameters, those of adapters included."""
    return sum(p.numel() for p in model.parameters())
