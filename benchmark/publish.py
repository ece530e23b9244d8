"""From comparisons to documents: ``publish.py RUN ...`` keeps results, and always writes tables.

For each folder of a finished comparison (``runs/table1``) its comparison.json is kept as
results/NAME.json, without the places of this machine; figures that the page shows are kept in
docs/figures. Then every block of docs/results/*.md between ``<!-- NAME -->`` and ``<!-- end -->``
is written anew from results/NAME.json, beside the paper's numbers (paper.json).
"""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import audits
import domains
import full_weights
import intervals
import lasting
import oracles
import overlap
import parts
import planted
import pretrained
import spread
import trials

from grail.comparison.grids import edges
from grail.comparison.settings import load_comparison
from grail.files import file_digest, write_json, write_text
from grail.reporting.comparison.tables import EDGE, comparison_tables
from grail.reporting.tables import BEST, Table, markdown
from grail.results import harmonic_success

HERE = Path(__file__).parent
ROOT = HERE.parent
PAGES = sorted((ROOT / "docs" / "results").glob("*.md"))
FIGURES = ROOT / "docs" / "figures"
BLOCK = re.compile(r"(?<=<!-- )(?!end )(\w+)( -->\n).*?(?=<!-- end -->)", re.DOTALL)
QUESTIONS: dict[str, Any] = {
    "domains": domains,
    "full_weights": full_weights,
    "lasting": lasting,
    "lasting_knowundo": lasting,
    "lasting_lume": lasting,
    "oracles": oracles,
    "overlap": overlap,
    "parts": parts,
    "planted": planted,
    "pretrained": pretrained,
    "spread": spread,
    "trials": trials,
}
"""Results of a script that says itself what its table shows."""
VIEWS = {"table5": "table1"}
"""Comparison -> that whose cells it shows, with a title and columns of its own."""

OWN = ("machine", "settings", "cells", "sha256")
"""What has a place of its own in the format that all benchmarks write."""


def keep(folder: Path) -> Path:
    """Write results/NAME.json from the comparison in ``folder``, and copy its figures."""
    found = json.loads((folder / "comparison.json").read_text(encoding="utf-8"))
    settings = found["settings"]
    settings["data_sha256"] = {}
    for domain, sides in settings["domains"].items():
        for side, of_side in sides.items():
            for part, source in of_side.items():
                if source is None:
                    continue
                name = f"{domain}.{side}.{part}"
                settings["data_sha256"][name] = file_digest(Path(source))
                of_side[part] = "/".join(Path(source).parts[-2:])
    path = HERE / "results" / f"{folder.name}.json"
    content = {"machine": found["machine"], "settings": settings, "measurements": found["cells"]}
    rest = {name: value for name, value in found.items() if name not in OWN}
    write_json(path, content | {"ratios": {}, "comparison": rest})
    shown = "".join(page.read_text(encoding="utf-8") for page in PAGES)
    for figure in sorted((folder / "figures").glob("*.png")):
        name = f"{folder.name}-{figure.name}"
        if f"/{FIGURES.name}/{name})" in shown:
            FIGURES.mkdir(exist_ok=True)
            shutil.copyfile(figure, FIGURES / name)
    return path


def tables(name: str) -> str:
    """Return the tables of results/NAME.json in Markdown; the paper's numbers in parentheses."""
    file = HERE / "results" / f"{VIEWS.get(name, name)}.json"
    found = json.loads(file.read_text(encoding="utf-8"))
    if name == "audit":
        return f"#{markdown(audits.table(found['measurements']))}"
    if name in QUESTIONS:
        asked = QUESTIONS[name]
        lines = found["measurements"]
        lines = asked.lines(lines) if hasattr(asked, "lines") else lines
        return f"#{markdown(intervals.table(asked.TITLE, asked.COLUMNS, lines, asked.NOTE))}"
    own = {"machine": found["machine"], "settings": found["settings"]}
    comparison = found["comparison"] | own | {"cells": found["measurements"]}
    _mark_edges(comparison)
    if name in VIEWS:
        view, _ = load_comparison(ROOT / "benchmark" / "experiments" / f"{name}.yaml", [])
        comparison |= {"title": view.title, "columns": view.columns}
    numbers = _papers(VIEWS.get(name, name))
    made = [_beside(table, numbers) for table in comparison_tables(comparison)]
    short = _short(made, comparison["title"])
    if name in VIEWS:
        return "\n".join(f"#{markdown(_successes(table))}" for table in short[:2])
    rest = [table for table in short if re.search("equal retention|Differences", table.title)]
    shown = [f"#{markdown(table)}" for table in short if table not in rest]
    return "\n".join([*shown, *_folded(rest)])


