"""LoRA layers as one autograd function, in the precision of the base model.

PEFT computes an adapter in the adapter's own float32: every input is converted to it and every
output back, which on small batches costs as much as the base layer. Here the two products are in
the base model's precision and accumulate in float32; the weights stay float32, while the gradients
of A and B are computed in the base model's precision before they are widened.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class LoraGradients:
    """Inputs and output gradients of A and B after a backward pass, scaling included.

    The gradient of A is ``gradient_a^T x``, that of B ``gradient_b^T inner``.

    Attributes:
        x: Input of the layer and of A.
        inner: Input of B: scaling times x A^T.
        gradient_a: Gradient of A's output: scaling times ``gradient_b`` B.
        gradient_b: Gradient of B's output, which is the layer's.
    """

    x: Float[Tensor, "... I"]
    inner: Float[Tensor, "... R"]
    gradient_a: Float[Tensor, "... R"]
    gradient_b: Float[Tensor, "... O"]


OnBackward = Callable[[LoraGradients], None]


@dataclass(frozen=True)
class LoraCall:
    """The arguments of ``LoraLinear`` that are not differentiated.

    Attributes:
        base: The layer whose weight is frozen.
        scaling: Factor of the adapter's output.
        on_backward: Called with the inputs and gradients of A and B by the backward pass.
    """

    base: nn.Linear
    scaling: float
    on_backward: OnBackward | None = None


class LoraLinear(torch.autograd.Function):
    """x W^T + b + scaling (x A^T) B^T, with gradients for x, A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "... I"],
        a: Float[Tensor, "R I"],
        b: Float[Tensor, "O R"],
        call: LoraCall,
    ) -> Float[Tensor, "... O"]:
        """Compute the layer's output."""
        flat, weight = x.reshape(-1, x.shape[-1]), call.base.weight
        a, b = a.to(x.dtype), b.to(x.dtype)
        out = nn.functional.linear(flat, weight, call.base.bias)
        inner = flat @ a.t()
        out.addmm_(inner, b.t(), alpha=call.scaling)
        ctx.save_for_backward(flat, weight, a, b, inner)
        ctx.call = call
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Compute the gradients; those of A and B are returned in float32."""
        flat, weight, a, b, inner = ctx.saved_tensors
        scaling, on_backward = ctx.call.scaling, ctx.call.on_backward
        shape = gradients[0].shape[:-1]
        gradient_b = gradients[0].reshape(-1, gradients[0].shape[-1])
        gradient_a = narrow(gradient_b, b).mul_(scaling)
        for_x = for_a = for_b = None
        if ctx.needs_input_grad[0]:
            for_x = (gradient_b @ weight).addmm_(gradient_a, a).view(*shape, -1)
        if ctx.needs_input_grad[1]:
            for_a = (gradient_a.t() @ flat).float()
        if ctx.needs_input_grad[2]:
            for_b = (inner.t() @ gradient_b).t().float().mul_(scaling)  # see narrow
        if on_backward is not None:
            parts = (flat, inner * scaling, gradient_a, gradient_b)
            on_backward(LoraGradients(*(part.view(*shape, -1) for part in parts)))
        return for_x, for_a, for_b, None


def narrow(x: Float[Tensor, "K F"], w: Float[Tensor, "F R"]) -> Float[Tensor, "K R"]:
    """Return x w for a w of few columns as (w^T x^T)^T, which takes a CPU a third of the time.

    Only for gradients: in the forward pass, single and packed rows would then differ more.
    """
    return (w.t() @ x.t()).t()


@contextmanager
def fused(
    model: nn.Module, callback_for: Callable[[nn.Module], OnBackward] | None = None
) -> Iterator[None]:
    """Compute the plain LoRA layers of a model by ``LoraLinear`` inside the block.

    Layers with anything more stay PEFT's: active dropout, DoRA, biases, merged or several adapters,
    hooks on their parts, another base layer than Linear, or a ``forward`` on the instance. The last
    includes layers that an outer ``fused`` has replaced: blocks may be nested, and the outer holds.

    ``callback_for`` is called with the layer at each of its calls; it returns the call's
    ``on_backward``, which is called whether or not the layer's input needs a gradient.
    """
    layers = lora_layers(model)
    for layer, adapter in layers.items():
        layer.forward = partial(_forward, layer, adapter, callback_for)
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward  # the class's own again: the instance had none


def is_fused(model: nn.Module) -> bool:
    """Tell whether a block of ``fused`` is open on the model."""
    return any(getattr(vars(m).get("forward"), "func", None) is _forward for m in model.modules())


def _forward(
    layer: Any, adapter: str, callback_for: Callable[[nn.Module], OnBackward] | None, x: Tensor
) -> Tensor:
    if x.dtype != layer.base_layer.weight.dtype:  # autocast, for example
        return type(layer).forward(layer, x)
    on_backward = None if callback_for is None else callback_for(layer)
    if on_backward is not None and not x.requires_grad:
        x = x.detach().requires_grad_(True)
    call = LoraCall(layer.base_layer, layer.scaling[adapter], on_backward)
    a, b = layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    return LoraLinear.apply(x, a, b, call)  # type: ignore[return-value]


def lora_layers(model: nn.Module) -> dict[Any, str]:
    """Return the layers that ``fused`` replaces, each with the name of its adapter."""
    if not hasattr(model, "peft_config"):
        return {}
    from peft.tuners.lora.layer import Linear

    layers: list[Any] = [module for module in model.modules() if type(module) is Linear]
    return {layer: layer.active_adapters[0] for layer in layers if _is_plain(layer)}


def _is_plain(layer: Any) -> bool:
    active = layer.active_adapters
    if len(active) != 1 or active[0] not in layer.lora_A:
        return False
    name, base, dropout = active[0], layer.base_layer, layer.lora_dropout[active[0]]
    parts = (base, layer.lora_A[name], layer.lora_B[name], dropout)
    return (
        type(base) is nn.Linear
        and not base.weight.requires_grad
        and not (base.bias is not None and base.bias.requires_grad)
        and not (layer.merged or layer.disable_adapters)
        and not layer.lora_bias[name]
        and name not in layer.lora_variant
        and (isinstance(dropout, nn.Identity) or not layer.training)
        and not any(part._forward_hooks or part._forward_pre_hooks for part in parts)
        and "forward" not in vars(layer)
    )
