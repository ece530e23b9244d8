"""Half of each side's train rows decide between candidates; the other half is what is reported.

A method looks better than it is on the rows that chose its settings.
"""

import hashlib
import statistics
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from grail.comparison.bootstrap import avg_and_hs
from grail.comparison.paired import Samples, read_lines
from grail.errors import InputError
from grail.results import Result, Results, make_results, read_results

_SIDES = {"unlearn": "US", "retain": "RS"}
_TRAIN = "train"


def deciding(keys: Iterable[str]) -> set[str]:
    """Return every second key in the order of their digests: the same half wherever it is asked."""
    return set(sorted(keys, key=lambda key: hashlib.sha256(key.encode()).hexdigest())[1::2])


def check_halves(samples: Iterable[Any]) -> None:
    """Refuse a grid where a side has no train rows to spare."""
    sides = Counter((s.domain, s.side) for s in samples if s.part == _TRAIN and s.side in _SIDES)
    if few := [f"{domain}.{side}" for (domain, side), rows in sides.items() if rows < 2]:
        raise InputError(
            f"grid: {', '.join(few)} has one train row. A grid takes half of the train rows to "
            "choose and reports the others: give at least two, or no grid."
        )


def deciding_success(samples: Samples, seed: int, metric: str) -> float:
    """Return Avg or HS of the unlearned model on the deciding half of the train rows, percent."""
    sides = samples["unlearned", _TRAIN][seed]
    means = {}
    for place, values in sides.items():
        half = deciding(values)
        means[place] = np.array([values[key] for key in half]).mean(keepdims=True)
    return float(avg_and_hs(means)[0, ("Avg", "HS").index(metric)])


def without_deciding(samples: Samples) -> Samples:
    """Return the samples that are reported."""
    shown: Samples = {}
    for (model, part), seeds in samples.items():
        shown[model, part] = {
            seed: {
                place: _others(values) if part == _TRAIN else dict(values)
                for place, values in sides.items()
            }
            for seed, sides in seeds.items()
        }
    return shown


def with_reported_rows(folder: Path) -> Results:
    """Return a cell's results with train rows of the reported half: their US, RS and NLL."""
    results = read_results(folder / "results.json")
    groups: dict[tuple[str, str, str], dict[str, Mapping[str, Any]]] = {}
    for line in read_lines(folder / "samples.jsonl"):
        if line["part"] == _TRAIN and line["side"] in _SIDES:
            group = groups.setdefault((line["model"], line["domain"], line["side"]), {})
            group[line["key"]] = line
    rest = [r for r in results.rows if r.part != _TRAIN or r.side not in _SIDES]
    rows = [row for place, lines in groups.items() for row in _rows(place, _others(lines))]
    return make_results((*rows, *rest), results.freezing, results.inputs, results.samples)


def _others(values: Mapping[str, Any]) -> dict[str, Any]:
    half = deciding(values)
    return {key: value for key, value in values.items() if key not in half}


def _rows(place: tuple[str, str, str], lines: Mapping[str, Mapping[str, Any]]) -> Sequence[Result]:
    known = 100 * statistics.fmean(line["accuracy"] for line in lines.values())
    side = place[2]
    success = 100 - known if side == "unlearn" else known
    nll = statistics.fmean(line["nll"] for line in lines.values())
    values = {_SIDES[side]: success, "NLL": nll}
    return [Result(*place, _TRAIN, name, value, len(lines)) for name, value in values.items()]
