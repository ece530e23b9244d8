"""Trainable weights apart from their model: copied, written back, or exchanged for a block."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor
from torch.distributed.tensor import DTensor

from grail.errors import InputError
from grail.model.forward import Policy, trainable
from grail.model.sharded import part

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
    weights are not disturbed. Of a model in parts, whose storage FSDP2 keeps, values are exchanged.
    """
    parameters = dict(model.named_parameters())
    if any(isinstance(parameters[name], DTensor) for name in weights):
        _exchange(parameters, weights)
        try:
            yield
        finally:
            _exchange(parameters, weights)
        return
    before = {name: parameters[name].data for name in weights}
    try:
        for name, tensor in weights.items():
            parameters[name].data = tensor
        yield
    finally:
        for name, tensor in before.items():
            parameters[name].data = tensor


@torch.no_grad()
def _exchange(parameters: Weights, weights: Weights) -> None:
    for name, tensor in weights.items():
        own, other = part(parameters[name]), part(tensor)
        kept = own.clone()
        own.copy_(other)
        other.copy_(kept)


def fresh_adapter(model: Policy, seed: int) -> dict[str, Tensor]:
    """Return an adapter's weights as PEFT draws new ones: with them, the model is its base.

    The model keeps its own weights.

    Raises:
        InputError: if something other than LoRA matrices is trained; its fresh value is unknown.
    """
    from peft.tuners.lora import LoraLayer

    others = [name for name in trainable(model) if ".lora_" not in name]
    if others:
        raise InputError(
            f"the adapter trains more than LoRA matrices (first: {others[0]}), and what it was "
            "before is not known. Use unlearning.reset: null and another objective than distill."
        )
    own = copy_weights(model)
    with torch.random.fork_rng():  # PEFT draws from the global generator
        torch.manual_seed(seed)
        for layer in model.modules():
            if isinstance(layer, LoraLayer):
                for name in layer.active_adapters:
                    layer.reset_lora_parameters(name, init_lora_weights=True)
    fresh = copy_weights(model)
    put_weights(model, own)
    return fresh
