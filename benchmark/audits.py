"""Audit every cell of a finished comparison beside its oracle: ``python benchmark/audits.py RUN``.

RUN is the folder of experiments/audit.yaml (``runs/audit``). The cell of objective ``exact`` is the
oracle of all others. One seed: a cell for each method. Writes results/audit.json: every finding.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from machine import write

from grail.api import audit
from grail.errors import InputError
from grail.reporting.audit.knowledge import Known, audit_domains, known
from grail.reporting.tables import MISSING, Table, nats, percent

ORACLE = "exact"
KEPT = ("outcome", "outcomes", "passed", "sentences", "oracle", "settings", "measured", "weights")
COLUMNS: dict[str, Sequence[str]] = {
    "as it is": ("plain",),
    "int8, int4": ("quantise",),
    "pruned": ("prune",),
    "other words": ("paraphrase",),
    "relearnt, own rows": ("relearn-few",),
    "relearnt, val rows": ("relearn-other",),
    "relearnt, general text": ("relearn-unrelated",),
}
"""Column -> attacks; at their strongest."""

NOTE = (
    "Percent of the unlearn train rows' answer tokens that the model gets right, under each attack "
    "at the strength at which most comes back: lower is better, and what the oracle shows under "
    "the same attack is what anybody learns from it. In parentheses: above the oracle, in points. "
    "Outcome: the verdict of the audit, the worse of the domains and metrics."
)


def main(arguments: Sequence[str]) -> None:
    """Audit the cells and write what was found."""
    (place,) = arguments
    cells = json.loads((Path(place) / "comparison.json").read_text(encoding="utf-8"))["cells"]
    folders = {cell["method"]: Path(place) / cell["folder"] for cell in cells}
    if len(folders) < len(cells) or ORACLE not in folders:
        sys.exit(f"{place}: one seed for each method, and a method named {ORACLE}, are needed")
    found = []
    for method, folder in folders.items():
        oracle = None if method == ORACLE else folders[ORACLE]
        for other in folders.values():
            _take(other / "audit", folder / "audit")
        try:
            result = audit(folder, oracle)
        except InputError as error:  # a cell that failed has no model to audit
            print(f"{method}: not audited: {error}", flush=True)
            continue
        print(f"{method}: {result['outcome']}", flush=True)
        kept = {key: result[key] for key in KEPT}
        own = ("unlearned",) if found else ("vanilla", "unlearned")  # that of all is told once
        kept["measured"] = [entry for entry in kept["measured"] if entry["model"] in own]
        found.append({"method": method, **kept})
    print(write("audit", {"command": "python benchmark/audits.py runs/audit"}, found, {}))


def _take(source: Path, goal: Path) -> None:
    """Copy what another cell's audit measured on the models that all cells have in common.

    The audit takes a measurement only if its digest of weights, rows and settings is its own.
    """
    for file in [f for model in ("vanilla", "oracle") for f in sorted(source.glob(f"{model}.*"))]:
        if not (goal / file.name).exists():
            goal.mkdir(exist_ok=True)
            shutil.copyfile(file, goal / file.name)


def table(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return one line per method and domain; the vanilla model first."""
    (oracle,) = [own for own in found if own["method"] == ORACLE]
    others = [own for own in found if own["method"] != ORACLE]
    names = audit_domains(oracle)
    rows = [("vanilla", d, *_cells(others[0], "vanilla", d), MISSING) for d in names]
    for own in (*others, oracle):
        itself = own["oracle"] == "itself"  # compared with itself it passes whatever it knows
        said = "is the oracle" if itself else own["outcome"] + ", passed" * own["passed"]
        rows += [(own["method"], d, *_cells(own, "unlearned", d), said) for d in names]
    columns = ("Method", "Domain", *COLUMNS, "general NLL", "Outcome")
    return Table("What is known under attack", columns, tuple(rows), NOTE)


def _cells(own: Mapping[str, Any], model: str, domain: str) -> Iterator[str]:
    measured = list(known(own, model, domain, "train", "US"))
    for attacks in COLUMNS.values():
        tried = [k for k in measured if k.attack in attacks and k.amount not in ("0", "area")]
        strongest = max(tried, key=lambda one: one.value, default=None)
        yield MISSING if strongest is None else _shown(strongest, own["oracle"] != "itself")
    yield next(
        nats(row["value"])
        for entry in own["measured"]
        if (entry["model"], entry["attack"]) == (model, "plain")
        for row in entry["rows"]
        if (row["domain"], row["part"], row["metric"]) == ("general", "val", "NLL")
    )


def _shown(one: Known, compared: bool) -> str:
    beyond = one.beyond if compared else None
    return percent(one.value) + ("" if beyond is None else f" ({beyond:+.0f})")


if __name__ == "__main__":
    main(sys.argv[1:])
