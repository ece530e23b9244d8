"""How large do GRAIL's sets become with more than two domains? Two rules beside each other.

Usage: python benchmark/domains.py RUN ...

RUN is a finished localization of several domains (``grail localize experiments/five.yaml``). For
each number of domains the masks of all their combinations are made from the run's scores, by the
paper's rule as grail reads it (OP-RR: important for any two retain sides) and by the rule that is
stable in size (``rules.size_stable``). Writes results/domains.json.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

from intervals import keep_runs, line
from rules import paper, percent, size_stable

from grail.artifacts import Scores, read_scores
from grail.localization.evidence import Evidence

TITLE = "Share of the entries that is frozen"
COLUMNS = {"Frozen": "frozen", "OP-RR alone": "retain"}
NOTE = "Percent of all entries, mean over all combinations of so many of the domains."
RULES = {"any two": paper, "size-stable": size_stable}


def main() -> None:
    """Measure every run's masks, and write results/domains.json."""
    keep_runs(str(__doc__), "domains", "python benchmark/domains.py runs/five/*", sizes)


def sizes(run: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the mean size of both rules' masks for each number of domains."""
    files = sorted((run / "scores").glob("*.safetensors"))
    sides = {tuple(file.stem.split(".", 1)): read_scores(file) for file in files}
    for number in range(2, len(sides) // 2 + 1):
        for name, rule in RULES.items():
            found = [rule(evidence) for evidence in chosen(sides, number)]
            shares = {
                "frozen": statistics.fmean(percent(one.frozen) for one in found),
                "retain": statistics.fmean(one.about["retain"] for one in found),
            }
            yield line(f"{name}, {number} domains", seed, shares)


def chosen(sides: Mapping[Any, Scores], number: int) -> Iterator[Evidence]:
    """Yield the evidence of each combination of ``number`` domains."""
    for domains in combinations(sorted({domain for domain, _ in sides}), number):
        yield Evidence({pair: own for pair, own in sides.items() if pair[0] in domains}, dict)


if __name__ == "__main__":
    main()
