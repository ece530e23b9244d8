"""The comparison in order: the base, the grids, the cells of all seeds, then comparison.json."""

from collections.abc import Container, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from grail.comparison import cells, processes
from grail.comparison.cells import Store, link_cell
from grail.comparison.collect import best, collect
from grail.comparison.halves import check_halves
from grail.comparison.processes import Job, ProcessResult
from grail.comparison.rows import Cell, ComparisonPlan, Point
from grail.config import file as config_file
from grail.config.file import COMPARISON
from grail.errors import DivergenceError, InputError, collecting
from grail.files import write_json
from grail.progress import Listener, Tick
from grail.run import lock, refusals
from grail.run.inputs import read_inputs

_RESULT, _BASE = "comparison.json", "base.json"
_STAGE_3 = ("unlearned", "unlearned.checkpoint", "train.jsonl", "train.jsonl.partial")
"""One of these exists in a cell whose Stage 3 has begun."""


def validate(plan: ComparisonPlan) -> list[str]:
    """Return warnings about the data and all that needs no model, or refuse with every problem."""
    problems: list[str] = []
    inputs = read_inputs(plan.base)
    warnings = list(inputs.warnings)
    if plan.chooses:
        check_halves(inputs.samples)
    for row in plan.rows:
        for point in row.points:
            cell = plan.cells(row, point)[0]
            with collecting(problems, f"methods.{row.method}: "):
                warnings += read_inputs(cell.config).warnings
    if problems:
        raise InputError(problems)
    return list(dict.fromkeys(warnings))


def run_comparison(plan: ComparisonPlan, listener: Listener) -> dict[str, Any]:
    """Run what is not finished; write and return the content of comparison.json.

    A failed cell is recorded and the others go on.

    Raises:
        InputError: if the base cannot be run, the output or ``shared`` is a run's, another
            comparison is at work here, or an earlier version of grail has made this one.
        DivergenceError: if the base failed for another reason.
    """
    refusals.refuse_comparison(plan.output, plan.base)
    with lock.alone(plan.output / COMPARISON):
        _make_base(plan, listener)
        store = Store(plan.base)
        plan, chosen, failures = _choose(plan, store, listener)
        final = [
            cell
            for row in plan.rows
            if row.name in chosen
            for cell in plan.cells(row, chosen[row.name])
        ]
        failures |= run_cells("cells", final, store, plan.settings.parallel, listener)
        comparison = collect(plan, chosen, failures)
        write_json(plan.output / _RESULT, comparison)
        return comparison


def _choose(
    plan: ComparisonPlan, store: Store, listener: Listener
) -> tuple[ComparisonPlan, dict[str, Point], dict[Path, str]]:
    """Run the grids, extending those whose best point lies at an edge.

    Return the plan with the grids as they were run; row -> its best point; the failed candidates.
    """
    failures: dict[Path, str] = {}
    chosen: dict[str, Point] = {}
    tried: set[Path] = set()
    for _ in range(plan.settings.choose.extend + 1):
        plan = plan.widened(chosen)
        new = [c for row in plan.rows for c in plan.candidates(row) if c.folder not in tried]
        failures |= run_cells("grid", new, store, plan.settings.parallel, listener)
        tried |= {cell.folder for cell in new}
        chosen = best_points(plan, store, failures)
        if not new:
            break
    return plan, chosen, failures


def best_points(plan: ComparisonPlan, store: Store, failures: Container[Path]) -> dict[str, Point]:
    """Return row -> the point to run it at; rows whose candidates all failed are missing."""
    chosen = {row.name: row.points[0] for row in plan.rows if len(row.points) == 1}
    for row in plan.rows:
        finished = [cell for cell in plan.candidates(row) if cell.folder not in failures]
        if finished:
            chosen[row.name] = best(store, finished, plan.settings.choose.metric).point
    return chosen


def chosen_so_far(
    plan: ComparisonPlan, store: Store | None
) -> tuple[ComparisonPlan, dict[str, Point]]:
    """Return the plan as far as its grids have been extended, and each row's point.

    The point of a row whose grid is not finished is its first.
    """
    chosen = {row.name: row.points[0] for row in plan.rows}
    found: dict[str, Point] = {}
    for _ in range(plan.settings.choose.extend + 1 if store else 0):
        plan = plan.widened(found)
        left = {
            row.name
            for row in plan.rows
            for cell in plan.candidates(row)
            if store and not store.is_finished(cell.config)
        }
        done = replace(plan, rows=tuple(row for row in plan.rows if row.name not in left))
        found = best_points(done, store, ()) if store else {}
        chosen |= found
    return plan, chosen


