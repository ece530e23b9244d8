"""From settings to a plan: which rows the table has, which cells they take, with which settings.

Pure: touches no file of the output.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from grail.comparison.settings import Axes, Comparison, Method
from grail.config.merge import Sections, merge
from grail.config.presets import PRESETS, with_preset
from grail.config.run import Config, parse_config
from grail.errors import InputError, collecting

Point = dict[str, Any]
"""Dotted key -> its value."""

OWN_PLACES = {"vanilla", "scores", "evaluation", "unlearned", "figures", "log"}
"""Names in a run directory or in that of a comparison, which no method's folder may take."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: What the table says.
        method: The method it belongs to.
        varied: The values that set it apart from the method's other rows.
        points: Candidates; the best on train becomes the row (one empty point: nothing to choose).
        seeds: The seeds that it is run with.
        sections: The settings of all its cells, before a point and a seed.
    """

    name: str
    method: str
    varied: Point
    points: tuple[Point, ...]
    seeds: tuple[int, ...]
    sections: Sections = field(repr=False)


@dataclass(frozen=True)
class Cell:
    """One run: a row's settings at one point, with one seed, in a folder of its own."""

    row: str
    seed: int
    point: Point
    folder: Path
    config: Config = field(repr=False)

    @property
    def label(self) -> str:
        """What messages call it."""
        place = "".join(f", {word}" for word in _words(self.point))
        return f"{self.row}{place}, seed {self.seed}"


@dataclass(frozen=True)
class ComparisonPlan:
    """All that a comparison will do."""

    settings: Comparison
    output: Path
    base: Config
    rows: tuple[Row, ...]
    place: Path = field(repr=False)

    def candidates(self, row: Row) -> list[Cell]:
        """Return the cells that decide between the points of a row; none if it has only one.

        None of them is calibrated: that takes several measurements and cannot change the choice.
        """
        if len(row.points) < 2:
            return []
        folder = self.output / slug(row.name) / "grid"
        seed = self.settings.choose.seed
        made = [self._cell(row, p, seed, folder / slug(" ".join(_words(p)))) for p in row.points]
        return [replace(cell, config=uncalibrated(cell.config)) for cell in made]

    def cells(self, row: Row, point: Point) -> list[Cell]:
        """Return the cells of a row, one per seed."""
        folder = self.output / slug(row.name)
        return [self._cell(row, point, seed, folder / str(seed)) for seed in row.seeds]

    def runs(self, row: Row, point: Point) -> list[Cell]:
        """Return all runs that a row takes: its candidates, then the cells of the chosen point.

        The candidate that is chosen becomes the cell of its seed.
        """
        candidates = self.candidates(row)
        taken = {self.settings.choose.seed} if candidates else set()
        return candidates + [c for c in self.cells(row, point) if c.seed not in taken]

    def _cell(self, row: Row, point: Point, seed: int, folder: Path) -> Cell:
        sections = merge(row.sections, point, {"seed": seed, "output": str(folder)})
        return Cell(row.name, seed, point, folder, _checked(sections, self.place))


def plan_comparison(settings: Comparison, place: Path) -> ComparisonPlan:
    """Expand methods into rows and check the settings of every cell.

    Args:
        settings: The checked comparison.
        place: The folder beside which relative data paths are looked up.

    Raises:
        InputError: with every problem of the base and of all methods, one per line.
    """
    problems: list[str] = []
    base: Config | None = None
    sections = dict(settings.base)
    with collecting(problems, "base: "):
        sections = _pinned(settings.base)
        base = _checked(sections | {"output": settings.shared or settings.output}, place)
    known = {line.removeprefix("base: ") for line in problems}
    rows: list[Row] = []
    for name, method in settings.methods.items():
        with collecting(problems, f"methods.{name}: "):
            rows += _rows(name, method, settings, sections)
    problems += _taken(rows)
    plan = (
        ComparisonPlan(settings, Path(settings.output), base, tuple(rows), place) if base else None
    )
    for row in rows:
        for line in _wrong(row, place):
            if line not in known:
                problems.append(f"methods.{row.method}: {line}")
    if problems or plan is None:
        raise InputError(problems)
    return plan


def uncalibrated(config: Config) -> Config:
    """Return the settings of the same run without ``evaluation.retain_target``."""
    evaluation = config.evaluation.model_copy(update={"retain_target": None})
    return config.model_copy(update={"evaluation": evaluation})


def cross(axes: Axes) -> list[Point]:
    """Return every combination of the values; one empty point without any axis."""
    combinations = itertools.product(*axes.values())
    return [dict(zip(axes, values, strict=True)) for values in combinations]


def slug(name: str) -> str:
    """Return a name for a folder: letters, digits and ``. _ = -``."""
    return re.sub(r"[^\w.=-]+", "-", name, flags=re.ASCII).strip("-.") or "-"


def _rows(name: str, method: Method, settings: Comparison, base: Sections) -> list[Row]:
    if method.preset is not None:
        with_preset({"preset": method.preset})  # refuses an unknown one
    preset = {"preset": method.preset, **PRESETS[method.preset]} if method.preset else {}
    grid = settings.grid if method.grid is None else method.grid
    points, seeds = tuple(cross(grid)), tuple(method.seeds or settings.seeds)
    made = []
    for varied in cross(method.vary):
        label = ", ".join((name, *_words(varied)))
        own = merge(base, preset, method.set, varied)
        made.append(Row(label, name, varied, points, seeds, own))
    return made


def _pinned(base: Sections) -> Sections:
    """Fill in the base's preset, and give vanilla model and scores a seed that no cell changes."""
    given = {key: value for key, value in with_preset(base).items() if key != "preset"}
    seed = given.get("seed", 0)
    pinned: Sections = {"seed": seed}
    for section in ("vanilla", "importance"):
        own = given.get(section, {})
        if isinstance(own, dict) and own.get("seed") is None:  # what is no section is told of later
            pinned[f"{section}.seed"] = seed
    return merge(given, pinned)


def _checked(sections: Sections, place: Path) -> Config:
    return parse_config(sections, place)


def _wrong(row: Row, place: Path) -> list[str]:
    """Return what is wrong with the settings of a row at any of its points."""
    problems: list[str] = []
    for point in row.points:
        with collecting(problems):
            _checked(merge(row.sections, point, {"output": "-"}), place)
    return problems


def _taken(rows: Iterable[Row]) -> list[str]:
    """Refuse rows whose folders would be one, or something else's."""
    problems, seen = [], dict.fromkeys(OWN_PLACES, "the comparison's own files")
    for row in rows:
        folder = slug(row.name).lower()
        if folder in seen:
            problems.append(
                f"methods.{row.method}: the folder of '{row.name}' is taken by {seen[folder]}. "
                "Give the method another name."
            )
        seen[folder] = f"'{row.name}'"
        points = [slug(" ".join(_words(point))) for point in row.points]
        if len(set(points)) < len(points):
            problems.append(f"methods.{row.method}: its grid names a point twice.")
    return problems


def _words(point: Point) -> list[str]:
    """Return "k_op_ur=0.05" for each value; whole keys where the last words would not tell."""
    short = [key.rpartition(".")[2] for key in point]
    names = short if len(set(short)) == len(short) else list(point)
    return [f"{name}={_value(v)}" for name, v in zip(names, point.values(), strict=True)]


def _value(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
