"""What is measured with several seeds: one line a method and seed, and a table with intervals."""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import machine

from grail.config.file import load_config
from grail.reporting.tables import MISSING, Table

T = {2: 12.706, 3: 4.303, 4: 3.182, 5: 2.776, 6: 2.571, 7: 2.447, 8: 2.365, 9: 2.306, 10: 2.262}
"""Number of values -> the 0.975 quantile of Student's t with one degree of freedom less."""

SIGNED = {"beyond", "closed"}
"""Points above another model, and the share of a gap: they may be below 0."""


def line(method: str, seed: int, values: Mapping[str, float]) -> dict[str, Any]:
    """Return one measurement in the format that ``readings.py`` reads."""
    return {"method": method, "seed": seed, "summary": {"unlearned": {"train": dict(values)}}}


def keep(name: str, settings: dict[str, Any], lines: Sequence[Mapping[str, Any]]) -> Path:
    """Write results/NAME.json: the lines, and those of other methods and seeds that it has."""
    path = machine.RESULTS / f"{name}.json"
    before = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    new = {(one["method"], one["seed"]): dict(one) for one in lines}
    found = {(one["method"], one["seed"]): one for one in before.get("measurements", ())} | new
    return machine.write(path, settings, [found[key] for key in sorted(found, key=_order(new))], {})


def keep_runs(
    about: str, name: str, command: str, measure: Callable[[Path, int], Iterable[Mapping[str, Any]]]
) -> None:
    """Measure the runs that the command line names, and keep their lines as results/NAME.json.

    Args:
        about: The script's docstring; its first line is the help.
        name: Name of the result file.
        command: What is written as the command that made it.
        measure: From a run directory and its seed to lines.
    """
    parser = argparse.ArgumentParser(description=about.partition("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+")
    runs = parser.parse_args().runs
    found = [one for run in runs for one in measure(run, load_config(run, []).seed)]
    print(f"wrote {keep(name, {'command': command}, found)}")


def _order(new: Mapping[tuple[str, int], Any]) -> Any:
    """Return a key that sorts by seed, and methods as the newest lines have them."""
    methods = list(dict.fromkeys(method for method, _ in new))
    place = {method: number for number, method in enumerate(methods)}
    return lambda key: (key[1], place.get(key[0], len(methods)), key[0])


def ends(values: Sequence[float]) -> tuple[float, float]:
    """Return the ends of the 95 % interval of a mean by Student's t."""
    mean = statistics.fmean(values)
    half = T[len(values)] * statistics.stdev(values) / len(values) ** 0.5
    return mean - half, mean + half


def table(
    title: str, columns: Mapping[str, str], measurements: Sequence[Mapping[str, Any]], note: str
) -> Table:
    """Return a line for each method: means over seeds, each with its interval.

    Args:
        title: The table's title.
        columns: Head -> name of the measure, in percent (cut at 0 and 100) but for NLL and KL, and
            what may be below 0 (names with one of the words ``SIGNED``).
        measurements: Lines as ``line`` makes them.
        note: What stands below.
    """
    found: dict[str, list[Mapping[str, float]]] = {}
    for one in measurements:
        found.setdefault(one["method"], []).append(one["summary"]["unlearned"]["train"])
    rows = [
        (method, *(_cell([one[n] for one in lines if n in one], n) for n in columns.values()))
        for method, lines in found.items()
    ]
    seeds = sorted({one["seed"] for one in measurements})
    said = f"Mean of {len(seeds)} seeds with a 95 % interval by Student's t."
    if any(len(lines) == 1 for lines in found.values()):
        said += " Without an interval: one seed, and no ground for a comparison."
    if len(seeds) == 1:
        said = f"Single runs (seed {seeds[0]}): no interval, and no ground for a comparison."
    return Table(title, ("", *columns), tuple(rows), f"{note} {said}".strip())


def _cell(values: Sequence[float], name: str) -> str:
    if not values:
        return MISSING
    digits = 1 if percent(name) else 2
    mean = f"{statistics.fmean(values):.{digits}f}"
    if len(values) == 1:
        return mean
    low, high = ends(values)
    if percent(name) and not SIGNED & set(name.split()):
        low, high = max(0.0, low), min(100.0, high)
    return f"{mean} [{low:.{digits}f}, {high:.{digits}f}]"


def percent(name: str) -> bool:
    """Whether a measure is in percent; NLL, KL and the like are in nats."""
    return not name.endswith(("NLL", "KL"))
