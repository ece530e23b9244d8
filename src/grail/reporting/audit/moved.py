"""How far the weights moved, as a sentence and a table; reads ``audit.json`` alone."""

from collections.abc import Mapping
from typing import Any

from grail.reporting.tables import MISSING, WARNING, Table, percent

_NOTE = (
    "Moved: norm of the change of a block's trainable weights, in percent of their norm before "
    "unlearning."
)


def moved_sentence(audit: Mapping[str, Any]) -> str:
    """Say how far the weights moved, or that frozen ones did; empty if it was not looked at."""
    moved = audit.get("inside", {}).get("moved")
    if moved is not None and moved["frozen"] > 0:
        return f"{WARNING}Frozen entries moved (by {moved['frozen']:.2e}): do not use this run."
    if moved is None or moved["model"] is None:
        return ""
    blocks = {name: share for name, share in moved["blocks"].items() if share is not None}
    most = max(blocks, key=lambda name: blocks[name])
    where = f"block {_number(most)}" if most.isdecimal() else most
    return (
        f"The trained weights moved by {100 * moved['model']:.1f} % of their norm, most in "
        f"{where} ({100 * blocks[most]:.1f} %); frozen entries did not move."
    )


def frozen_moved(audit: Mapping[str, Any]) -> bool:
    """Tell whether entries that the mask freezes differ between the two models."""
    return "inside" in audit and audit["inside"]["moved"]["frozen"] > 0


def moved_tables(audit: Mapping[str, Any]) -> list[Table]:
    """Return a table of the blocks; none if it was not looked at."""
    if "inside" not in audit:
        return []
    rows = tuple(
        (_number(name), MISSING if share is None else percent(100 * share))
        for name, share in audit["inside"]["moved"]["blocks"].items()
    )
    return [Table("How far each block moved", ("Block", "Moved %"), rows, _NOTE)]


def _number(name: str) -> str:
    """Return a block's number from 1; other names stay."""
    return str(int(name) + 1) if name.isdecimal() else name
