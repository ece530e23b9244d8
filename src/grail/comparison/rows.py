"""From settings to a plan: the rows of the table, and the cells of each with their settings.

Pure: touches no file of the output.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from grail.comparison.grids import beyond
from grail.comparison.settings import Axes, Comparison, Method
from grail.config.merge import Sections, merge
from grail.config.presets import PRESETS, with_preset
from grail.config.run import Config, parse_config
from grail.config.teach import switched
from grail.errors import InputError, collecting

Point = dict[str, Any]
"""Dotted key -> its value."""

_RESERVED = {"vanilla", "scores", "evaluation", "unlearned", "figures", "log"}
"""Names in a run directory or a comparison's folder, which no method's folder may take."""


@dataclass(frozen=True)
class Row:
    """One row of the table.

    Attributes:
        name: The row's label in the table.
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
    """One run: a row's settings at one point, with one seed; ``folder`` leads to its results."""

    row: str
    seed: int
    point: Point
    folder: Path
    config: Config = field(repr=False)

    @property
    def label(self) -> str:
        """Its name in messages."""
        return ", ".join((self.row, *_words(self.point), f"seed {self.seed}"))


@dataclass(frozen=True)
class ComparisonPlan:
    """All runs of a comparison; relative data paths start from ``data_folder``."""

    settings: Comparison
    output: Path
    base: Config
    rows: tuple[Row, ...]
    data_folder: Path = field(repr=False)

    def candidates(self, row: Row) -> list[Cell]:
        """Return the cells that decide between the points of a row; none if it has only one.

        None of them is calibrated: that takes several measurements and cannot change the choice.
        """
        if len(row.points) < 2:
            return []
        seed = self.settings.choosing_seed
        cells = [self._cell(row, p, seed, f"grid/{_slug(p)}") for p in row.points]
        return [replace(cell, config=uncalibrated(cell.config)) for cell in cells]

    def cells(self, row: Row, point: Point) -> list[Cell]:
        """Return the cells of a row, one per seed."""
        return [self._cell(row, point, seed, str(seed)) for seed in row.seeds]

    def runs(self, row: Row, point: Point) -> list[Cell]:
        """Return a row's candidates and its cells at a point."""
        return self.candidates(row) + self.cells(row, point)

    @property
    def chooses(self) -> bool:
        """Whether any row has a grid: then half of the train rows decide, the rest is reported."""
        return any(len(row.points) > 1 for row in self.rows)

    def widened(self, chosen: Mapping[str, Point]) -> ComparisonPlan:
        """Return the plan with a further point where a row's choice lies at an edge of its grid.

        A point that the settings refuse (a share above 1) is left out.
        """
        rows = []
        for row in self.rows:
            tried = row.points if len(row.points) > 1 and row.name in chosen else ()
            new = [point for point in beyond(tried, chosen.get(row.name, {})) if tried]
            rows.append(replace(row, points=(*row.points, *filter(partial(self._fits, row), new))))
        return replace(self, rows=tuple(rows))

    def _fits(self, row: Row, point: Point) -> bool:
        try:
            parse_config(merge(row.sections, point, {"output": "-"}), self.data_folder)
        except InputError:
            return False
        return True

    def _cell(self, row: Row, point: Point, seed: int, name: str) -> Cell:
        folder = self.output / slug(row.name) / name
        sections = merge(row.sections, point, {"seed": seed, "output": str(folder)})
        return Cell(row.name, seed, point, folder, parse_config(sections, self.data_folder))


def plan_comparison(settings: Comparison, data_folder: Path) -> ComparisonPlan:
    """Expand methods into rows and check the settings of every cell; refuse with all problems."""
    of_base: list[str] = []
    problems: list[str] = []
    base: Config | None = None
    sections = dict(settings.base)
    with collecting(of_base):
        sections = _pinned(settings.base)
        output = settings.shared or settings.output
        base = parse_config(sections | {"output": output}, data_folder)
    rows: list[Row] = []
    for name, method in settings.methods.items():
        with collecting(problems, f"methods.{name}: "):
            rows += _rows(name, method, settings, sections)
    problems += _taken(rows)
    for row in rows:
        own: list[str] = []
        for point in row.points:
            with collecting(own):
                parse_config(merge(row.sections, point, {"output": "-"}), data_folder)
        problems += [f"methods.{row.method}: {line}" for line in own if line not in of_base]
    problems = [*(f"base: {line}" for line in of_base), *problems]
    if problems or base is None:
        raise InputError(problems)
    return ComparisonPlan(settings, Path(settings.output), base, tuple(rows), data_folder)


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


def _slug(point: Point) -> str:
    return slug(" ".join(_words(point)))


def _rows(name: str, method: Method, settings: Comparison, base: Sections) -> list[Row]:
    if method.preset is not None:
        with_preset({"preset": method.preset})  # refuses an unknown one
    preset = {"preset": method.preset, **PRESETS[method.preset]} if method.preset else {}
    grid = settings.grid if method.grid is None else method.grid
    points, seeds = tuple(cross(grid)), tuple(method.seeds or settings.seeds)
    rows = []
    for varied in cross(method.vary):
        label, sections = (
            ", ".join((name, *_words(varied))),
            merge(base, preset, method.set, varied),
        )
        rows.append(Row(label, name, varied, points, seeds, sections))
    return rows


def _pinned(base: Sections) -> Sections:
    """Fill in the base's preset, and give vanilla model and scores a seed that no cell changes."""
    sections = {key: value for key, value in with_preset(base).items() if key != "preset"}
    seed = sections.get("seed", 0)
    pinned: Sections = {"seed": seed}
    sections["teach"] = switched(sections.get("teach"))
    for name in ("teach", "importance"):
        section = sections.get(name, {})
        if isinstance(section, dict) and section.get("seed") is None:  # else: none, or an error
            pinned[f"{name}.seed"] = seed
    return merge(sections, pinned)


def _taken(rows: Iterable[Row]) -> list[str]:
    """Return a problem for each row whose folder is reserved or another row's."""
    problems, owners = [], dict.fromkeys(_RESERVED, "the comparison's own files")
    for row in rows:
        folder = slug(row.name).lower()
        if folder in owners:
            problems.append(
                f"methods.{row.method}: the folder of '{row.name}' is taken by {owners[folder]}. "
                "Give the method another name."
            )
        owners[folder] = f"'{row.name}'"
        if len(set(map(_slug, row.points))) < len(row.points):
            problems.append(f"methods.{row.method}: its grid names a point twice.")
    return problems


def _words(point: Point) -> list[str]:
    """Return "k_op_ur=0.05" for each value; whole keys where the last words are not distinct."""
    short = [key.rpartition(".")[2] for key in point]
    names = short if len(set(short)) == len(short) else list(point)
    return [f"{name}={_text(v)}" for name, v in zip(names, point.values(), strict=True)]


def _text(value: Any) -> str:
    return json.dumps(value) if value is None or isinstance(value, bool) else str(value)
