"""How far weights moved: per block and per kind of tensor, free and frozen entries apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from grail.artifacts import block_of

OUTSIDE = "outside the blocks"


@dataclass
class Sums:
    """Squared norms of some entries: of their start and of their moves."""

    start: float = 0.0
    free_start: float = 0.0
    free: float = 0.0
    frozen: float = 0.0
    entries: int = 0

    def add(self, start: Tensor, end: Tensor, frozen: Tensor | None) -> None:
        """Count one tensor; without ``frozen`` every entry was free."""
        before = start.double()
        squares, moves = before.square(), (end.double() - before).square()
        self.entries += start.numel()
        self.start += float(squares.sum())
        held = None if frozen is None else frozen.to(start.device)
        still = 0.0 if held is None else float(moves[held].sum())
        self.frozen += still
        self.free += float(moves.sum()) - still if held is None else float(moves[~held].sum())
        self.free_start += float(squares.sum() if held is None else squares[~held].sum())

    def as_json(self) -> dict[str, Any]:
        """Return relative distances, the frozen entries' absolute one, and the entries."""
        return {
            "moved": _ratio(self.free + self.frozen, self.start),
            "free": _ratio(self.free, self.free_start),
            "frozen": math.sqrt(self.frozen),
            "entries": self.entries,
        }


def distances(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], frozen: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return {"model", "blocks", "kinds"}: what ``Sums.as_json`` says of each.

    ``moved`` is ||end - start|| / ||start|| (None where the start is all zeros), ``free`` the same
    over free entries, ``frozen`` ||end - start|| over frozen entries, which must be 0.
    """
    model, blocks, kinds = Sums(), dict[str, Sums](), dict[str, Sums]()
    for name, before in start.items():
        block, kind = place_of(name)
        for sums in (
            model,
            blocks.setdefault(block, Sums()),
            kinds.setdefault(kind, Sums()),
        ):
            sums.add(before, end[name], frozen.get(name))
    return {
        "model": model.as_json(),
        "blocks": {name: sums.as_json() for name, sums in blocks.items()},
        "kinds": {name: sums.as_json() for name, sums in kinds.items()},
    }


def place_of(name: str) -> tuple[str, str]:
    """Return a parameter's block and its kind ("self_attn.q_proj.lora_A").

    The block is its number ("0", "1", ...) in the model's only stack, else stack and number.
    """
    block = block_of(name)
    rest = name.partition(f"{block}.")[2] if block else name
    kind = ".".join(word for word in rest.split(".") if word not in ("default", "weight"))
    stack, _, number = (block or OUTSIDE).rpartition(".")
    return (number if block and "." not in stack else block or OUTSIDE), kind


def _ratio(moved: float, start: float) -> float | None:
    return math.sqrt(moved / start) if start > 0 else None
