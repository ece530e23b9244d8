"""LoRA layers as one step of autograd, in the precision of the base model.

PEFT computes an adapter's path in the adapter's own float32: every input is copied to it and every
output back, which on small batches costs as much as the base layer. Here the two products read
the base model's precision and accumulate in float32; the weights stay float32.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn


@dataclass(frozen=True)
class LoraGradients:
    """Both halves of a LoRA layer after one backward pass, scaling included.

    The gradient of A is ``within^T given``, that of B ``gradient^T inner``.

    Attributes:
        given: The layer's input x.
        inner: What B read: scaling x A^T.
        within: Gradient of what A gave: scaling times ``gradient`` B.
        gradient: Gradient of the layer's output.
    """

    given: Float[Tensor, "... I"]
    inner: Float[Tensor, "... R"]
    within: Float[Tensor, "... R"]
    gradient: Float[Tensor, "... O"]


Seen = Callable[[LoraGradients], None]


@dataclass(frozen=True)
class Fixed:
    """What of a LoRA layer is not differentiated.

    Attributes:
        base: The layer whose weight is frozen.
        scaling: What the adapter's path is multiplied by.
        seen: Is told both halves of the call when its gradient has come.
    """

    base: nn.Linear
    scaling: float
    seen: Seen | None = None


class LoraLinear(torch.autograd.Function):
    """x W^T + b + scaling (x A^T) B^T, with gradients for x, A and B."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "... I"],
        a: Float[Tensor, "R I"],
        b: Float[Tensor, "O R"],
        fixed: Fixed,
    ) -> Float[Tensor, "... O"]:
        """Compute the layer's output."""
        flat, weight = x.reshape(-1, x.shape[-1]), fixed.base.weight
        a, b = a.to(x.dtype), b.to(x.dtype)
        out = nn.functional.linear(flat, weight, fixed.base.bias)
        inner = flat @ a.t()
        out.addmm_(inner, b.t(), alpha=fixed.scaling)
        ctx.save_for_backward(flat, weight, a, b, inner)
        ctx.scaling, ctx.seen = fixed.scaling, fixed.seen
        return out.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Compute the gradients; those of A and B in float32."""
        flat, weight, a, b, inner = ctx.saved_tensors
        out = gradients[0].reshape(-1, gradients[0].shape[-1])
        within = narrow(out, b).mul_(ctx.scaling)
        for_x = for_a = for_b = None
        if ctx.needs_input_grad[0]:
            for_x = (out @ weight).addmm_(within, a).view(*gradients[0].shape[:-1], -1)
        if ctx.needs_input_grad[1]:
            for_a = (within.t() @ flat).float()
        if ctx.needs_input_grad[2]:
            for_b = (inner.t() @ out).t().float().mul_(ctx.scaling)  # see narrow
        if ctx.seen is not None:
            parts = (flat, inner * ctx.scaling, within, out)
            ctx.seen(LoraGradients(*(part.view(*gradients[0].shape[:-1], -1) for part in parts)))
        return for_x, for_a, for_b, None


def narrow(x: Float[Tensor, "K F"], w: Float[Tensor, "F R"]) -> Float[Tensor, "K R"]:
    """Return x w for a w of few columns, as (w^T x^T)^T: a CPU then takes down to a third as long.

    For gradients alone: in the forward pass single rows and packed ones would no longer agree to
    the last bits.
    """
    return (w.t() @ x.t()).t()


@contextmanager
def fused(model: nn.Module, watch: Callable[[nn.Module], Seen] | None = None) -> Iterator[None]:
    """Let the plain LoRA layers of a model compute in one step inside the block.

    ``watch`` is asked at every call of a layer, and what it returns is told both halves when the
    gradient comes (it does, whether or not the input needs one).

    Layers with anything beyond (dropout that is on, DoRA, biases, merged or several adapters, hooks
    on their parts, another base layer than Linear) stay PEFT's.
    """
    layers = lora_layers(model)
    for module, name in layers.items():
        module.forward = partial(_forward, module, name, watch)
    try:
        yield
    finally:
        for module in layers:
            del module.forward


def _forward(
    module: Any, name: str, watch: Callable[[nn.Module], Seen] | None, x: Tensor
) -> Tensor:
    a, b = module.lora_A[name].weight, module.lora_B[name].weight
    if x.dtype != module.base_layer.weight.dtype:  # autocast, say
        return type(module).forward(module, x)
    seen = None if watch is None else watch(module)
    if seen is not None and not x.requires_grad:
        x = x.detach().requires_grad_(True)
    fixed = Fixed(module.base_layer, module.scaling[name], seen)
    return LoraLinear.apply(x, a, b, fixed)  # type: ignore[return-value]


def lora_layers(model: nn.Module) -> dict[Any, str]:
    """Return the layers that are nothing but a base and one LoRA adapter, with its name."""
    if not hasattr(model, "peft_config"):
        return {}
    if model not in _LAYERS:  # thousands of modules; a new token is read in less time than they are
        from peft.tuners.lora.layer import Linear

        _LAYERS[model] = [module for module in model.modules() if type(module) is Linear]
    return {module: module.active_adapters[0] for module in _LAYERS[model] if _plain(module)}


_LAYERS: WeakKeyDictionary[nn.Module, list[Any]] = WeakKeyDictionary()
"""Model -> its LoRA layers as first seen; one that came later is left to PEFT, as rightly."""


def _plain(module: Any) -> bool:
    active = module.active_adapters
    if len(active) != 1 or active[0] not in module.lora_A:
        return False
    name, base = active[0], module.base_layer
    parts = (base, module.lora_A[name], module.lora_B[name], module.lora_dropout[name])
    dropout = module.lora_dropout[name]
    return (
        type(base) is nn.Linear
        and not base.weight.requires_grad
        and not (base.bias is not None and base.bias.requires_grad)
        and not (module.merged or module.disable_adapters)
        and not module.lora_bias[name]
        and name not in module.lora_variant
        and (isinstance(dropout, nn.Identity) or not module.training)
        and not any(part._forward_hooks or part._forward_pre_hooks for part in parts)
    )
