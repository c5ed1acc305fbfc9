"""What a device has found, brought to the host at once."""

from collections.abc import Mapping

import torch
from torch import Tensor


def on_host(found: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the same values on the host by one transfer, for which alone the device is waited for.

    They travel as one vector of fp64, which holds fp32, bf16, truth values and whole numbers below
    2⁵³ exactly; shapes and types are what they were. Gradients do not travel.
    """
    parts = [each.detach().reshape(-1) for each in found.values()]
    flat = torch.cat([part.double() for part in parts]).cpu()
    pieces = torch.split(flat, [part.numel() for part in parts])
    return {
        name: piece.view(each.shape).to(each.dtype)
        for (name, each), piece in zip(found.items(), pieces, strict=True)
    }
