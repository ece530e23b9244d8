"""What remains inside the models: how far each block moved, and what each block would answer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from grail.artifacts import block_of
from grail.audit.context import AuditContext, piece
from grail.audit.lens import hits_by_block, lens_summary, model_parts
from grail.data.batches import shuffled
from grail.data.encode import Encoded
from grail.errors import InputError
from grail.progress import Tick

OUTSIDE = "outside the blocks"


def internals(context: AuditContext, frozen: Mapping[str, Tensor], tick: Tick) -> dict[str, Any]:
    """Return {"moved", "lens", "no_lens"} for all models of an audit.

    ``moved`` holds the ``distances`` from vanilla to unlearned. ``lens`` has one entry per model,
    domain and side: the ``lens_summary`` of its train rows. It is empty where the parts of the
    model cannot be identified; ``no_lens`` then says why.

    Args:
        context: The models and their rows.
        frozen: Parameter name -> entries that unlearning had to leave alone.
        tick: Called with the number of rows read.
    """
    moved = distances(context.weights("vanilla"), context.weights("unlearned"), frozen)
    try:
        model_parts(context.run.model)
    except InputError as error:
        return {"moved": moved, "lens": [], "no_lens": str(error)}
    lens: list[dict[str, Any]] = []
    sides, pad = lens_rows(context), context.run.tokenizer.pad_token_id
    rows = [row for side_rows in sides.values() for row in side_rows]
    for number, model in enumerate(context.folders):
        context.load(model)
        step = piece(tick, number, len(context.folders))
        hits = list(hits_by_block(context.run.model, rows, pad, step))
        for (domain, side), side_rows in sides.items():
            keys = {row.key for row in side_rows}
            summary = lens_summary([of_row for row, of_row in hits if row.key in keys])
            lens.append({"model": model, "domain": domain, "side": side} | summary)
    return {"moved": moved, "lens": lens, "no_lens": None}


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
        total, moved = squares.setdefault(_block(name), [0.0, 0.0])
        squares[_block(name)] = [
            total + float(before.double().square().sum()),
            moved + float(moves.sum()),
        ]
    blocks = {block: _relative(*sums) for block, sums in squares.items()}
    model = _relative(*map(sum, zip(*squares.values(), strict=True)))
    return {"model": model, "blocks": blocks, "frozen": held**0.5}


def _relative(start: float, moved: float) -> float | None:
    return (moved / start) ** 0.5 if start > 0 else None


def _block(name: str) -> str:
    block = block_of(name) or OUTSIDE
    stack, _, number = block.rpartition(".")
    return block if block == OUTSIDE or "." in stack else number


def lens_rows(context: AuditContext) -> dict[tuple[str, str], list[Encoded]]:
    """Return (domain, side) -> at most ``audit.lens_rows`` of its measured train rows."""
    most = context.settings.lens_rows
    sides: dict[tuple[str, str], list[Encoded]] = {}
    for row in context.rows:
        if row.part == "train" and row.side != "general":
            sides.setdefault((row.domain, row.side), []).append(row)
    return {
        side: rows if most is None else shuffled(rows, context.seed, "lens", *side)[:most]
        for side, rows in sides.items()
    }
