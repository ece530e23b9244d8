"""What remains inside the models: weight distances and logit lens, as sentences and tables.

Reads the content of ``audit.json`` alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grail.reporting.tables import MISSING, WARNING, Table, arrow, listed, percent

_BLOCK_NOTE = (
    "Moved: norm of the change of a block's trainable weights, in percent of their norm before "
    "unlearning. Other columns: percent of answer tokens of train rows that are ranked first when "
    "the block's output goes through the final norm and the LM head (logit lens), vanilla → "
    "unlearned. The last block is the model's own answer."
)


def internals_sentences(audit: Mapping[str, Any]) -> list[str]:
    """Say how far the weights moved, and whether a block gives answers that the output does not."""
    inside = audit.get("inside")
    if inside is None:
        return []
    texts = [_lens(audit, e) for e in _entries(inside, "unlearned")]
    not_inspected = f"{WARNING}Not inspected: {inside['no_lens']}" if inside["no_lens"] else ""
    return [
        _moved(inside["moved"]),
        listed("Hidden rather than gone", [t for t, hidden in texts if hidden], warning=True),
        listed("Inside", [text for text, hidden in texts if not hidden]),
        not_inspected,
    ]


def frozen_moved(audit: Mapping[str, Any]) -> bool:
    """Tell whether entries that the mask freezes differ between the two models."""
    inside = audit.get("inside")
    return inside is not None and inside["moved"]["frozen"] > 0


def _moved(moved: Mapping[str, Any]) -> str:
    if moved["frozen"] > 0:
        return f"{WARNING}Frozen entries moved (by {moved['frozen']:.2e}): do not use this run."
    blocks = {name: share for name, share in moved["blocks"].items() if share is not None}
    if moved["model"] is None:
        return ""
    most = max(blocks, key=lambda name: blocks[name])
    where = f"block {_number(most)}" if most.isdecimal() else most
    return (
        f"The trained weights moved by {100 * moved['model']:.1f} % of their norm, most in "
        f"{where} ({100 * blocks[most]:.1f} %); frozen entries did not move."
    )


def _lens(audit: Mapping[str, Any], entry: Mapping[str, Any]) -> tuple[str, bool]:
    """Compare the best block with the output; return a text, and whether answers are hidden.

    What the oracle's best block shows is subtracted first: some answers are easily guessed.
    """
    limits, share, domain = audit["settings"]["thresholds"], entry["share"], entry["domain"]
    best = max(range(len(share)), key=lambda block: share[block])
    oracle = [max(e["share"]) for e in _entries(audit["inside"], "oracle", domain)]
    text = (
        f"{domain}: {percent(share[-1])} % of answer tokens ranked first at the output, at most "
        f"{percent(share[best])} % in any block (block {best + 1} of {len(share)}"
        f"{f', oracle {percent(oracle[0])} %' if oracle else ''}; n {entry['n']})"
    )
    above = share[best] - (oracle[0] if oracle else 0.0)
    return text, above > limits["left"] and share[best] - share[-1] > limits["back"]


def internals_tables(audit: Mapping[str, Any]) -> list[Table]:
    """Return a table of the blocks; none if nothing was seen."""
    inside = audit.get("inside")
    return [] if inside is None else [_blocks(inside)]


def _blocks(inside: Mapping[str, Any]) -> Table:
    moved = inside["moved"]["blocks"]
    shares: dict[str, dict[str, list[float]]] = {}
    for entry in inside["lens"]:
        side = f"{entry['domain']} {entry['side']}"
        shares.setdefault(side, {})[entry["model"]] = entry["share"]
    depth = max((len(models["unlearned"]) for models in shares.values()), default=0)
    rows = []
    for name in dict.fromkeys([*map(str, range(depth)), *moved]):
        cells = [MISSING] * len(shares)
        if name.isdecimal() and int(name) < depth:
            block, sides = int(name), shares.values()
            cells = [arrow(s["vanilla"][block], s["unlearned"][block], percent) for s in sides]
        share = moved.get(name)
        rows.append((_number(name), MISSING if share is None else percent(100 * share), *cells))
    columns = ("Block", "Moved %", *shares)
    return Table("Inside the models, block by block", columns, tuple(rows), _BLOCK_NOTE)


def _entries(
    inside: Mapping[str, Any], model: str, domain: str | None = None
) -> list[Mapping[str, Any]]:
    """Return the lens entries of a model's unlearn rows, of one domain or of all."""
    entries = [e for e in inside["lens"] if (e["model"], e["side"]) == (model, "unlearn")]
    return [entry for entry in entries if domain in (None, entry["domain"])]


def _number(name: str) -> str:
    """Return a block's number from 1, as the lens counts; other names stay."""
    return str(int(name) + 1) if name.isdecimal() else name
