"""Per-sample accuracies of two rows, paired by seed and sample, and their differences."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from grail.comparison.bootstrap import Accuracies, differences
from grail.comparison.rows import Cell

COMPARED = ("unlearned", "calibrated")
"""Models that the table is about: as unlearned, and moved back to equal retention."""

Samples = dict[tuple[str, str], dict[int, dict[tuple[str, str], dict[str, float]]]]
"""(model, part) -> seed -> (domain, side) -> key of a sample -> its accuracy in 0-1."""


def read_samples(cells: Iterable[Cell]) -> Samples:
    """Return the accuracies in the ``samples.jsonl`` of a row's cells, general text left out."""
    samples: Samples = {}
    for cell in cells:
        for line in read_lines(cell.folder / "samples.jsonl"):
            if line["side"] != "general" and line["model"] in COMPARED:
                seeds = samples.setdefault((line["model"], line["part"]), {})
                sides = seeds.setdefault(cell.seed, {})
                side = sides.setdefault((line["domain"], line["side"]), {})
                side[line["key"]] = line["accuracy"]
    return samples


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the objects of a JSON lines file. Line separators of Unicode do not end a line."""
    with path.open(encoding="utf-8") as file:
        yield from (json.loads(line) for line in file if line.strip())


def compared(one: Samples, other: Samples, model: str, part: str) -> list[dict[str, Any]]:
    """Return the differences in Avg and HS between two rows, on the seeds that both have.

    There are none if the rows have no seed in common, differ in their samples, or have no domain
    with both sides, which Avg and HS need.
    """
    ours, theirs = (samples.get((model, part), {}) for samples in (one, other))
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds or _keys(ours[seeds[0]]) != _keys(theirs[seeds[0]]):
        return []
    sides = ours[seeds[0]].keys()
    if not any(side == "unlearn" and (domain, "retain") in sides for domain, side in sides):
        return []
    about = {
        "model": model,
        "part": part,
        "seeds": seeds,
        "resampled": "samples" if len(seeds) == 1 else "seeds and samples",
    }
    intervals = differences(_arrays(ours, seeds), _arrays(theirs, seeds))
    return [about | {"metric": name, **asdict(interval)} for name, interval in intervals.items()]


def _keys(sides: Mapping[tuple[str, str], Mapping[str, float]]) -> dict[tuple[str, str], list[str]]:
    return {place: sorted(side) for place, side in sides.items()}


def _arrays(
    by_seed: Mapping[int, Mapping[tuple[str, str], Mapping[str, float]]], seeds: Sequence[int]
) -> Accuracies:
    """Return (seeds, samples) for each (domain, side), columns in the order of the keys."""
    return {
        place: np.array([[by_seed[seed][place][key] for key in keys] for seed in seeds])
        for place, keys in _keys(by_seed[seeds[0]]).items()
    }
