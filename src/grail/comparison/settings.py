"""The YAML of a comparison: methods, seeds and grids over a base; reports all problems at once.

Checks what a method may change; the sections of a run are checked by grail.config.
"""

from __future__ import annotations

import os
from collections import Counter
from itertools import count
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    ValidationError,
    field_validator,
    model_validator,
)

from grail.config.file import COMPARISON, read, with_shared_model
from grail.config.merge import Sections, with_overrides
from grail.config.messages import explain
from grail.config.values import Count, Name, Output, Section, Seed
from grail.errors import InputError, did_you_mean

Figure = Literal["tradeoff", "heatmap", "sweep"]
Column = Literal["US", "RS", "HS"]

_ELSEWHERE = {
    "preset": "is given beside set, not in it: make a method of each preset",
    "seed": "is that of the cell: give seeds, of all methods or of one",
    "output": "is a folder per cell: give output, beside base",
    "made_with": "is added by a finished run: leave it out",
}
"""Keys of a run that a method cannot change, because every cell sets them."""


def _distinct(values: list[Any]) -> list[Any]:
    twice = [value for value, times in Counter(values).items() if times > 1]
    if twice:
        raise ValueError(f"names {twice[0]} twice")
    return values


def _of_a_cell(changes: dict[str, Any]) -> dict[str, Any]:
    for key, reason in _ELSEWHERE.items():
        if key in changes:
            raise ValueError(f"{key} {reason}")
    return changes


def _as_list(names: Any) -> Any:
    return [] if names is None else [names] if isinstance(names, str) else names


Changes = Annotated[Sections, AfterValidator(_of_a_cell)]
Axes = Annotated[dict[str, Annotated[list[Any], Field(min_length=1)]], AfterValidator(_of_a_cell)]
"""Dotted key -> the values that it takes."""

Names = Annotated[list[Name], BeforeValidator(_as_list), AfterValidator(_distinct)]
"""One name, several, or null for none."""

Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
Columns = Annotated[list[Column], Field(min_length=1), AfterValidator(_distinct)]
Figures = Annotated[list[Figure], AfterValidator(_distinct)]


class Method(Section):
    """How the runs of one method differ from the base."""

    preset: Name | None = None
    """A method by name, put over the base."""
    set: Changes = Field(default_factory=dict)
    """Settings over base and preset, nested or dotted."""
    vary: Axes = Field(default_factory=dict)
    """Dotted key -> values: a row of the table for every combination."""
    seeds: Seeds | None = None
    """Seeds of this method. null: those of all."""
    grid: Axes | None = None
    """Dotted key -> values: candidates, of which the best on train rows becomes the row. null: the
    grid of all methods."""


class Choose(Section):
    """How the best point of a grid is chosen: by rows and a seed that are not reported."""

    part: Name = "train"
    """The rows that decide: always train, half of each side's; the other half is reported."""
    metric: Literal["Avg", "HS"] = "Avg"
    """Mean of all US and RS, or the harmonic success; the highest wins."""
    seed: Seed | None = None
    """Seed of the candidates' runs, which no method may report. null: the first that is free."""
    extend: Annotated[int, Field(strict=True, ge=0)] = 3
    """How often a grid whose best point lies at its edge goes on there, by its own factor. A row
    that is still at an edge then is marked."""

    @field_validator("part")
    @classmethod
    def _never_val(cls, part: str) -> str:
        if part != "train":
            raise ValueError(
                f"{part!r} cannot choose: val rows are only for reporting, and a method chosen on "
                "them would look better than it is; give train"
            )
        return part


