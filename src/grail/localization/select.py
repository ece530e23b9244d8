"""The top entries of a layer; pure tensors: no model, no data, no domains."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from functools import partial

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grail.errors import InputError
from grail.localization.radix import ALONE, NO_ORDER, Processes, mark_top

BLOCK = re.compile(r"layers?\.(\d+)\.|\.h\.(\d+)\.")
"""The block number in a parameter's name, as Llama, Qwen, Gemma, GPT-NeoX and GPT-2 write it."""


def layer_of(name: str, layer: str) -> str:
    """Return the name of the layer that a parameter belongs to.

    Args:
        name: The parameter's name.
        layer: ``block`` (a transformer block; a parameter outside all blocks is a layer of its
            own), ``tensor`` (every parameter is one) or ``model`` (all are one).
    """
    if layer == "tensor":
        return name
    if layer == "model":
        return "model"
    match = BLOCK.search(name)
    return match.group(0).strip(".") if match else name


def has_blocks(names: Iterable[str]) -> bool:
    """Tell whether any parameter's name carries a block number."""
    return any(BLOCK.search(name) for name in names)


def layers(names: Iterable[str], layer: str) -> dict[str, list[str]]:
    """Group parameter names by layer, sorted within each: that fixes the flat order.

    The layers come in the model's order (9 before 10).
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
    """Refuse scores that have no order.

    Raises:
        InputError: if one is NaN or infinite.
    """
    if not bool(torch.isfinite(scores).all()):
        raise InputError(NO_ORDER)


def top_per_layer(
    scores: Mapping[str, Float[Tensor, "..."]],
    k: float,
    layer: str,
    processes: Processes = ALONE,
) -> dict[str, Bool[Tensor, "..."]]:
    """Mark the top ``k`` (fraction) of the entries of each layer; float32 scores.

    Entries of a layer are compared across its parameters; their flat order is that of the sorted
    names, each parameter in C order. Ties go to the lowest place; zeros are never taken. With
    several processes, each gives its part of every parameter and gets the marks of that part, the
    same as one process would (see ``Processes``).

    Raises:
        InputError: if a score is NaN or infinite.
    """
    groups = list(layers(scores, layer).values())
    chunks = [[scores[name] for name in names] for names in groups]
    marks = mark_top(chunks, partial(budget, k), processes)
    return {
        name: own
        for names, of_layer in zip(groups, marks, strict=True)
        for name, own in zip(names, of_layer, strict=True)
    }
