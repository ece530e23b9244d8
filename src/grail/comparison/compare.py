"""The comparison in order: the base, the grids, the cells of all seeds, then comparison.json."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from grail.comparison import cells
from grail.comparison import processes as runner
from grail.comparison.collect import best, collect
from grail.comparison.processes import Job, ProcessResult
from grail.comparison.rows import Cell, ComparisonPlan, Point, Row, uncalibrated
from grail.config import file as config_file
from grail.errors import DivergenceError, InputError, collecting
from grail.files import write_json
from grail.progress import Listener
from grail.run import directory
from grail.run import inputs as preparation

RESULT, BASE = "comparison.json", "base.json"


def validate(plan: ComparisonPlan) -> list[str]:
    """Check the data and all that needs no model, of the base and of every row; return warnings.

    Raises:
        InputError: with every problem, one per line.
    """
    problems: list[str] = []
    warnings = list(preparation.read_inputs(plan.base).warnings)
    for row in plan.rows:
        for point in row.points:
            cell = plan.cells(row, point)[0]
            with collecting(problems, f"methods.{row.method}: "):
                warnings += preparation.read_inputs(cell.config).warnings
    if problems:
        raise InputError(problems)
    return list(dict.fromkeys(warnings))


def run_comparison(plan: ComparisonPlan, listener: Listener) -> dict[str, Any]:
    """Run what is not finished, and return what comparison.json then holds.

    A failed cell is recorded and the others go on.

    Raises:
        InputError: if the base cannot be run, the output or what is shared is a run's, or another
            comparison is at work here.
        DivergenceError: if the base failed for another reason.
    """
    own = plan.output / directory.COMPARISON
    directory.refuse_comparison(plan.output, plan.base)
    with directory.alone(own):
        _base(plan, own, listener)
        return Cells(plan, listener).through()


def _base(plan: ComparisonPlan, own: Path, listener: Listener) -> None:
    """Make the vanilla model and its scores, and measure it: once, for all cells."""
    file, log = own / "base.yaml", own / "base.log"
    if has_base(plan):
        listener.skipped("base: vanilla and scores")
        return
    config_file.write(file, plan.base, {})
    with listener.stage("base: vanilla and scores") as tick:
        tick(0, 1, f"log: {log}")
        outcome = runner.run(Job(("evaluate", str(file), "--vanilla-only"), log))
        tick(1, 1, "vanilla measured")
    if outcome.code:
        told = runner.tail(log).replace("grail: error: ", "")  # the prefix comes with this error
        text = f"the base run failed ({_ending(outcome)}). The end of {log}:\n{told}"
        raise (InputError if outcome.code == 2 else DivergenceError)(text)
    write_json(own / BASE, _base_record(plan))


def has_base(plan: ComparisonPlan) -> bool:
    """Tell whether the base is made, of these settings and data.

    A comparison that shares it may have remade it since.
    """
    wanted = _base_record(plan)
    own = plan.output / directory.COMPARISON
    return wanted["inputs"] is not None and cells.read_json(own / BASE) == wanted


def _base_record(plan: ComparisonPlan) -> dict[str, Any]:
    digest = cells.config_digest(plan.base)
    return {"config_digest": digest, "inputs": cells.base_inputs(plan.base)}


class Cells:
    """The cells of one comparison: run, and judged."""

    def __init__(self, plan: ComparisonPlan, listener: Listener) -> None:
        self.plan, self.listener = plan, listener
        self.stamp = cells.vanilla_stamp(plan.base)
        self.failures: dict[Path, str] = {}
        self.adopted: dict[Path, dict[str, Any]] = {}  # folder -> what the candidate's run took

    def through(self) -> dict[str, Any]:
        """Run grids, choose, run the chosen points with all seeds, and write the outcome."""
        plan = self.plan
        candidates = {row.name: plan.candidates(row) for row in plan.rows}
        self._run("grid", [cell for own in candidates.values() for cell in own])
        chosen = {row.name: self._choose(row, candidates[row.name]) for row in plan.rows}
        finals: list[Cell] = []
        for row in plan.rows:
            point = chosen[row.name]
            if point is not None:
                finals += plan.cells(row, point)
                self._adopt(candidates[row.name], plan.cells(row, point))
        self._run("cells", finals)
        found = collect(plan, chosen, self.failures)
        write_json(plan.output / RESULT, found)
        return found

    def _choose(self, row: Row, candidates: Sequence[Cell]) -> Point | None:
        """Return the best point of a row; None if every candidate failed."""
        if not candidates:
            return row.points[0]
        whole = [cell for cell in candidates if cell.folder not in self.failures]
        return best(whole, self.plan.settings.choose.metric).point if whole else None

    def _adopt(self, candidates: Sequence[Cell], own: Sequence[Cell]) -> None:
        """Take the chosen candidate for the cell of the same seed."""
        made = {(cells.config_digest(c.config), c.seed): c for c in candidates}
        for cell in own:
            candidate = made.get((cells.config_digest(uncalibrated(cell.config)), cell.seed))
            if candidate is not None and not cells.is_finished(cell, self.stamp):
                self._set_aside(cell)
                cells.adopt(candidate, cell)
                self.adopted[cell.folder] = cells.read_record(cell.folder)

    def _run(self, name: str, wanted: Sequence[Cell]) -> None:
        """Run what is not finished here or elsewhere; cells of equal settings only once."""
        self._take_over(wanted)
        left = [cell for cell in wanted if not cells.is_finished(cell, self.stamp)]
        if len(left) < len(wanted):
            self.listener.skipped(f"{len(wanted) - len(left)} of {len(wanted)} {name}")
        if not left:
            return
        twins: dict[str, list[Cell]] = {}
        for cell in left:
            twins.setdefault(cells.config_digest(cell.config), []).append(cell)
        self._run_all(name, [same[0] for same in twins.values()])
        self._take_over(left)
        for first, *others in twins.values():
            if first.folder in self.failures:
                text = self.failures[first.folder]
                self.failures |= dict.fromkeys((cell.folder for cell in others), text)

    def _take_over(self, wanted: Sequence[Cell]) -> None:
        """Take cells that this comparison, or another that shares its base, has finished."""
        for cell in wanted:
            if cells.is_finished(cell, self.stamp):
                cells.announce(cell, self.plan.base)
                continue
            twin = cells.twin(cell, self.plan.base, self.stamp)
            if twin is not None:
                self._set_aside(cell)
                cells.adopt(twin, cell)

    def _set_aside(self, cell: Cell) -> None:
        kept = cells.set_aside(cell, self.plan.base)
        if kept is not None:
            self.listener.warn(
                f"{cell.label} was finished with other settings, data or version: "
                f"kept beside it as {kept.name}."
            )

    def _run_all(self, name: str, left: Sequence[Cell]) -> None:
        resumed: dict[Path, bool] = {}

        def job(cell: Cell) -> Job:
            self._set_aside(cell)
            resumed[cell.folder] = cells.was_begun(cell)
            file = cells.prepare_cell(cell, self.plan.base)
            return Job(("run", str(file)), cell.folder / cells.LOG)

        done = 0

        def ended(number: int, outcome: ProcessResult) -> None:
            nonlocal done
            done += 1
            cell = left[number]
            self._ended(cell, outcome, resumed[cell.folder])
            tick(done, len(left), cell.label)

        with self.listener.stage(name) as tick:
            tick(0, len(left), "")
            jobs = [lambda cell=cell: job(cell) for cell in left]
            runner.run_all(jobs, self.plan.settings.parallel, ended)

    def _ended(self, cell: Cell, outcome: ProcessResult, resumed: bool) -> None:
        if outcome.code:
            text = runner.tail(cell.folder / cells.LOG)
            self.failures[cell.folder] = text or _ending(outcome)
            self.listener.warn(f"{cell.label} failed ({_ending(outcome)}): {text}")
            return
        seconds, peak = outcome.seconds, outcome.peak_bytes
        before = self.adopted.get(cell.folder)
        if before is not None:  # this run has only calibrated what the candidate's run has made
            seconds, peak = seconds + before["seconds"], max(peak, before["peak_bytes"])
            resumed = before["resumed"]
        measured = {"seconds": seconds, "peak_bytes": peak, "resumed": resumed}
        cells.write_record(cell, self.stamp, measured)
        cells.announce(cell, self.plan.base)  # now: this comparison may never come to its end


def _ending(outcome: ProcessResult) -> str:
    code = outcome.code
    return f"exit code {code}" if code > 0 else f"ended by signal {-code}"
