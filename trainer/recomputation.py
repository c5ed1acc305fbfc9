"""Gradient checkpointing: activations of a layer are computed again when its gradient is.

The model's own checkpointing acts in training mode only, where dropout would make the importance
ratio of the same weights differ from 1, and drops the key–value cache. So it is switched on for the
layers alone, without dropout, and only while a gradient is to flow.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from storage.commandline import BadInput


def make_checkpointed(model: Any, folder: object) -> None:
    """Prepare a model for ``recomputed``.

    Raises:
        BadInput: its architecture has no gradient checkpointing.
    """
    try:
        model.activation_checkpointing_enable()
    except ValueError as error:
        raise BadInput(
            f"gradient_checkpointing: the model {str(folder)!r} has none; allowed: false"
        ) from error
    for layer in checkpointed_layers(model):
        for name, value in vars(layer).items():
            if "dropout" in name and isinstance(value, float):
                setattr(layer, name, 0.0)


def checkpointed_layers(model: nn.Module) -> list[nn.Module]:
    """Return the layers whose activations may be computed again."""
    layers = (m for m in model.modules() if isinstance(m, GradientCheckpointingLayer))
    return [layer for layer in layers if layer.gradient_checkpointing]


@contextmanager
def recomputed(layers: list[nn.Module]) -> Iterator[None]:
    """Keep no activation of these layers for the backward pass of what is computed inside."""
    for layer in layers:
        layer.training = True  # of the layer alone: its parts stay in evaluation mode
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False
