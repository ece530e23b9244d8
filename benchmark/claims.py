"""Whether the sentences of README and docs say what the committed results say.

Usage: python benchmark/claims.py    prints what does not hold; the exit code tells whether all does

claims.yaml has a row for each passage (paragraph, point of a list or line of a table) that compares
methods or states a figure of one: its page, its first words, the result file, and what must hold.
``TEXT = EXPRESSION``: TEXT stands in the passage, and its numbers are those of the expression,
rounded. Anything else is an expression that must be true. ``others``: numbers of the passage that
are no measurement (settings, the paper's).

A passage compares methods, unless its row has ``kind: figure``: then it states what one model does,
or that nothing is shown, and says itself if that is of too few seeds or at the edge of a grid. A
comparison on too few seeds or at an edge may only stand below a heading that begins with "Single
runs". Seeds and edges are read from the result file. Where it has none (``raw``), a row's ``seeds``
says how many there were (default: one).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import yaml
from readings import Reader, values

ROOT = Path(__file__).resolve().parents[1]
ENOUGH = 3
"""Seeds that a comparison must rest on."""
SINGLE = "Single runs"
"""Begins the heading of what draws no conclusion."""
FEW = re.compile(r"\b(one seed|two seeds|seed 0)\b", re.IGNORECASE)
EDGE = re.compile(r"\bedge\b")
NUMBER = re.compile(r"[-+]?\d+(?:\.\d+)?")
PRECISE = re.compile(r"\d+\.\d+")


def passages(text: str) -> list[str]:
    """Return paragraphs, points of lists and lines of tables (each behind its head), on one line.

    What ``publish.py`` writes, and code, is left out.
    """
    text = re.sub(r"<!-- (?!end )\w+ -->.*?<!-- end -->|^```.*?^```", "", text, flags=re.S | re.M)
    found = []
    for block in re.split(r"\n\s*\n|\n(?=- )", text):
        lines = block.strip().splitlines()
        if lines and lines[0].startswith("|"):
            found += [f"{line} {lines[0]}" for line in lines[2:]]
        elif lines:
            found.append(" ".join(" ".join(lines).split()))
    return found


def concluding(text: str) -> str:
    """Return a page without its parts below a heading that begins with ``SINGLE``.

    Such a part ends at the next heading of the same or a higher level.
    """
    kept, inside = [], 0
    for line in text.splitlines():
        level = len(line) - len(line.lstrip("#"))
        if level and (not inside or level <= inside):
            inside = level if line.lstrip("# ").startswith(SINGLE) else 0
        kept += [] if inside else [line]
    return "\n".join(kept)


@cache
def claims() -> dict[str, Any]:
    """Return the content of claims.yaml."""
    return yaml.safe_load((ROOT / "benchmark" / "claims.yaml").read_text(encoding="utf-8"))


def problems(claim: Mapping[str, Any], text: str) -> list[str]:
    """Return what does not hold of one row of claims.yaml on its page's text."""
    start = " ".join(claim["sentence"].split())
    found = [passage for passage in passages(text) if passage.startswith(start)]
    if len(found) != 1:
        return [f"{claim['page']}: {len(found)} passages begin with '{start}'"]
    (passage,) = found
    reader = Reader(claim.get("file", ""), claims()["inherited"], claim.get("seeds", 1))
    lines = claim["holds"].splitlines()
    wrong = [line for line in (_wrong(line, passage, reader) for line in lines) if line]
    told = " ".join([line.partition(" = ")[0] for line in lines] + [claim.get("others", "")])
    free = [number for number in PRECISE.findall(passage) if number not in PRECISE.findall(told)]
    wrong += [f"{number} is not checked" for number in free]
    wrong += _reach(claim, passage, passage in passages(concluding(text)), reader)
    return [f"{claim['page']}, '{start[:50]}': {line}" for line in wrong]


def _reach(claim: Mapping[str, Any], passage: str, concludes: bool, reader: Reader) -> list[str]:
    """Return what is wrong with how far a passage reaches."""
    seeds = min(reader.seeds, default=ENOUGH)
    few, edge = seeds < ENOUGH, min(reader.at_edge, default="")
    if claim.get("kind", "comparison") == "comparison":
        if not concludes or not (few or edge):
            return []
        why = f"on {seeds} seeds" if few else f"at an edge ({edge})"
        return [f"compares {why}: run more, or put it below a heading '{SINGLE}'"]
    return [
        f"{said} and does not say so"
        for true, said, word in (
            (few, f"rests on {seeds} seeds", FEW),
            (edge, f"chosen at an edge ({edge})", EDGE),
        )
        if true and not word.search(passage)
    ]


def _wrong(line: str, passage: str, reader: Reader) -> str:
    """Return what is wrong with one line of ``holds``, "" if nothing."""
    shown, is_text, expression = line.partition(" = ")
    try:
        value = reader.evaluate(expression if is_text else line)
    except (LookupError, ValueError, SyntaxError, TypeError) as error:
        return f"{line}: {error}"
    if not is_text:
        return "" if value is True else f"not so: {line}"
    if shown not in passage:
        return f"'{shown}' is not in the passage"
    should = [round(number, 3) for number in values(value)]
    return "" if _rounds(NUMBER.findall(shown), values(value)) else f"'{shown}' should be {should}"


def _rounds(shown: Sequence[str], values: Sequence[float]) -> bool:
    """Whether the values, rounded as the text rounds, are those of the text."""
    return len(shown) == len(values) and all(
        abs(float(text) - value) <= 0.5 * 10 ** -len(text.partition(".")[2]) + 1e-9
        for text, value in zip(shown, values, strict=True)
    )


def uncovered(page: str, text: str) -> list[str]:
    """Return the passages of a page with a precise figure that no row of claims.yaml is about."""
    known = [
        " ".join(row["sentence"].split())
        for row in (*claims()["claims"], *claims()["elsewhere"])
        if row["page"] == page
    ]
    figured = (passage for passage in passages(text) if PRECISE.search(passage))
    return [passage for passage in figured if not passage.startswith(tuple(known))]


def check() -> list[str]:
    """Return all that does not hold, of all rows and pages."""
    texts = {p: (ROOT / p).read_text(encoding="utf-8") for p in claims()["pages"]}
    wrong = [line for row in claims()["claims"] for line in problems(row, texts[row["page"]])]
    left = [(page, passage) for page, text in texts.items() for passage in uncovered(page, text)]
    return wrong + [f"{page}: no claim covers '{passage[:90]}'" for page, passage in left]


if __name__ == "__main__":
    told = check()
    print(*told, sep="\n")
    raise SystemExit(bool(told))
