"""The YAML of a comparison: methods, seeds and grids over a base; says all that is wrong at once.

Knows what a method may change; the sections of a run are checked by grail.config.
"""

from __future__ import annotations

from collections import Counter
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

from grail.config import file as config_file
from grail.config.messages import explain
from grail.config.values import Count, Name, Section, Seed
from grail.errors import InputError, did_you_mean
from grail.run.directory import COMPARISON

Sections = dict[str, Any]
Values = Annotated[list[Any], Field(min_length=1)]
Figure = Literal["tradeoff", "heatmap", "sweep"]
Column = Literal["US", "RS", "HS"]

ELSEWHERE = {
    "preset": "stands beside set, not in it: make a method of each preset",
    "seed": "is that of the cell: give seeds, of all methods or of one",
    "output": "is a folder per cell: give output, beside base",
    "made_with": "is what a finished run adds: leave it out",
}
"""Keys of a run that a method cannot change: here they would be overwritten, and nobody told."""


def _distinct(values: list[Any]) -> list[Any]:
    twice = [value for value, count in Counter(values).items() if count > 1]
    if twice:
        raise ValueError(f"names {twice[0]} twice")
    return values


def _of_a_cell(given: dict[str, Any]) -> dict[str, Any]:
    """Refuse keys that a cell takes from somewhere else."""
    for key, reason in ELSEWHERE.items():
        if key in given:
            raise ValueError(f"{key} {reason}")
    return given


Changes = Annotated[Sections, AfterValidator(_of_a_cell)]
Axes = Annotated[dict[str, Values], AfterValidator(_of_a_cell)]
"""Dotted key -> the values that it takes."""


def _as_list(given: Any) -> Any:
    return [] if given is None else [given] if isinstance(given, str) else given


Names = Annotated[list[Name], BeforeValidator(_as_list), AfterValidator(_distinct)]
"""One name, several, or null for none."""

Seeds = Annotated[list[Seed], Field(min_length=1), AfterValidator(_distinct)]
Columns = Annotated[list[Column], Field(min_length=1), AfterValidator(_distinct)]
Figures = Annotated[list[Figure], AfterValidator(_distinct)]


class Method(Section):
    """How the runs of one method differ from the base.

    ``vary`` makes a row of the table for every value (and combination of values); ``grid`` makes
    candidates, of which the best on the train rows becomes the row.
    """

    preset: Name | None = None
    set: Changes = Field(default_factory=dict)
    vary: Axes = Field(default_factory=dict)
    seeds: Seeds | None = None
    grid: Axes | None = None


class Choose(Section):
    """What decides between the points of a grid: a success on train rows, with one seed."""

    part: Name = "train"
    metric: Literal["Avg", "HS"] = "Avg"
    seed: Seed = 0

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
    """Methods x seeds on one vanilla model and one set of scores.

    ``reference`` names the methods that all others are compared with. ``shared`` is the run
    directory of the vanilla model and the scores, for comparisons that have them in common; null
    keeps them in ``output``. ``columns`` are what the tables show of each domain.
    """

    title: Name = "Comparison"
    base: Sections
    methods: Annotated[dict[Name, Method], Field(min_length=1)]
    seeds: Seeds = Field(default_factory=lambda: [0])
    grid: Axes = Field(default_factory=dict)
    choose: Choose = Choose()
    reference: Names = Field(default_factory=list)
    parallel: Count = 1
    columns: Columns = Field(default=["US", "RS"])
    figures: Figures = Field(default_factory=lambda: list(get_args(Figure)))
    output: Name
    shared: Name | None = None

    @field_validator("base")
    @classmethod
    def _without_output(cls, base: Sections) -> Sections:
        if "output" in base:
            raise ValueError("the output stands beside base, not in it: a run directory per cell")
        return base

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

    Raises:
        InputError: naming every problem by its key, what was given and what is allowed.
    """
    file, raw = config_file.read(path)
    if not {"base", "methods"} & raw.keys():
        if (file.parent / COMPARISON).is_dir():
            raise InputError(f"{path} is what a comparison has made. Give the YAML file it is of.")
        raise InputError(f"{file} is one run, not a comparison. Use: grail run {path}")
    if isinstance(raw.get("base"), str):
        _, raw["base"] = config_file.read(file.parent / raw["base"])
    if isinstance(raw.get("methods"), str):
        other, found = config_file.read(file.parent / raw["methods"])
        if "methods" not in found:
            raise InputError(f"methods: {other} has no methods. Give the file of a comparison.")
        raw["methods"] = found["methods"]
    for override in overrides:
        config_file.put(raw, override)
    if output is not None:
        raw["output"] = output
    raw.setdefault("output", f"runs/{file.stem}")
    return parse_comparison(raw), file.resolve().parent


def parse_comparison(raw: Sections) -> Comparison:
    """Check a mapping as read from YAML.

    Raises:
        InputError: with every problem, one per line.
    """
    try:
        return Comparison.model_validate(raw)
    except ValidationError as error:
        problems = [_told(dict(problem)) for problem in error.errors()]
        raise InputError("\n".join(problems)) from error


def _told(problem: dict[str, Any]) -> str:
    if not problem["loc"]:  # of the comparison as a whole
        return f"{problem['ctx']['error']}."
    return explain(problem, Comparison)
