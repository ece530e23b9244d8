"""Per-sample values of two rows, paired by seed and sample, and the differences between them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from grail.comparison.bootstrap import Values, differences
from grail.comparison.rows import Cell

MODELS = ("unlearned", "calibrated")
"""Models that rows of the table may be about: as unlearned, and moved back to equal retention."""

METRICS = ("Avg", "HS")


class Samples:
    """Accuracies of one row's cells, read once: (model, part) -> seed -> (domain, side) -> key."""

    def __init__(self, found: Iterable[Cell]) -> None:
        self._read: dict[tuple[str, str], dict[int, dict[tuple[str, str], dict[str, float]]]] = {}
        for cell in found:
            for line in (cell.folder / "samples.jsonl").read_text(encoding="utf-8").splitlines():
                value = json.loads(line)
                if value["side"] == "general" or value["model"] not in MODELS:
                    continue
                seeds = self._read.setdefault((value["model"], value["part"]), {})
                sides = seeds.setdefault(cell.seed, {})
                side = sides.setdefault((value["domain"], value["side"]), {})
                side[value["key"]] = value["accuracy"]

    def seeds(self, model: str, part: str) -> set[int]:
        """Return the seeds that were measured."""
        return set(self._read.get((model, part), {}))

    def values(self, model: str, part: str, seeds: Sequence[int]) -> Values:
        """Return an array per (domain, side), one line per seed; columns in the order of keys."""
        found = self._read[model, part]
        return {
            place: np.array([[found[s][place][key] for key in sorted(side)] for s in seeds])
            for place, side in found[seeds[0]].items()
        }

    def keys(self, model: str, part: str) -> list[tuple[tuple[str, str], list[str]]]:
        """Return what must be equal for two rows to be paired: the samples of every side."""
        sides = next(iter(self._read[model, part].values()))
        return sorted((place, sorted(side)) for place, side in sides.items())


def compared(one: Samples, other: Samples, model: str, part: str) -> list[dict[str, Any]]:
    """Return the differences in Avg and HS between two rows; none if they cannot be paired."""
    seeds = sorted(one.seeds(model, part) & other.seeds(model, part))
    if not seeds or one.keys(model, part) != other.keys(model, part):
        return []
    places = {place for place, _ in one.keys(model, part)}
    if not any((domain, "retain") in places for domain, side in places if side == "unlearn"):
        return []  # Avg and HS are those of domains with both sides
    about = {
        "model": model,
        "part": part,
        "seeds": seeds,
        "resampled": "samples" if len(seeds) == 1 else "seeds and samples",
    }
    found = differences(one.values(model, part, seeds), other.values(model, part, seeds))
    return [about | {"metric": metric, **asdict(found[metric])} for metric in METRICS]
