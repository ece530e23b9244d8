"""``grail plan`` of a comparison: what its base and its cells will take; writes nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from grail.cli.plan import sizes, span
from grail.comparison import cells
from grail.comparison.cells import Store
from grail.comparison.collect import best
from grail.comparison.compare import has_base, validate
from grail.comparison.rows import Cell, ComparisonPlan, Point, Row, plan_comparison
from grail.comparison.settings import load_comparison
from grail.config.run import Config
from grail.progress import Listener
from grail.run.inputs import read_inputs

if TYPE_CHECKING:
    from grail.forecast.forecast import Forecast as RunPlan
    from grail.reporting.tables import Table

Range = tuple[float, float]
"""From and to."""

MEASURING = ("evaluate", "generate")
SHARED = (
    "Cells that run side by side share the cores: all together take about as long, and the memory "
    "of those that run at once adds up. Starting a process, loading and writing are left out. The "
    "chosen point of a grid that is not finished is taken to cost what its first one does."
)


@dataclass(frozen=True)
class Line:
    """One line of the forecast: the base, or the cells of a row.

    Attributes:
        name: The row's name.
        cells: Runs, those of a grid included; cells of equal settings are run once.
        left: Those that are not finished.
        each: Seconds of one of them, from the first to the last stage; of the longest.
        seconds: What is left of all of them.
        memory: Bytes at the peak of one of them.
    """

    name: str
    cells: int
    left: int
    each: Range
    seconds: Range
    memory: Range


@dataclass(frozen=True)
class Forecast:
    """What a comparison will take.

    Attributes:
        lines: The base first, then the rows in order.
        parallel: Cells that run side by side.
        notes: What was measured, what assumed, what left out.
    """

    lines: tuple[Line, ...]
    parallel: int
    notes: tuple[str, ...]

    @property
    def seconds(self) -> Range:
        """All that is still to be done."""
        return _sum([line.seconds for line in self.lines])

    @property
    def memory(self) -> Range:
        """The peak of all processes that will be at work at once, in bytes."""
        base, *rows = self.lines
        at_once = min(self.parallel, sum(line.left for line in rows))
        low, high = max((line.memory for line in rows if line.left), default=(0.0, 0.0))
        first = base.memory if base.left else (0.0, 0.0)
        return max(first[0], low * at_once), max(first[1], high * at_once)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self) | {"total": {"seconds": self.seconds, "memory": self.memory}}


def handle(options: argparse.Namespace) -> int:
    """Forecast, print a table and notes, and return the exit code.

    Raises:
        InputError: if the comparison, its data or its model cannot be used.
    """
    from rich.console import Console

    from grail.cli.terminal import Terminal, quiet, render

    plan = plan_comparison(*load_comparison(options.config, options.set, options.output))
    quiet()
    listener = Terminal(Console(stderr=True))
    for warning in validate(plan):
        listener.warn(warning)
    found = forecast(plan, listener)
    if options.json:
        sys.stdout.write(json.dumps({"output": str(plan.output), **found.as_json()}) + "\n")
        return 0
    console = Console(highlight=False)
    console.print(render(table(plan, found)))
    for note in found.notes:
        console.print(f"- {note}", markup=False)
    left = f"{span(found.seconds)}, with {sizes(found.memory)} of memory"
    done = not any(line.left for line in found.lines)
    total = f"still to do: {'nothing' if done else left}"
    console.print(total, markup=False, soft_wrap=True)
    return 0


def forecast(plan: ComparisonPlan, listener: Listener) -> Forecast:
    """Measure this machine once with the base's model, and estimate the base and every cell.

    Raises:
        InputError: if the tokenizer or the model cannot be read.
    """
    from grail.forecast.forecast import measure, plan_of

    inputs = read_inputs(plan.base)
    found = measure(plan.base, inputs, listener)
    made = has_base(plan)
    whole = plan_of(plan.base, inputs, found)
    base = _only(whole, {"vanilla", "score", *MEASURING}, 1 / _models(plan.base))
    lines = [_line("base", [base], [not made])]
    store = Store(plan.base) if made else None
    seen: set[str] = set()
    for row in plan.rows:
        own = [cell for cell in plan.runs(row, _point(plan, row, store)) if _is_new(cell, seen)]
        given, there = inputs, found
        if own and not cells.shares_vanilla(own[0].config, plan.base):
            given = read_inputs(
                own[0].config
            )  # another model or other rows: the same for all seeds
            there = measure(own[0].config, given, listener)
        plans = [_of_cell(plan, cell, plan_of(cell.config, given, there)) for cell in own]
        left = [not (store and store.is_finished(cell.config)) for cell in own]
        lines.append(_line(row.name, plans, left))
    return Forecast(tuple(lines), plan.settings.parallel, (*whole.notes, SHARED))


def table(plan: ComparisonPlan, found: Forecast) -> Table:
    """Return the forecast as a table: the base, then a line for each row of the comparison."""
    from grail.reporting.tables import MISSING, Table

    rows = [
        (
            line.name,
            str(line.cells),
            str(line.left),
            span(line.each) if line.cells else MISSING,
            sizes(line.memory) if line.cells else MISSING,
            span(line.seconds) if line.left else MISSING,
        )
        for line in found.lines
    ]
    columns = ("", "Runs", "Left", "Each", "Peak memory of each", "All that is left")
    return Table(plan.settings.title, columns, tuple(rows))


def _point(plan: ComparisonPlan, row: Row, store: Store | None) -> Point:
    """Return the point that a finished grid has chosen; before, its first one."""
    candidates = plan.candidates(row)
    if store and candidates and all(store.is_finished(cell.config) for cell in candidates):
        return best(store, candidates, plan.settings.choose.metric).point
    return row.points[0]


def _is_new(cell: Cell, seen: set[str]) -> bool:
    digest = cells.config_digest(cell.config)
    new = digest not in seen
    seen.add(digest)
    return new


def _of_cell(plan: ComparisonPlan, cell: Cell, whole: RunPlan) -> RunPlan:
    """Return what a cell's own process does: what it has from the base is done."""
    if not cells.shares_vanilla(cell.config, plan.base):
        return whole
    models = _models(cell.config)
    shared = {"vanilla"} | ({"score"} if cells.shares_scores(cell.config, plan.base) else set())
    names = {stage.name for stage in whole.stages} - shared
    return _only(whole, names, (models - 1) / models)


def _models(config: Config) -> int:
    """Return how many models a run measures: vanilla, unlearned, and one at equal retention."""
    return 2 if config.evaluation.retain_target is None else 3


def _only(whole: RunPlan, names: set[str], measured: float) -> RunPlan:
    """Return a plan with the named stages, of whose measuring only a share is to be done."""
    stages = []
    for stage in whole.stages:
        if stage.name in names:
            share = measured if stage.name in MEASURING else 1.0
            low, high = stage.seconds
            stages.append(replace(stage, seconds=(low * share, high * share)))
    return replace(whole, stages=tuple(stages))


def _line(name: str, plans: Sequence[RunPlan], left: Sequence[bool]) -> Line:
    each = [_sum([stage.seconds for stage in plan.stages]) for plan in plans]
    peaks = [plan.peak(max((s.memory for s in plan.stages), default=0.0)) for plan in plans]
    todo = [plan.seconds for plan, open_ in zip(plans, left, strict=True) if open_]
    longest, peak = max(each, default=(0.0, 0.0)), max(peaks, default=(0.0, 0.0))
    return Line(name, len(plans), sum(left), longest, _sum(todo), peak)


def _sum(ranges: Sequence[Range]) -> Range:
    return sum(low for low, _ in ranges), sum(high for _, high in ranges)
