"""What an audit saw inside the models, as sentences and tables; reads ``audit.json`` alone."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grail.reporting.run.verdict import WARNING
from grail.reporting.tables import MISSING, Table, arrow, percent

BLOCK_NOTE = (
    "Moved: length of the change of a block's trainable weights, in percent of their length before "
    "unlearning. Other columns: percent of answer tokens of train rows that are on top when the "
    "block's output goes through the final norm and the LM head (logit lens), vanilla → unlearned. "
    "The last block is the model's own answer."
)
KIND_NOTE = "The same over all blocks, by kind of tensor; free: over the entries free to move."


def inside_sentences(found: Mapping[str, Any]) -> list[str]:
    """Say how far the weights moved, and whether an answer stands in a block but not at the end."""
    seen = found.get("inside")
    if seen is None:
        return []
    hidden = [_hidden(found, sight) for sight in _sights(seen, "unlearned", "unlearn")]
    alarms = [text for text, alarm in hidden if alarm]
    others = [text for text, alarm in hidden if not alarm]
    return [
        _moved(seen["moved"]),
        f"{WARNING}Hidden rather than gone: {'; '.join(alarms)}." if alarms else "",
        f"Inside: {'; '.join(others)}." if others else "",
        f"{WARNING}Not looked inside: {seen['no_lens']}" if seen["no_lens"] else "",
    ]


def frozen_moved(found: Mapping[str, Any]) -> bool:
    """Tell whether entries that the mask freezes differ between the two models."""
    seen = found.get("inside")
    return seen is not None and seen["moved"]["model"]["frozen"] > 0


def _moved(moved: Mapping[str, Any]) -> str:
    model = moved["model"]
    if model["frozen"] > 0:
        return f"{WARNING}Frozen entries moved (by {model['frozen']:.2e}): do not use this run."
    if model["moved"] is None:
        return ""
    blocks = {n: b["moved"] for n, b in moved["blocks"].items() if b["moved"] is not None}
    most = max(blocks, key=lambda name: blocks[name])
    where = f"block {_number(most)}" if most.isdecimal() else most
    return (
        f"The trained weights moved by {100 * model['moved']:.1f} % of their length, most in "
        f"{where} ({100 * blocks[most]:.1f} %); frozen entries did not move."
    )


def _hidden(found: Mapping[str, Any], sight: Mapping[str, Any]) -> tuple[str, bool]:
    """Compare the best block with the output; the alarm goes off by the verdict's thresholds.

    With an oracle, what its best block shows is taken off first: some answers are easily guessed.
    """
    limits, share = found["settings"]["thresholds"], sight["share"]
    best = max(range(len(share)), key=lambda block: share[block])
    oracle = [
        max(other["share"])
        for other in _sights(found["inside"], "oracle", "unlearn")
        if other["domain"] == sight["domain"]
    ]
    above = share[best] - (oracle[0] if oracle else 0.0)
    before = [
        other["first"]
        for other in _sights(found["inside"], "vanilla", "unlearn")
        if other["domain"] == sight["domain"] and other["first"] is not None
    ]
    first = f"; in the vanilla model tokens come on top first at block {before[0]:g}"
    text = (
        f"{sight['domain']}: {percent(share[-1])} % of answer tokens on top at the output, at most "
        f"{percent(share[best])} % in any block (block {best + 1} of {len(share)}"
        f"{f', oracle {percent(oracle[0])} %' if oracle else ''}; n {sight['n']}"
        f"{first if before else ''})"
    )
    return text, above > limits["left"] and share[best] - share[-1] > limits["back"]


def inside_tables(found: Mapping[str, Any]) -> list[Table]:
    """Return a table of the blocks and one of the kinds of tensors; none if nothing was seen."""
    seen = found.get("inside")
    return [] if seen is None else [_blocks(seen), _kinds(seen["moved"])]


def _blocks(seen: Mapping[str, Any]) -> Table:
    moved = seen["moved"]["blocks"]
    now = [sight for sight in seen["lens"] if sight["model"] == "unlearned"]
    places = [(sight["domain"], sight["side"]) for sight in now]
    shares = {(s["model"], s["domain"], s["side"]): s["share"] for s in seen["lens"]}
    depth = max((len(sight["share"]) for sight in now), default=0)
    names = dict.fromkeys([*map(str, range(depth)), *moved])
    rows = []
    for name in names:
        known = name.isdecimal() and int(name) < depth
        cells = []
        for place in places if known else ():
            before, after = (shares[(model, *place)] for model in ("vanilla", "unlearned"))
            cells.append(arrow(before[int(name)], after[int(name)], percent))
        cells = cells or [MISSING] * len(places)
        own = moved.get(name, {}).get("moved")
        rows.append((_number(name), MISSING if own is None else percent(100 * own), *cells))
    columns = ("Block", "Moved %", *(f"{domain} {side}" for domain, side in places))
    return Table("Inside the models, block by block", columns, tuple(rows), BLOCK_NOTE)


def _kinds(moved: Mapping[str, Any]) -> Table:
    rows = []
    for name, kind in moved["kinds"].items():
        ratios = (kind["moved"], kind["free"])
        cells = (MISSING if ratio is None else percent(100 * ratio) for ratio in ratios)
        rows.append((name, *cells, f"{kind['frozen']:g}", f"{kind['entries']:,}"))
    columns = ("Kind", "Moved %", "Free %", "Frozen", "Entries")
    return Table("How far the kinds of tensors moved", columns, tuple(rows), KIND_NOTE)


def _sights(seen: Mapping[str, Any], model: str, side: str) -> list[Mapping[str, Any]]:
    return [s for s in seen["lens"] if (s["model"], s["side"]) == (model, side)]


def _number(name: str) -> str:
    """Return a block's number from 1, as the lens counts; other names stay."""
    return str(int(name) + 1) if name.isdecimal() else name
