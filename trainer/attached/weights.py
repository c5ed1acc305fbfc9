"""The weights of somebody else's model, read where they lie and never touched."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..drift import BLOCK, BLOCKS, MEASURED_WHOLE_UP_TO


def is_shard(parameter: nn.Parameter) -> bool:
    """Return whether this process holds a part of a parameter only.

    FSDP2 makes a DTensor of it, FSDP1 a view of a flat one, and DeepSpeed's ZeRO-3 empties it; the
    latter two leave a mark on it.
    """
    marked = hasattr(parameter, "_fsdp_flattened") or hasattr(parameter, "ds_id")
    return marked or type(parameter.data) is not Tensor


class ForeignWeights:
    """Reads the trained parameters of a model, or their gradients, as one fp32 vector.

    Up to 2²² weights it is all of them; of more, 8 192 random blocks of 64 side by side, scaled so
    that norms and products keep their size (``drift.WeightSample``). Nothing is flattened or moved:
    the model stays as its trainer has it.
    """

    def __init__(self, model: nn.Module) -> None:
        """Choose what is read, the same for every model of these shapes.

        Raises:
            ValueError: there is nothing to read, or the weights are cut into shards.
        """
        self._parameters = [p for p in model.parameters() if p.requires_grad]
        if any(is_shard(p) for p in self._parameters):
            raise ValueError("the weights are cut into shards over processes")
        sizes = [p.numel() for p in self._parameters]
        if not sum(sizes):
            raise ValueError("this process holds no trained weights")
        self._rows: Sequence[Tensor | None] | None = None
        self._scale = 1.0
        if sum(sizes) > MEASURED_WHOLE_UP_TO:
            blocks = [size // BLOCK for size in sizes]
            chosen = torch.randperm(sum(blocks), generator=torch.Generator().manual_seed(0))
            chosen = chosen[:BLOCKS].sort().values
            ends = torch.tensor(blocks).cumsum(0)
            rows, first = [], 0
            for parameter, end in zip(self._parameters, ends.tolist(), strict=True):
                mine = chosen[(chosen >= first) & (chosen < end)] - first
                rows.append(mine.to(parameter.device) if len(mine) else None)
                first = end
            self._rows = rows
            self._scale = math.sqrt(sum(sizes) / (len(chosen) * BLOCK))

    @torch.no_grad()
    def values(self) -> Tensor:
        """Return the weights as they are now, [N] fp32, a copy."""
        return self._read([p.data for p in self._parameters])

    @torch.no_grad()
    def gradients(self) -> Tensor:
        """Return the gradients as they are now, [N] fp32; 0 where a weight took no part."""
        return self._read(
            [p.new_zeros(p.shape) if p.grad is None else p.grad for p in self._parameters]
        )

    @torch.no_grad()
    def decays(self, optimizer: torch.optim.Optimizer) -> Tensor:
        """Return the weight decay of each weight, [N]: norms and biases often have none."""
        decay = {
            id(p): float(group.get("weight_decay", 0.0))
            for group in optimizer.param_groups
            for p in group["params"]
        }
        full = [torch.full_like(p, decay.get(id(p), 0.0)) for p in self._parameters]
        return self._read(full).div_(self._scale)

    def _read(self, tensors: Sequence[Tensor]) -> Tensor:
        device = tensors[0].device
        if self._rows is None:
            return torch.cat([t.reshape(-1).to(device, torch.float32) for t in tensors])
        found = [
            t.reshape(-1)[: t.numel() // BLOCK * BLOCK].view(-1, BLOCK)[rows].to(device).float()
            for t, rows in zip(tensors, self._rows, strict=True)
            if rows is not None
        ]
        return torch.cat(found).view(-1).mul_(self._scale)
