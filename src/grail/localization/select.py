"""The top entries of each layer, on plain tensors: no model, no data, no domains."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grail.artifacts import block_of
from grail.errors import InputError

NO_BLOCKS = (
    "localization.layer: block, but no parameter of this model is named after a block "
    "(layers.N., h.N. or blocks.N.): every tensor was taken as a layer of its own."
)


def layer_of(name: str, layer: str) -> str:
    """Return the name of the layer that a parameter belongs to.

    Args:
        name: The parameter's name.
        layer: ``block`` (a transformer block; each parameter outside all blocks is its own layer),
            ``tensor`` (each parameter is a layer) or ``model`` (one layer holds all).
    """
    if layer == "model":
        return "model"
    return (block_of(name) or name) if layer == "block" else name


def layers(names: Iterable[str], layer: str) -> dict[str, list[str]]:
    """Group parameter names by layer, in the model's order of layers (9 before 10).

    Names are sorted within a layer: this fixes the flat order of its entries.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
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
        flat = torch.cat([scores[name].flatten() for name in names])
        check_finite(flat)
        parts = top(flat, budget(k, len(flat))).split([scores[name].numel() for name in names])
        marks |= {n: part.reshape(scores[n].shape) for n, part in zip(names, parts, strict=True)}
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
