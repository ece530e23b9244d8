"""Trainable weights apart from their model: copied, written back, or exchanged for a block."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from grail.model.forward import Policy, trainable

Weights = Mapping[str, Tensor]
"""Parameter name -> tensor, as ``named_parameters`` names them."""


def copy_weights(model: Policy) -> dict[str, Tensor]:
    """Return copies of the trainable parameters; with an adapter, only its few weights."""
    return {name: parameter.detach().clone() for name, parameter in trainable(model).items()}


@torch.no_grad()
def put_weights(model: Policy, weights: Weights) -> None:
    """Write values into the trainable parameters, all of which ``weights`` must name."""
    for name, parameter in trainable(model).items():
        parameter.copy_(weights[name])


@contextmanager
def holding(model: Policy, weights: Weights) -> Iterator[None]:
    """Give the model's parameters of these names the given tensors inside the block.

    Storages are exchanged and no value is written: afterwards every parameter has its own storage
    again, whatever the block did, and gradients that are still to flow through the model's own
    weights are not disturbed.
    """
    parameters = dict(model.named_parameters())
    before = {name: parameters[name].data for name in weights}
    try:
        for name, tensor in weights.items():
            parameters[name].data = tensor
        yield
    finally:
        for name, tensor in before.items():
            parameters[name].data = tensor