def has_base(plan: ComparisonPlan) -> bool:
    """Tell whether the base is made of these settings and data, and no other comparison's since."""
    made = cells.record_of(plan.output / COMPARISON / _BASE)
    return made == cells.base_record(plan.base) and not cells.is_changed(Path(plan.base.output))


def _make_base(plan: ComparisonPlan, listener: Listener) -> None:
    """Make the vanilla model and its scores, and measure it: once, for all cells."""
    folder, name = plan.output / COMPARISON, "base: vanilla and scores"
    file, log = folder / "base.yaml", folder / "base.log"
    if has_base(plan):
        listener.skipped(name)
        return
    config_file.write(file, plan.base, {})
    with listener.stage(name) as tick:
        tick(0, 1, f"log: {log}")
        job = Job(("evaluate", str(file), "--vanilla-only"), log)
        ((_, result),) = processes.run_all([job], 1)
        tick(1, 1, "vanilla measured")
    if result.code:
        message = processes.tail(log).replace("grail: error: ", "")  # this error has the prefix
        text = f"the base run failed ({_ending(result)}). The end of {log}:\n{message}"
        raise (InputError if result.code == 2 else DivergenceError)(text)
    write_json(folder / _BASE, cells.base_record(plan.base))


def run_cells(
    name: str, wanted: Sequence[Cell], store: Store, parallel: int, listener: Listener
) -> dict[Path, str]:
    """Run the cells that the store does not have finished, those of equal settings once.

    Every cell's folder becomes a link to its home, the folder in the store. Returned is the end of
    the log of each failed cell, by its folder.
    """
    stored = {cell.folder: store.folder(cell.config) for cell in wanted}
    distinct: dict[Path, Cell] = {}
    for cell in wanted:
        link_cell(cell.folder, stored[cell.folder])
        distinct.setdefault(stored[cell.folder], cell)
    left = {home: cell for home, cell in distinct.items() if not store.is_finished(cell.config)}
    if len(left) < len(distinct):
        listener.skipped(f"{len(distinct) - len(left)} of {len(distinct)} {name}")
    for home, cell in left.items():
        if (gone := cells.lost(home)) and (home / cells.RECORD).exists():
            listener.warn(f"{cell.label}: {gone[0]} is gone. It is made again.")
    if not left:
        return {}
    with listener.stage(name) as tick:
        errors = _run_left(left, store, parallel, listener, tick)
    for folder, home in stored.items():
        link_cell(folder, home)  # where links are impossible, the copies are made anew
    return {folder: errors[home] for folder, home in stored.items() if home in errors}


def _run_left(
    left: Mapping[Path, Cell], store: Store, parallel: int, listener: Listener, tick: Tick
) -> dict[Path, str]:
    """Run cells, given by their home, in child processes; return the errors of the failed."""
    errors: dict[Path, str] = {}
    resumed = {home: any((home / name).exists() for name in _STAGE_3) for home in left}

    def fail(home: Path, ending: str, text: str) -> None:
        errors[home] = text or ending
        listener.warn(f"{left[home].label} failed ({ending}): {text}")

    def jobs() -> Iterator[Job]:
        for home, cell in left.items():
            try:
                job = store.prepare(cell.config)
            except InputError as error:  # another comparison is at work in this cell
                fail(home, "not started", str(error))
            else:
                yield job

    tick(0, len(left), "")
    with closing(processes.run_all(jobs(), parallel)) as results:
        for done, (job, result) in enumerate(results, 1):
            home = job.log.parent
            if result.code:
                fail(home, _ending(result), processes.tail(job.log))
            else:
                store.finish(left[home].config, result, resumed[home])
            tick(done, len(left), left[home].label)
    return errors


def _ending(result: ProcessResult) -> str:
    code = result.code
    return f"exit code {code}" if code > 0 else f"ended by signal {-code}"
