"""``grail plan`` of a comparison: what its base and its cells will take; writes nothing."""

import argparse
from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from grail.cli.plan import left, sizes, span
from grail.comparison import cells
from grail.comparison.cells import Store
from grail.comparison.compare import chosen_so_far, has_base, validate
from grail.comparison.rows import Cell, ComparisonPlan, plan_comparison
from grail.comparison.settings import load_comparison
from grail.progress import Listener
from grail.reporting.tables import MISSING, Table
from grail.run.forecast.forecast import Forecast, Stage, plan_of, total_of
from grail.run.forecast.machine import Range, measure
from grail.run.forecast.work import models_of
from grail.run.inputs import read_inputs

SIDE_BY_SIDE = (
    "Cells that run side by side share the cores: all together take about as long, and the memory "
    "of those that run at once adds up. The "
    "chosen point of a grid that is not finished is taken to cost what its first one does, and "
    "points beyond its edge are not counted."
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
    """What a comparison will take: the base, then its rows; all that is left; and notes."""

    lines: tuple[RowForecast, ...]
    parallel: int
    total: dict[str, Range]
    notes: tuple[str, ...]


def comparison_plan(
    options: argparse.Namespace, listener: Listener
) -> tuple[dict[str, Any], Table, str]:
    """Return a comparison's plan as JSON values, as a table, and its last line."""
    plan = plan_comparison(*load_comparison(options.config, options.set, options.output))
    for warning in validate(plan):
        listener.warn(warning)
    found = forecast_comparison(plan, listener)
    columns = ("", "Runs", "Left", "Each", "Peak memory of each", "All that is left")
    table = Table(plan.settings.title, columns, tuple(map(_shown, found.lines)))
    words = left(found.total) if any(line.left for line in found.lines) else "nothing"
    return {"output": str(plan.output), **asdict(found)}, table, f"still to do: {words}"


def forecast_comparison(plan: ComparisonPlan, listener: Listener) -> ComparisonForecast:
    """Time this machine once with the base's model, and estimate the base and every cell."""
    inputs = read_inputs(plan.base)
    timing, finished = measure(plan.base, inputs, listener), has_base(plan)
    base = plan_of(plan.base, inputs, timing)
    vanilla = _stages(base, {"localize", "reset", "unlearn"}, 1 / models_of(plan.base))
    lines = [_line("base", [vanilla], [not finished])]
    store = Store(plan.base) if finished else None
    seen: set[str] = set()
    plan, points = chosen_so_far(plan, store)
    for row in plan.rows:
        runs = {cells.config_digest(c.config): c for c in plan.runs(row, points[row.name])}
        new = [cell for digest, cell in runs.items() if digest not in seen]
        seen |= runs.keys()
        own = inputs, timing
        if new and not cells.shares_vanilla(new[0].config, plan.base):  # alike for all seeds
            inputs_of_row = read_inputs(new[0].config)
            own = inputs_of_row, measure(new[0].config, inputs_of_row, listener)
        plans = [_of_cell(plan, cell, plan_of(cell.config, *own)) for cell in new]
        todo = [not (store and store.is_finished(cell.config)) for cell in new]
        lines.append(_line(row.name, plans, todo))
    total, parallel = _total(lines, plan.settings.parallel), plan.settings.parallel
    return ComparisonForecast(tuple(lines), parallel, total, (*base.notes, SIDE_BY_SIDE))


def _shown(line: RowForecast) -> tuple[str, ...]:
    some = (span(line.each), sizes(line.memory)) if line.cells else (MISSING, MISSING)
    rest = span(line.seconds) if line.left else MISSING
    return (line.name, str(line.cells), str(line.left), *some, rest)


def _of_cell(plan: ComparisonPlan, cell: Cell, run: Forecast) -> list[Stage]:
    """Return what a cell's own process does: what it shares with the base is done."""
    if not cells.shares_vanilla(cell.config, plan.base):
        return list(run.stages)
    shared = {"vanilla"} | ({"score"} if cells.shares_scores(cell.config, plan.base) else set())
    return _stages(run, shared, 1 - 1 / models_of(cell.config))


def _stages(run: Forecast, without: Collection[str], measured: float) -> list[Stage]:
    """Return a run's stages but some, with a share (0-1) of the evaluation."""
    stages = {stage.name: stage for stage in run.stages if stage.name not in without}
    low, high = stages["evaluate"].seconds
    stages["evaluate"] = replace(stages["evaluate"], seconds=(low * measured, high * measured))
    return list(stages.values())


def _line(name: str, runs: Sequence[Sequence[Stage]], todo: Sequence[bool]) -> RowForecast:
    totals = [total_of(stages) for stages in runs]
    longest = max((total["seconds"] for total in totals), default=(0.0, 0.0))
    peak = max((total["memory"] for total in totals), default=(0.0, 0.0))
    rest = [total["seconds"] for total, unfinished in zip(totals, todo, strict=True) if unfinished]
    return RowForecast(name, len(runs), sum(todo), longest, _sum(rest), peak)


def _total(lines: Sequence[RowForecast], parallel: int) -> dict[str, Range]:
    """Return all that is still to be done, and the peak of the processes that run at once."""
    base, *others = lines
    at_once = min(parallel, sum(line.left for line in others))
    low, high = max((line.memory for line in others if line.left), default=(0.0, 0.0))
    together = max(base.memory if base.left else (0.0, 0.0), (low * at_once, high * at_once))
    return {"seconds": _sum([line.seconds for line in lines]), "memory": together}


def _sum(ranges: Sequence[Range]) -> Range:
    return sum(low for low, _ in ranges), sum(high for _, high in ranges)
