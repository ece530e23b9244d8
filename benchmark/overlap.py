"""How much do the important entries of the sides overlap? Read from finished runs.

Usage: python benchmark/overlap.py RUN ...

RUN is a run of two domains, such as runs/lasting/SEED/reset-and-heal: its localization.json has the
Jaccard index of the sides' top sets. Writes results/overlap.json; the seed of a line is the run's.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator
from itertools import combinations
from pathlib import Path
from typing import Any

from intervals import keep_runs, line

from grail.files import read_json

TITLE = "Overlap of the sides' important entries"
COLUMNS = {"Jaccard index": "jaccard"}
NOTE = "Percent, of the top 10 % of each tensor's entries; two sets drawn at random have 5."


def main() -> None:
    """Read every run, and write results/overlap.json."""
    keep_runs(
        str(__doc__),
        "overlap",
        "python benchmark/overlap.py runs/lasting/*/reset-and-heal",
        overlaps,
    )


def overlaps(run: Path, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the index of each domain's two sides, and its mean over sides of two domains."""
    content = read_json(run / "localization.json")["jaccard"]
    pairs: dict[str, list[float]] = {}
    for (i, one), (j, other) in combinations(enumerate(content["names"]), 2):
        domains = one.split(".")[0], other.split(".")[0]
        name = f"the sides of {domains[0]}" if len(set(domains)) == 1 else "sides of two domains"
        pairs.setdefault(name, []).append(100 * content["values"][i][j])
    for name, values in sorted(pairs.items(), reverse=True):
        yield line(name, seed, {"jaccard": statistics.fmean(values)})


if __name__ == "__main__":
    main()
