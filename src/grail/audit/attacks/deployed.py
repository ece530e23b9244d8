"""A model as it would be deployed: adapter merged, Linear weights changed, all of it undone after.

Knows no way of compressing: a function on one weight is handed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from jaxtyping import Float
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from grail.model.forward import Policy, is_adapter
from grail.model.weights import holding

Change = Callable[[Float[Tensor, "O I"]], Float[Tensor, "O I"]]
"""What becomes of one weight (float32, one line per output channel)."""


@contextmanager
def compressed(model: Policy, change: Change | None) -> Iterator[None]:
    """Let the model be one set of weights, each Linear weight of it changed.

    An adapter is merged into the base first: rounding the base and keeping a full adapter beside
    it would test nothing. Merging and changing are done in float32; the result has the base's
    precision, in which a merged model is stored. Embeddings, LM head, norms and biases stay.

    Args:
        model: The model.
        change: What becomes of a weight; None only merges.
    """
    layers, adapted = linear_layers(model), list(_adapted(model))
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


def linear_layers(model: Policy) -> dict[str, nn.Module]:
    """Return the base model's Linear layers by name, without the LM head and adapters' own."""
    inner: Any = model.get_base_model() if is_adapter(model) else model  # type: ignore[operator]
    others = {id(part) for part in inner.get_output_embeddings().modules()}
    for layer in inner.modules():
        if isinstance(layer, BaseTunerLayer):
            kept = {id(part) for part in layer.get_base_layer().modules()}
            others |= {id(part) for part in nn.Module.modules(layer)} - kept  # type: ignore
    return {
        name: module
        for name, module in inner.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and id(module) not in others
    }


def _put(layer: Any, change: Change) -> None:
    """Change one weight; transformers' Conv1D keeps it with one column per output channel."""
    turned = isinstance(layer, Conv1D)
    weight = layer.weight.data.float()
    changed = change(weight.T.contiguous() if turned else weight)
    layer.weight.data = changed.T.contiguous() if turned else changed


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
        model.unmerge_adapter()  # the marks of PEFT; the weights themselves are put back whole
