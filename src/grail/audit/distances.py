"""How far the weights moved, block by block, and whether frozen entries stayed where they were."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from grail.artifacts import block_of

OUTSIDE = "outside the blocks"


def distances(
    start: Mapping[str, Tensor], end: Mapping[str, Tensor], frozen: Mapping[str, Tensor]
) -> dict[str, Any]:
    """Return {"model", "blocks", "frozen"}: ||end - start|| / ||start||, in all and by block.

    It is None where the start is all zeros. ``frozen`` is ||end - start|| over the frozen entries,
    which must be 0. A block of the model's only stack is called by its number.
    """
    squares, held = dict[str, list[float]](), 0.0
    for name, before in start.items():
        moves = (end[name].double() - before.double()).square()
        if name in frozen:
            held += float(moves[frozen[name].to(moves.device)].sum())
        sums = squares.setdefault(_block(name), [0.0, 0.0])
        sums[0] += float(before.double().square().sum())
        sums[1] += float(moves.sum())
    blocks = {block: _relative(*sums) for block, sums in squares.items()}
    model = _relative(*map(sum, zip(*squares.values(), strict=True)))
    return {"model": model, "blocks": blocks, "frozen": held**0.5}


def _relative(start: float, moved: float) -> float | None:
    return (moved / start) ** 0.5 if start > 0 else None


def _block(name: str) -> str:
    block = block_of(name) or OUTSIDE
    stack, _, number = block.rpartition(".")
    return block if block == OUTSIDE or "." in stack else number
