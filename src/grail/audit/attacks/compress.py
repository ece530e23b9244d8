"""A compressed model, as it would be deployed: adapter merged, Linear weights changed; then undone.

The compression itself is a function of one weight (``quantise``, ``prune``).
"""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from grail.model.forward import Policy, is_adapter, precision_of, without_adapter
from grail.model.quantisation import is_quantised, plain_weight
from grail.model.weights import holding

Change = Callable[[Float[Tensor, "O I"]], Float[Tensor, "O I"]]
"""Returns the new value of one weight (float32, one row per output channel)."""


@contextmanager
def compressed(model: Policy, change: Change | None) -> Iterator[None]:
    """Merge the adapter and change each Linear weight inside the block.

    The adapter is merged first: rounding the base alone would leave the full adapter as it is.
    Merging and changing are done in float32; the result has the base's precision, in which a merged
    model is stored. Embeddings, LM head, norms and biases stay. A base in few bits is widened for
    the time, which takes the memory of the model in full. ``change`` maps a weight to its new
    value; None only merges.
    """
    layers = linear_layers(model)
    if any(map(is_quantised, layers.values())):
        with _widened(model, set(layers.values()), change):
            yield
        return
    adapted = list(_adapted(model))
    weights: list[Any] = [layer.weight for layer in layers.values()]
    written = {id(parameter) for parameter in (*weights, *adapted)}
    copies = {n: p.detach().clone() for n, p in model.named_parameters() if id(p) in written}
    with holding(model, copies), _merged(model, adapted), torch.no_grad():
        if change is not None:
            for layer in layers.values():
                _put(layer, change)
        for name, parameter in model.named_parameters():
            if name in copies:
                parameter.data = parameter.data.to(copies[name].dtype)
        yield


@contextmanager
def _widened(model: Policy, layers: set[nn.Module], change: Change | None) -> Iterator[None]:
    """Compute layers of few bits by plain weights inside the block, adapter and change in them."""
    kind, own = precision_of(model), dict[Any, Any]()
    for module in model.modules():
        is_outer = isinstance(module, BaseTunerLayer)
        layer: Any = module.get_base_layer() if is_outer else module
        if layer not in layers:
            continue
        layers = layers - {layer}  # an adapter's layer comes before the base layer in it
        own[module] = vars(module).get("forward")
        weight = plain_weight(layer)
        if is_outer:
            for name in module.active_adapters:
                weight += module.get_delta_weight(name).float()  # type: ignore[operator]
        weight = (weight if change is None else change(weight)).to(kind)
        module.forward = partial(nn.functional.linear, weight=weight, bias=layer.bias)
    try:
        yield
    finally:
        for module, forward in own.items():
            del module.forward
            if forward is not None:
                module.forward = forward


def linear_layers(model: Policy) -> dict[str, nn.Module]:
    """Return the base model's Linear layers by name, without the LM head and the adapters."""
    inner = without_adapter(model)
    excluded = {id(part) for part in inner.get_output_embeddings().modules()}
    for layer in inner.modules():
        if isinstance(layer, BaseTunerLayer):
            base = {id(part) for part in layer.get_base_layer().modules()}
            excluded |= {id(part) for part in nn.Module.modules(layer)} - base  # type: ignore
    return {
        name: module
        for name, module in inner.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module) not in excluded
    }


def _put(layer: Any, change: Change) -> None:
    """Change one weight; transformers' Conv1D stores it transposed."""
    transposed = isinstance(layer, Conv1D)
    weight = layer.weight.data.float()
    changed = change(weight.T.contiguous() if transposed else weight)
    layer.weight.data = changed.T.contiguous() if transposed else changed


def _adapted(model: Policy) -> Iterator[nn.Parameter]:
    """Yield the base parameters that merging an adapter writes to."""
    for layer in model.modules():
        if isinstance(layer, BaseTunerLayer):
            yield from layer.get_base_layer().parameters()


@contextmanager
def _merged(model: Any, adapted: Iterable[nn.Parameter]) -> Iterator[None]:
    if not is_adapter(model):
        yield
        return
    for parameter in adapted:
        parameter.data = parameter.data.float()
    model.merge_adapter()
    try:
        yield
    finally:
        model.unmerge_adapter()  # clears PEFT's flags; `holding` puts the weights back