class Comparison(Section):
    """A comparison: methods and seeds on one vanilla model and one set of scores."""

    title: Name = "Comparison"
    """Heading of the tables."""
    base: Sections
    """Settings that all runs share, or the name of a YAML file in the same folder."""
    methods: Annotated[dict[Name, Method], Field(min_length=1)]
    """Name in the table -> method, or the name of another comparison's YAML file in the same
    folder."""
    seeds: Seeds = Field(default_factory=lambda: [0])
    """Seeds that every method is run with."""
    grid: Axes = Field(default_factory=dict)
    """Dotted key -> candidate values for every method."""
    choose: Choose = Choose()
    reference: Names = Field(default_factory=list)
    """The methods that all others are compared with: a name or a list."""
    parallel: Count = 1
    """Runs at the same time."""
    columns: Columns = Field(default=["US", "RS"])
    """Columns of the tables for each domain."""
    figures: Figures = Field(default_factory=lambda: list(get_args(Figure)))
    """The figures to draw."""
    output: Output
    """Folder, relative to the current one. In a file it may be left out: runs/ and the file's
    name."""
    shared: Output | None = None
    """Run directory of the vanilla model and the scores, for comparisons that share them. null:
    output."""

    @field_validator("base")
    @classmethod
    def _without_output(cls, base: Sections) -> Sections:
        if "output" in base:
            raise ValueError("give the output beside base, not in it: a run directory per cell")
        return base

    @property
    def reported(self) -> set[int]:
        """The seeds of all rows of the tables."""
        return {*self.seeds, *(s for method in self.methods.values() for s in method.seeds or ())}

    @property
    def choosing_seed(self) -> int:
        """The seed of the candidates' runs."""
        given = self.choose.seed
        return next(n for n in count() if n not in self.reported) if given is None else given

    @model_validator(mode="after")
    def _choice_not_reported(self) -> Comparison:
        grids = [self.grid if m.grid is None else m.grid for m in self.methods.values()]
        if self.choosing_seed in self.reported and any(grids):
            raise ValueError(
                f"choose.seed: {self.choosing_seed} is reported too, and a choice looks better "
                "than it is on what it was made with. Leave it out, or give another"
            )
        return self

    @model_validator(mode="after")
    def _known_reference(self) -> Comparison:
        for name in self.reference:
            if name not in self.methods:
                hint = did_you_mean(name, self.methods)
                raise ValueError(
                    f"reference {name!r} is not a method.{hint} Allowed: {', '.join(self.methods)}"
                )
            if self.methods[name].vary:
                raise ValueError(f"reference {name!r} varies: it must be one row")
        return self


def load_comparison(
    path: Path, overrides: list[str], output: str | None = None
) -> tuple[Comparison, Path]:
    """Read and check a comparison; return it with the folder that its data paths start from.

    ``base`` may be the name of another YAML file in the same folder, and ``methods`` that of
    another comparison there, whose methods are taken: comparisons share what they have in common.
    An InputError names every problem by its key, what was given and what is allowed.
    """
    file, raw = read(path)
    if not {"base", "methods"} & raw.keys():
        if (file.parent / COMPARISON).is_dir():
            raise InputError(f"{path} is the output of a comparison. Give its YAML file.")
        raise InputError(f"{file} is one run, not a comparison. Use: grail run {path}")
    source = file
    if isinstance(raw.get("base"), str):
        source, raw["base"] = read(file.parent / os.path.expanduser(raw["base"]))
    if isinstance(raw.get("methods"), str):
        other, content = read(file.parent / os.path.expanduser(raw["methods"]))
        if "methods" not in content:
            raise InputError(f"methods: {other} has no methods. Give the file of a comparison.")
        raw["methods"] = content["methods"]
    sections = {"output": f"runs/{file.stem}"} | with_overrides(raw, overrides)
    if isinstance(base := sections.get("base"), dict):
        sections["base"] = with_shared_model(base, source)
    if output is not None:
        sections["output"] = output
    return parse_comparison(sections), file.absolute().parent


def parse_comparison(raw: Sections) -> Comparison:
    """Check a mapping as read from YAML; an InputError names every problem."""
    try:
        return Comparison.model_validate(raw)
    except ValidationError as error:
        raise InputError(_problem(dict(problem)) for problem in error.errors()) from error


def _problem(problem: dict[str, Any]) -> str:
    if not problem["loc"]:  # of the comparison as a whole
        return f"{problem['ctx']['error']}."
    return explain(problem, Comparison)
