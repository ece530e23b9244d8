"""The top entries of each layer, on plain tensors: no model, no data, no domains."""

import math
import re
from collections.abc import Collection, Iterable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grail.artifacts import block_of
from grail.errors import InputError

_ADAPTER = re.compile(r"^base_model\.|(?:^|\.)lora_")
_NUMBERED = re.compile(r"(?:^|\.)\d+\.")


def resolved(layer: str, names: Iterable[str]) -> str:
    """Return what ``auto`` means for these parameters: ``tensor`` for an adapter, else ``block``.

    (4 A, B / 4) is the same model as (A, B), but its gradients are a quarter in A and four times as
    large in B: only a ranking within each tensor does not depend on how an adapter is written.
    """
    if layer != "auto":
        return layer
    return "tensor" if any(map(_ADAPTER.search, names)) else "block"


def unrecognised(layer: str, names: Collection[str]) -> str | None:
    """Return a warning if the parameters of some block are not recognised as such.

    Embeddings, norms and the head are in no block; a parameter with a number in its name is in one.
    """
    if resolved(layer, names) != "block":
        return None
    outside = [name for name in names if block_of(name) is None]
    if len(outside) < len(names):
        outside = [name for name in outside if _NUMBERED.search(name)]
    if not outside:
        return None
    return (
        f"localization.layer: block, but {len(outside)} parameters (first: {outside[0]}) are in no "
        "block that is recognised (layers.N., h.N. or blocks.N.): each is a layer of its own."
    )


def layer_of(name: str, layer: str) -> str:
    """Return the name of the layer that a parameter belongs to.

    ``layer`` is ``block`` (a transformer block; each parameter outside all blocks is its own
    layer), ``tensor`` (each parameter is a layer) or ``model`` (one layer holds all).
    """
    if layer == "model":
        return "model"
    return (block_of(name) or name) if layer == "block" else name


def layers(names: Iterable[str], layer: str) -> dict[str, list[str]]:
    """Group parameter names by layer (see ``resolved``), in the model's order (9 before 10).

    Names are sorted within a layer: this fixes the flat order of its entries.
    """
    names, groups = sorted(names), dict[str, list[str]]()
    layer = resolved(layer, names)
    for name in names:
        groups.setdefault(layer_of(name, layer), []).append(name)
    return dict(sorted(groups.items(), key=lambda group: _by_number(group[0])))


def _by_number(name: str) -> list[tuple[str, int]]:
    """Return a sorting key that reads digits as numbers."""
    return [(text, int(digits or 0)) for text, digits in re.findall(r"(\D*)(\d*)", name)]


def budget(k: float, entries: int) -> int:
    """Return ceil(k * entries), safe from the rounding of k (0.1 * 30 is 3, not 4)."""
    return math.ceil(k * entries - 1e-9)


def check_finite(scores: Float[Tensor, "..."]) -> None:
    """Raise InputError if a score is NaN or infinite."""
    if not bool(torch.isfinite(scores).all()):
        raise InputError("scores hold NaN or infinite values: no order is defined. Score again.")


def top_per_layer(
    scores: Mapping[str, Float[Tensor, "..."]], k: float, layer: str
) -> dict[str, Bool[Tensor, "..."]]:
    """Mark the top ``k`` (a fraction) of the entries of each layer; zeros are never taken.

    Entries of a layer are compared across its parameters; their flat order is that of the sorted
    names, each parameter in C order. One layer at a time is copied.

    Raises:
        InputError: if a score is NaN or infinite.
    """
    marks: dict[str, Tensor] = {}
    for names in layers(scores, layer).values():
        found = [scores[name] for name in names]  # once: a look-up opens a file of scores
        shapes = [each.shape for each in found]
        # what stays comes first: between what goes it would leave gaps that nothing fits in
        count, where = sum(shape.numel() for shape in shapes), found[0].device
        kept = torch.empty(count, dtype=torch.bool, device=where)
        flat = torch.cat([each.flatten() for each in found])
        del found  # and with it what is mapped of the files
        check_finite(flat)
        kept.copy_(top(flat, budget(k, len(flat))))
        del flat
        own = zip(names, kept.split([shape.numel() for shape in shapes]), shapes, strict=True)
        marks |= {name: part.reshape(shape) for name, part, shape in own}
    return marks


def top(scores: Float[Tensor, " n"], count: int) -> Bool[Tensor, " n"]:
    """Mark the ``count`` largest of the entries above 0; ties go to the lowest index."""
    count = min(count, int((scores > 0).sum()))
    if count <= 0:
        return torch.zeros_like(scores, dtype=torch.bool)
    smallest = scores.topk(count, sorted=False).values.min()
    marks = scores > smallest
    ties = (scores == smallest).nonzero().flatten()
    marks[ties[: count - int(marks.sum())]] = True
    return marks
