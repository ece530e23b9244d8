"""Input embedding and LM head of a base in few bits: 8 for an entry, and a scale for each token.

bitsandbytes leaves both as they are: a small model in NF4 would be mostly vocabulary.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from jaxtyping import Float, Int, Int8
from torch import Tensor, nn

from grail.model.forward import Policy
from grail.model.probe import logits_of, same_logits, short_row
from grail.model.quantisation import widened

AT_ONCE = 1 << 22
"""Entries of the head that are widened at a time: 8 MiB in 16 bits, where a whole head may be
1 GiB."""


def store_vocabulary(model: Policy) -> None:
    """Store the weights of embedding and LM head in 8 bits, each row with its own scale.

    A weight that both share stays one. They stay in full where an adapter changes them
    (``target_modules``, ``modules_to_save``), and where the model does otherwise with them than
    call their modules, which is found by trying: ``in_full`` names them.
    """
    weights = vocabulary_weights(model)
    if not weights:
        return
    holders = {weight: _holders(model, weight) for weight in weights}
    row, own = short_row(model), {weight: weight.data for weight in weights}
    forms = {weight: _rounded(weight) for weight in weights}
    for weight, (rows, largest) in forms.items():
        weight.data = widened(rows, largest, weight.dtype)
    wanted = logits_of(model, row)
    for weight, data in own.items():
        weight.data = data
        form = [nn.Parameter(each, requires_grad=False) for each in forms[weight]]
        for module in holders[weight]:
            module.weight, module.largest = form
            module.forward = partial(_look_up if _embeds(module) else _predict, module)
    if _computes(model, row, wanted):
        return
    for weight, modules in holders.items():
        for module in modules:
            module.weight = weight
            del module.largest, module.forward


def vocabulary_weights(model: Policy) -> list[nn.Parameter]:
    """Return the weights that can be stored in 8 bits: frozen, and of plain modules alone."""
    parts = _parts(model)
    found = [part._parameters.get("weight") for part in parts.values()]
    return [
        weight
        for weight in dict.fromkeys(w for w in found if w is not None)
        if all(id(m) in parts and _is_plain(m) for m in _holders(model, weight))
    ]


def in_full(model: Policy) -> list[str]:
    """Return the names of embedding and LM head, as far as they are not stored in 8 bits."""
    parts = _parts(model)
    names = {id(module): name for name, module in model.named_modules()}
    return [names[i].removeprefix("base_model.model.") for i in parts if not _stored(parts[i])]


@torch.no_grad()
def plain_vectors(module: Any) -> Float[Tensor, "V I"]:
    """Return a copy of the weight that an embedding or LM head computes with, in float32."""
    if not _stored(module):
        return module.weight.float().clone()
    return widened(module.weight, module.largest, torch.float32)


def _parts(model: Any) -> dict[int, Any]:
    parts = (model.get_input_embeddings(), model.get_output_embeddings())
    return {id(part): part for part in parts if part is not None}


def _holders(model: Policy, weight: nn.Parameter) -> list[Any]:
    return [m for m in model.modules() if m._parameters.get("weight") is weight]


def _is_plain(module: nn.Module) -> bool:
    """Tell whether all that a module does with its weight is to look up rows, or a product."""
    weight: Any = module.weight
    known = type(module) is nn.Linear or (_embeds(module) and module.max_norm is None)
    frozen = weight.is_floating_point() and not weight.requires_grad
    return known and frozen and "forward" not in vars(module)


def _embeds(module: nn.Module) -> bool:
    return isinstance(module, nn.Embedding)


def _stored(module: Any) -> bool:
    return "largest" in module._parameters


@torch.no_grad()
def _rounded(weight: Float[Tensor, "V I"]) -> tuple[Int8[Tensor, "V I"], Float[Tensor, " V"]]:
    """Return a weight as numbers of 8 bits, and the largest entry of each row, 127 of its steps.

    The latter has the weight's own precision and is exact; a row of zeros stays one.
    """
    largest = weight.abs().amax(1)
    rows = torch.empty_like(weight, dtype=torch.int8)
    for lines in _blocks(weight):
        steps = 127 / largest[lines, None].float().clamp(min=torch.finfo(torch.float32).tiny)
        rows[lines] = (weight[lines].float() * steps).round().to(torch.int8)
    return rows, largest


def _blocks(rows: Tensor) -> Iterator[slice]:
    step = max(1, AT_ONCE // rows.shape[1])
    return (slice(first, first + step) for first in range(0, len(rows), step))


def _computes(model: Policy, row: Tensor, wanted: Tensor) -> bool:
    try:
        return same_logits(model, logits_of(model, row), wanted)
    except Exception:  # a model may use its weights in any way
        return False


def _look_up(module: Any, ids: Int[Tensor, "..."]) -> Float[Tensor, "... I"]:
    """Call the embedding as its class does, some of which scale, with the rows that are read."""
    stored, read = module.weight, ids.flatten()
    rows = widened(stored[read], module.largest[read], module.largest.dtype)
    padding, module.padding_idx = module.padding_idx, None  # concerns the weight's gradient alone
    module._parameters["weight"] = rows
    try:
        return type(module).forward(module, torch.arange(len(read), device=ids.device).view_as(ids))
    finally:
        module._parameters["weight"], module.padding_idx = stored, padding


def _predict(module: Any, x: Float[Tensor, "... I"]) -> Float[Tensor, "... V"]:
    out: Any = _Product.apply(x, module.weight, module.largest)
    return out if module.bias is None else out + module.bias


class _Product(torch.autograd.Function):
    """x W^T for a W of 8-bit rows with a scale each, widened block by block."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, rows: Tensor, largest: Tensor) -> Tensor:
        """Compute the products."""
        ctx.save_for_backward(rows, largest)
        out = x.new_empty(*x.shape[:-1], len(rows))
        for lines in _blocks(rows):
            out[..., lines] = x @ widened(rows[lines], largest[lines], x.dtype).t()
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        """Compute the gradient of the input, summed over blocks in float32 at least."""
        rows, largest = ctx.saved_tensors
        (gradient,) = gradients
        wide = torch.promote_types(gradient.dtype, torch.float32)
        total = gradient.new_zeros(*gradient.shape[:-1], rows.shape[1], dtype=wide)
        for lines in _blocks(rows):
            block = widened(rows[lines], largest[lines], gradient.dtype)
            total += gradient[..., lines] @ block
        return total.to(gradient.dtype), None, None
