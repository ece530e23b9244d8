"""``grail plan`` of a comparison: what its base and its cells will take; writes nothing."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from grail.cli.plan import show, sizes, span
from grail.comparison import cells
from grail.comparison.cells import Store
from grail.comparison.compare import chosen_so_far, has_base, validate
from grail.comparison.rows import Cell, ComparisonPlan, plan_comparison
from grail.comparison.settings import load_comparison
from grail.progress import Listener
from grail.run.inputs import read_inputs

if TYPE_CHECKING:
    from grail.forecast.cost import Range
    from grail.forecast.forecast import Forecast
    from grail.reporting.tables import Table

MEASURING = ("evaluate", "generate")
SIDE_BY_SIDE = (
    "Cells that run side by side share the cores: all together take about as long, and the memory "
    "of those that run at once adds up. Starting a process, loading and writing are left out. The "
    "chosen point of a grid that is not finished is taken to cost what its first one does; points "
    "beyond its edge are not counted."
)


@dataclass(frozen=True)
class RowForecast:
    """What the base takes, or the cells of a row.

    Attributes:
        name: The row's name.
        cells: Runs, those of a grid included; cells of equal settings are run once.
        left: Those that are not finished.
        each: Seconds of the longest of them, from its first to its last stage.
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
class ComparisonForecast:
    """What a comparison will take.

    Attributes:
        lines: The base first, then the rows in order.
        parallel: Cells that run side by side.
        notes: What was measured, what assumed, what left out.
    """

    lines: tuple[RowForecast, ...]
    parallel: int
    notes: tuple[str, ...]

    @property
    def seconds(self) -> Range:
        """All that is still to be done."""
        return _sum([line.seconds for line in self.lines])

    @property
    def memory(self) -> Range:
        """The peak of all processes that run at once, in bytes."""
        base, *rows = self.lines
        at_once = min(self.parallel, sum(line.left for line in rows))
        low, high = max((line.memory for line in rows if line.left), default=(0.0, 0.0))
        first = base.memory if base.left else (0.0, 0.0)
        return max(first[0], low * at_once), max(first[1], high * at_once)

    def as_json(self) -> dict[str, Any]:
        """Return all of it as JSON values."""
        return asdict(self) | {"total": {"seconds": self.seconds, "memory": self.memory}}


def handle_comparison_plan(options: argparse.Namespace) -> int:
    """Plan a comparison, print a table and notes, and return the exit code.

    Raises:
        InputError: if the comparison, its data or its model cannot be used.
    """
    from rich.console import Console

    from grail.cli.terminal import Terminal, quiet

    plan = plan_comparison(*load_comparison(options.config, options.set, options.output))
    quiet()
    listener = Terminal(Console(stderr=True))
    for warning in validate(plan):
        listener.warn(warning)
    forecast = forecast_comparison(plan, listener)
    if options.json:
        sys.stdout.write(json.dumps({"output": str(plan.output), **forecast.as_json()}) + "\n")
        return 0
    left = f"{span(forecast.seconds)}, with {sizes(forecast.memory)} of memory"
    left = left if any(line.left for line in forecast.lines) else "nothing"
    show([_table(plan, forecast)], forecast.notes, f"still to do: {left}")
    return 0


def forecast_comparison(plan: ComparisonPlan, listener: Listener) -> ComparisonForecast:
    """Time this machine once with the base's model, and estimate the base and every cell.

    Raises:
        InputError: if the tokenizer or the model cannot be read.
    """
    from grail.forecast.forecast import measure, plan_of

    inputs = read_inputs(plan.base)
    timing, finished = measure(plan.base, inputs, listener), has_base(plan)
    base = plan_of(plan.base, inputs, timing)
    vanilla = _only(base, {"vanilla", "score", *MEASURING}, 1 / base.models)
    lines = [_line("base", [vanilla], [not finished])]
    store = Store(plan.base) if finished else None
    seen: set[str] = set()
    plan, points = chosen_so_far(plan, store)
    for row in plan.rows:
        runs = {cells.config_digest(c.config): c for c in plan.runs(row, points[row.name])}
        new = [cell for digest, cell in runs.items() if digest not in seen]
        seen |= runs.keys()
        cell_inputs, cell_timing = inputs, timing
        if new and not cells.shares_vanilla(new[0].config, plan.base):  # alike for all seeds
            cell_inputs = read_inputs(new[0].config)
            cell_timing = measure(new[0].config, cell_inputs, listener)
        plans = [_of_cell(plan, c, plan_of(c.config, cell_inputs, cell_timing)) for c in new]
        left = [not (store and store.is_finished(cell.config)) for cell in new]
        lines.append(_line(row.name, plans, left))
    return ComparisonForecast(tuple(lines), plan.settings.parallel, (*base.notes, SIDE_BY_SIDE))


def _table(plan: ComparisonPlan, forecast: ComparisonForecast) -> Table:
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
        for line in forecast.lines
    ]
    columns = ("", "Runs", "Left", "Each", "Peak memory of each", "All that is left")
    return Table(plan.settings.title, columns, tuple(rows))


def _of_cell(plan: ComparisonPlan, cell: Cell, run: Forecast) -> Forecast:
    """Return what a cell's own process does: what it shares with the base is done."""
    if not cells.shares_vanilla(cell.config, plan.base):
        return run
    shared = {"vanilla"} | ({"score"} if cells.shares_scores(cell.config, plan.base) else set())
    names = {stage.name for stage in run.stages} - shared
    return _only(run, names, (run.models - 1) / run.models)


def _only(run: Forecast, names: set[str], measured: float) -> Forecast:
    """Return the plan of the named stages, with a share (0-1) of the measuring."""
    stages = []
    for stage in run.stages:
        if stage.name in names:
            share = measured if stage.name in MEASURING else 1.0
            low, high = stage.seconds
            stages.append(replace(stage, seconds=(low * share, high * share)))
    return replace(run, stages=tuple(stages))


def _line(name: str, plans: Sequence[Forecast], left: Sequence[bool]) -> RowForecast:
    each = [_sum([stage.seconds for stage in plan.stages]) for plan in plans]
    peaks = [plan.peak(max((s.memory for s in plan.stages), default=0.0)) for plan in plans]
    to_do = [plan.seconds for plan, unfinished in zip(plans, left, strict=True) if unfinished]
    longest, peak = max(each, default=(0.0, 0.0)), max(peaks, default=(0.0, 0.0))
    return RowForecast(name, len(plans), sum(left), longest, _sum(to_do), peak)


def _sum(ranges: Sequence[Range]) -> Range:
    return sum(low for low, _ in ranges), sum(high for _, high in ranges)