def _mark_edges(comparison: dict[str, Any]) -> None:
    """Add what comparisons of earlier versions do not say: which choices lie at an edge."""
    for method in comparison["methods"]:
        points = [p["point"] for p in comparison["grid"] if p["method"] == method["method"]]
        method.setdefault("edge", edges(points, method["chosen"] or {}))


def _papers(name: str) -> dict[str, dict[str, float | None]]:
    """Return {method: {metric: the paper's number}}; HS of a domain is that of its US and RS."""
    paper = json.loads((ROOT / "benchmark" / "paper.json").read_text(encoding="utf-8"))
    numbers = {}
    for method, values in paper.get(name, {}).items():
        own = dict(zip(paper["columns"], values, strict=True))
        for place in [column for column in own if column.endswith(".US")]:
            domain = place.removesuffix(".US")
            harmonic = harmonic_success(own[place], own[f"{domain}.RS"])
            own[f"{domain}.HS"] = round(harmonic, 2)
        numbers[method] = own
    return numbers


def _successes(table: Table) -> Table:
    """Leave out what another comparison's table says of the same cells."""
    end = table.columns.index("HS") + 1
    return Table(table.title, table.columns[:end], tuple(row[:end] for row in table.rows))


def _folded(rest: list[Table]) -> list[str]:
    """Let a reader unfold what comes after a method's own numbers."""
    if not rest:
        return []
    equal = any("equal retention" in table.title for table in rest)
    summary = f"{'At equal retention, and d' if equal else 'D'}ifferences with intervals"
    tables = [f"#{markdown(table)}" for table in rest]
    return [f"<details>\n<summary>{summary}</summary>\n", *tables, "</details>\n"]


def _short(made: list[Table], title: str) -> list[Table]:
    """Leave out what the page has said before: the comparison's title, and sentences of notes."""
    said: set[str] = set()
    short = []
    for table in made:
        sentences = re.split(r"(?<=[.)]) (?=[A-Z0-9])", table.note)
        note = " ".join(sentence for sentence in sentences if sentence not in said)
        said.update(sentences)
        name = table.title.removeprefix(f"{title}: ")
        short.append(Table(name[0].upper() + name[1:], table.columns, table.rows, note))
    return short


def _beside(table: Table, numbers: Mapping[str, Mapping[str, float | None]]) -> Table:
    """Put the paper's number behind each of ours; what leads clearly becomes bold."""
    names = [column.replace(" ", ".") for column in table.columns]
    successes = table.columns[-1] == "peak GiB" and "equal retention" not in table.title
    rows = []
    for row in table.rows:
        theirs = numbers.get(row[0].removesuffix(EDGE), {}) if successes else {}
        cells = [_cell(cell, theirs.get(n)) for n, cell in zip(names[1:], row[1:], strict=True)]
        rows.append((row[0], *cells))
    note = "In parentheses: the paper's number, another model. " if successes and numbers else ""
    return Table(table.title, table.columns, tuple(rows), note + table.note)


def _cell(ours: str, theirs: float | None) -> str:
    shown = f"**{ours[: -len(BEST)]}**" if ours.endswith(BEST) else ours
    return shown if theirs is None else f"{shown} ({theirs:g})"


def page(text: str) -> str:
    """Return the page with its blocks written anew; a block without results stays as it is."""

    def block(match: re.Match[str]) -> str:
        name = match[1]
        if not (HERE / "results" / f"{VIEWS.get(name, name)}.json").exists():
            return match[0]
        return f"{name}{match[2]}\n{tables(name)}\n"

    return BLOCK.sub(block, text)


def main(folders: list[str]) -> None:
    """Keep the given comparisons and write the pages."""
    for folder in folders:
        print(keep(Path(folder)))
    for path in PAGES:
        write_text(path, page(path.read_text(encoding="utf-8")))


def settled() -> list[str]:
    """Return the names of the blocks whose tables are not what the results say."""
    texts = [path.read_text(encoding="utf-8") for path in PAGES]
    pairs = [
        pair
        for text in texts
        for pair in zip(BLOCK.finditer(text), BLOCK.finditer(page(text)), strict=True)
    ]
    return [old[1] for old, new in pairs if old[0] != new[0]]


if __name__ == "__main__":
    main(sys.argv[1:])
