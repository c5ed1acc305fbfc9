"""Low-rank adapters: W + s·B·A with W frozen, A [r, in] and B [out, r] trained (arXiv 2106.09685).

What is trained, kept and published are the adapters alone. How far a run moves is measured on their
products (theory.md §8.6): the same product has many factors, and the policy knows only the product.
"""

import copy
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from storage.commandline import BadInput

from .drift import BLOCK, BLOCKS, MEASURED_WHOLE_UP_TO, WeightSample
from .policy_settings import PolicySettings

ADAPTER = "default"


def with_adapters(model: nn.Module, config: PolicySettings, seed: int, folder: Path) -> nn.Module:
    """Return the model with adapters, all else frozen; its products B·A are 0 at first.

    Raises:
        BadInput: peft is not installed, or the model has none of the targets.
    """
    try:
        import peft
    except ImportError:
        raise BadInput(
            f"lora_rank: {config.lora_rank} needs peft, which is not installed; "
            "pip install -r requirements-lora.txt, or leave it out"
        ) from None
    rank, targets = config.lora_rank or 0, config.lora_targets
    adapters = peft.LoraConfig(
        r=rank,
        lora_alpha=config.lora_scale * rank,
        lora_dropout=0.0,  # would make the ratio of the same weights differ from 1
        target_modules=targets if targets == "all-linear" else targets.split(","),
        task_type="CAUSAL_LM",
    )
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # old names that peft calls; ties, which are refused below
        torch.manual_seed(seed)
        try:
            adapted: nn.Module = peft.get_peft_model(model, adapters)
        except ValueError as error:
            raise BadInput(
                f"lora_targets: {targets!r} fits the model {str(folder)!r} nowhere; allowed: "
                f"all-linear, or names of its linear layers ({_first_line(error)})"
            ) from error
    trained = {n for n, p in adapted.named_parameters() if p.requires_grad}
    if odd := sorted(n for n in trained if ".lora_A." not in n and ".lora_B." not in n):
        raise BadInput(
            f"lora_targets: {targets!r} names a layer that is not linear, {odd[0]}; allowed: "
            "all-linear, or names of linear layers"
        )
    return adapted.eval()


def _first_line(error: Exception) -> str:
    return str(error).split("\n", 1)[0]


def twin(policy: nn.Module) -> nn.Module:
    """Return a second model with adapters of its own on the same frozen weights."""
    frozen = {id(p): p for p in policy.parameters() if not p.requires_grad}
    return copy.deepcopy(policy, memo=dict(frozen))


class WithoutAdapters(nn.Module):
    """The policy before it was trained: its frozen weights alone."""

    def __init__(self, policy: nn.Module) -> None:
        super().__init__()
        self.policy = policy
        self._adapted: Any = next(m for m in policy.modules() if hasattr(m, "disable_adapter"))

    def forward(self, *inputs: Any, **settings: Any) -> Any:
        """Return what the model without adapters does."""
        with self._adapted.disable_adapter():
            return self.policy(*inputs, **settings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Pair:
    """Where the adapters of one layer lie in the vector of all trained weights."""

    a: slice
    b: slice
    rank: int
    inputs: int
    outputs: int
    scale: float

    def factors(self, vector: Tensor) -> tuple[Tensor, Tensor]:
        """Return s·B [out, r] and A [r, in]."""
        b = vector[self.b].view(self.outputs, self.rank) * self.scale
        return b, vector[self.a].view(self.rank, self.inputs)


class ProductSample:
    """The products s·B·A of all layers side by side, as ``WeightSample`` has the weights.

    Of products with more than ``whole_up_to`` entries it takes random blocks, which it computes
    alone: the products themselves are as large as the model.
    """

    degree = 2
    """A product scales with the square of the adapters; so does what weight decay takes of it."""

    def __init__(self, policy: nn.Module, whole_up_to: int = MEASURED_WHOLE_UP_TO) -> None:
        """Find the adapters of a model; the blocks are the same for every run of its shape."""
        self._pairs = _pairs(policy)
        size = sum(pair.outputs * pair.inputs for pair in self._pairs)
        self._chosen: list[tuple[Tensor, Tensor]] | None = None
        if size > whole_up_to:
            device = next(policy.parameters()).device
            self._chosen = [(r.to(device), c.to(device)) for r, c in _blocks(self._pairs)]
            taken = sum(len(rows) for rows, _ in self._chosen) * BLOCK
            self._rescale = (size / taken) ** 0.5

    def __call__(self, vector: Tensor) -> Tensor:
        """Return the sample of the products of a vector of adapters."""
        if self._chosen is None:
            factors = (pair.factors(vector) for pair in self._pairs)
            return torch.cat([(b @ a).view(-1) for b, a in factors])
        blocks = []
        for pair, (rows, columns) in zip(self._pairs, self._chosen, strict=True):
            b, a = pair.factors(vector)
            within = a[:, : pair.inputs // BLOCK * BLOCK].view(pair.rank, -1, BLOCK)[:, columns]
            blocks.append(torch.einsum("mr,rmc->mc", b[rows], within).reshape(-1))
        return torch.cat(blocks).mul_(self._rescale)


def drift_sample(
    policy: nn.Module, size: int, device: torch.device
) -> WeightSample | ProductSample:
    """Return what the movement of a policy is measured on: its products, else its weights."""
    if any(hasattr(module, "lora_A") for module in policy.modules()):
        return ProductSample(policy)
    return WeightSample(size, device)


def _pairs(policy: nn.Module) -> list[_Pair]:
    place, start = {}, 0
    for parameter in policy.parameters():
        if parameter.requires_grad:
            place[id(parameter)] = slice(start, start + parameter.numel())
            start += parameter.numel()
    layers: list[Any] = [m for m in policy.modules() if ADAPTER in getattr(m, "lora_A", ())]
    pairs = []
    for layer in layers:
        a, b = layer.lora_A[ADAPTER].weight, layer.lora_B[ADAPTER].weight
        pairs.append(
            _Pair(
                a=place[id(a)],
                b=place[id(b)],
                rank=a.shape[0],
                inputs=a.shape[1],
                outputs=b.shape[0],
                scale=layer.scaling[ADAPTER],
            )
        )
    return pairs


def _blocks(pairs: list[_Pair]) -> list[tuple[Tensor, Tensor]]:
    """Draw rows and blocks of columns, per layer, uniformly over all of them."""
    counts = torch.tensor([pair.outputs * (pair.inputs // BLOCK) for pair in pairs])
    ends = counts.cumsum(0)
    generator = torch.Generator().manual_seed(0)
    drawn = torch.randint(int(ends[-1]), (BLOCKS,), generator=generator).sort().values
    layer = torch.searchsorted(ends, drawn, right=True)
    chosen = []
    for i, pair in enumerate(pairs):
        block = drawn[layer == i] - (ends[i] - counts[i])
        wide = max(1, pair.inputs // BLOCK)
        chosen.append((block // wide, block % wide))
    return chosen
