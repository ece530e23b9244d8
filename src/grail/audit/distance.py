"""Distance between two models' weights: per block and kind of tensor, free and frozen entries."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from torch import Tensor

from grail.artifacts import block_of

OUTSIDE = "outside the blocks"


def distances(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], frozen: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return {"model", "blocks", "kinds"}, of each {"moved", "free", "frozen", "entries"}.

    ``moved`` is ||end - start|| / ||start|| (None where the start is all zeros), ``free`` the same
    over free entries, ``frozen`` ||end - start|| over frozen entries, which must be 0.
    """
    squares = {name: _squares(start[name], end[name], frozen.get(name)) for name in start}
    groups: tuple[dict[str, list[str]], dict[str, list[str]]] = ({}, {})
    for name in start:
        for group, key in zip(groups, block_and_kind(name), strict=True):
            group.setdefault(key, []).append(name)
    blocks, kinds = (
        {key: _relative(squares[name] for name in names) for key, names in group.items()}
        for group in groups
    )
    return {"model": _relative(squares.values()), "blocks": blocks, "kinds": kinds}


def _squares(start: Tensor, end: Tensor, frozen: Tensor | None) -> tuple[float | int, ...]:
    """Return squared norms (start, free start, free moves, frozen moves) and the entries."""
    before = start.double()
    norms, moves = before.square(), (end.double() - before).square()
    total = float(norms.sum())
    if frozen is None:
        return total, total, float(moves.sum()), 0.0, start.numel()
    mask = frozen.to(start.device)
    free = float(norms[~mask].sum()), float(moves[~mask].sum())
    return total, *free, float(moves[mask].sum()), start.numel()


def _relative(squares: Iterable[tuple[float | int, ...]]) -> dict[str, Any]:
    start, free_start, free, frozen, entries = map(sum, zip(*squares, strict=True))
    return {
        "moved": math.sqrt((free + frozen) / start) if start > 0 else None,
        "free": math.sqrt(free / free_start) if free_start > 0 else None,
        "frozen": math.sqrt(frozen),
        "entries": entries,
    }


def block_and_kind(name: str) -> tuple[str, str]:
    """Return a parameter's block and its kind ("self_attn.q_proj.lora_A").

    The block is its number ("0", "1", ...) in the model's only stack, else stack and number.
    """
    block = block_of(name)
    rest = name.partition(f"{block}.")[2] if block else name
    kind = ".".join(word for word in rest.split(".") if word not in ("default", "weight"))
    stack, _, number = (block or OUTSIDE).rpartition(".")
    return (number if block and "." not in stack else block or OUTSIDE), kind
