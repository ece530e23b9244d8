"""From the folders of cells to comparison.json: means over seeds, differences, what was chosen.

Reads files; runs nothing. A grid is judged by half of the train rows
alone, and the other half is reported.
"""

import os
import platform
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from itertools import product
from pathlib import Path
from typing import Any

from grail.comparison import cells
from grail.comparison.cells import Store
from grail.comparison.grids import edges
from grail.comparison.halves import deciding_success, with_reported_rows, without_deciding
from grail.comparison.paired import COMPARED, Samples, compared, read_samples
from grail.comparison.processes import threads
from grail.comparison.rows import Cell, ComparisonPlan, Point, Row
from grail.config.file import read
from grail.results import Results, harmonic_success, read_pace, read_results

_PARTS = ("train", "val")


def best(store: Store, finished: Sequence[Cell], metric: str) -> Cell:
    """Return the grid point with the highest ``metric`` on deciding rows; the first of equals."""
    return max(finished, key=lambda cell: _score(cell, store.folder(cell.config), metric))


def collect(
    plan: ComparisonPlan, chosen: Mapping[str, Point], failures: Mapping[Path, str]
) -> dict[str, Any]:
    """Return the content of comparison.json, once all cells of the plan have been run.

    ``chosen`` is row -> the point that was chosen, without rows whose candidates all failed;
    ``failures`` is folder of a failed cell -> the last lines of its log.
    """
    candidates = [cell for row in plan.rows for cell in plan.candidates(row)]
    finished = [cell for cell in candidates if cell.folder not in failures]
    lines: list[dict[str, Any]] = []
    methods: list[dict[str, Any]] = []
    samples: dict[str, Samples] = {}
    for row in plan.rows:
        own = plan.cells(row, chosen[row.name]) if row.name in chosen else []
        own_lines = [_cell(plan, cell, failures) for cell in own]
        own_finished = [cell for cell in own if cell.folder not in failures]
        methods.append(_method(row, chosen.get(row.name), own_lines))
        own_samples = read_samples(own_finished)
        samples[row.name] = without_deciding(own_samples) if plan.chooses else own_samples
        finished += own_finished
        lines += own_lines
    return {
        "title": plan.settings.title,
        "machine": _machine(plan),
        "made_with": _versions(finished),
        "settings": cells.comparable_settings(plan.base),
        "choose": plan.settings.choose.model_dump()
        | {"seed": plan.settings.choosing_seed, "rows": "half" if plan.chooses else "none"},
        "reference": plan.settings.reference,
        "figures": list(plan.settings.figures),
        "columns": list(plan.settings.columns),
        "vanilla": _vanilla(plan, finished),
        "grid": [_candidate(plan, cell, chosen, failures) for cell in candidates],
        "cells": lines,
        "methods": methods,
        "differences": _differences(plan, samples),
        "best": _best(methods, samples),
    }


def _score(cell: Cell, folder: Path, metric: str) -> float:
    """Return the success of a candidate on the rows that decide, in percent."""
    return deciding_success(read_samples([replace(cell, folder=folder)]), cell.seed, metric)


def _results(plan: ComparisonPlan, folder: Path) -> Results:
    return with_reported_rows(folder) if plan.chooses else read_results(folder / "results.json")


def _differences(plan: ComparisonPlan, samples: Mapping[str, Samples]) -> list[dict[str, Any]]:
    return [
        {"method": row.name, "reference": reference, **difference}
        for reference in plan.settings.reference
        for row in plan.rows
        if row.name != reference
        for model, part in product(COMPARED, _PARTS)
        for difference in compared(samples[row.name], samples[reference], model, part)
    ]


def _best(methods: list[dict[str, Any]], samples: Mapping[str, Samples]) -> list[dict[str, Any]]:
    """Return the leader in Avg and HS, the second, and whether the interval excludes 0."""
    leads: list[dict[str, Any]] = []
    for model, part, metric in product(COMPARED, _PARTS, ("Avg", "HS")):
        means: dict[str, float] = {}
        for method in methods:
            metrics = method if model == "unlearned" else method.get(model, {})
            if metric in metrics.get(part, {}):
                means[method["method"]] = metrics[part][metric]["mean"]
        if len(means) < 2:
            continue
        first, second, *_ = sorted(means, key=lambda name: means[name], reverse=True)
        for line in compared(samples[first], samples[second], model, part):
            if line["metric"] == metric:
                lead = {"method": first, "second": second, "clear": line["low"] > 0}
                leads.append(lead | line)
    return leads


def _about(plan: ComparisonPlan, cell: Cell) -> dict[str, Any]:
    differing = cells.overrides(cell.config, plan.base)
    return {
        "method": cell.row,
        "seed": cell.seed,
        "folder": cell.folder.relative_to(plan.output).as_posix(),
        "config_digest": cells.config_digest(cell.config),
        "overrides": {key: value for key, value in differing.items() if key != "seed"},
    }


def _cell(plan: ComparisonPlan, cell: Cell, failures: Mapping[Path, str]) -> dict[str, Any]:
    about = _about(plan, cell)
    if cell.folder in failures:
        return about | {"failed": failures[cell.folder]}
    results = _results(plan, cell.folder)
    record = cells.record_of(cell.folder / cells.RECORD)
    pace = read_pace(cell.folder / "train.jsonl")
    calibrated = cells.record_of(cell.folder / "evaluation" / "calibrated.json")
    return about | {
        "seconds": statistics.median(pace) * len(pace) if pace else 0.0,
        "wall_seconds": record.get("seconds"),
        "peak_bytes": record.get("peak_bytes"),
        "resumed": record.get("resumed", False),
        "steps": len(pace),
        "frozen": results.freezing.get("frozen"),
        "calibrated_weight": calibrated.get("weight"),
        "own_vanilla": not cells.shares_vanilla(cell.config, plan.base),
        "summary": {
            model: {part: of[model] for part, of in results.summary.items() if model in of}
            for model in COMPARED
            if any(row.model == model for row in results.rows)
        },
        "rows": [asdict(row) for row in results.rows if row.model in COMPARED],
    }


def _candidate(
    plan: ComparisonPlan, cell: Cell, chosen: Mapping[str, Point], failures: Mapping[Path, str]
) -> dict[str, Any]:
    about = _about(plan, cell)
    about |= {"point": cell.point, "chosen": chosen.get(cell.row) == cell.point}
    if cell.folder in failures:
        return about | {"failed": failures[cell.folder]}
    metric = plan.settings.choose.metric
    value = _score(cell, cell.folder, metric)
    return about | {"part": "train", "metric": metric, "value": value}


def _method(row: Row, point: Point | None, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    finished = [line for line in lines if "failed" not in line]
    method: dict[str, Any] = {
        "method": row.name,
        "of": row.method,
        "varied": row.varied,
        "chosen": point,
        "edge": edges(row.points, point) if point else [],
        "seeds": [line["seed"] for line in finished],
        "n_seeds": len(finished),
        "failed": len(lines) - len(finished) + (point is None),
        "minutes": _mean_sd([line["seconds"] / 60 for line in finished]),
        "peak_bytes": max((line["peak_bytes"] or 0 for line in finished), default=None),
    }
    for model in COMPARED:
        own = [line for line in finished if model in line["summary"]]
        by_part = {p: _over_seeds([_metrics(line, model, p) for line in own]) for p in _PARTS}
        if model == "unlearned":
            method |= by_part
        elif own:
            method[model] = by_part
    return method


def _metrics(line: Mapping[str, Any], model: str, part: str) -> dict[str, float]:
    """Return a cell's numbers by the names of the table: "DOMAIN.US", "Avg", "unlearn NLL", ..."""
    rows = [row for row in line["rows"] if row["model"] == model]
    metrics = {
        f"{row['domain']}.{row['metric']}": row["value"]
        for row in rows
        if row["part"] == part and row["metric"] in ("US", "RS")
    }
    if not metrics:
        return {}
    for domain in dict.fromkeys(row["domain"] for row in rows):
        us, rs = (metrics.get(f"{domain}.{metric}") for metric in ("US", "RS"))
        if us is not None and rs is not None:
            metrics[f"{domain}.HS"] = harmonic_success(us, rs)
    metrics |= line["summary"][model].get(part, {})
    nlls = [row for row in rows if row["metric"] == "NLL"]
    unlearn = [row for row in nlls if (row["side"], row["part"]) == ("unlearn", part)]
    general = [row for row in nlls if row["side"] == "general"]
    general = [row for row in general if row["part"] == "val"] or general  # a single row: no val
    for name, group in (("unlearn NLL", unlearn), ("general NLL", general)):
        if group:
            metrics[name] = statistics.fmean(row["value"] for row in group)
    return metrics


def _over_seeds(seeds: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    names = [name for name in (seeds[0] if seeds else {}) if all(name in one for one in seeds)]
    return {name: _mean_sd([one[name] for one in seeds]) for name in names}


def _mean_sd(values: Sequence[float]) -> dict[str, float | None] | None:
    """Return mean and standard deviation (of a sample; None for one value)."""
    if not values:
        return None
    sd = statistics.stdev(values) if len(values) > 1 else None
    return {"mean": statistics.fmean(values), "sd": sd}


def _vanilla(plan: ComparisonPlan, finished: Iterable[Cell]) -> dict[str, Any]:
    """Return the numbers of the shared vanilla model, from a finished cell that starts from it."""
    cell = next((c for c in finished if cells.shares_vanilla(c.config, plan.base)), None)
    if cell is None:
        return {}
    results = _results(plan, cell.folder)
    rows = [asdict(row) for row in results.rows if row.model == "vanilla"]
    summary = {part: of["vanilla"] for part, of in results.summary.items() if "vanilla" in of}
    line = {"rows": rows, "summary": {"vanilla": summary}}
    return {"rows": rows} | {p: _over_seeds([_metrics(line, "vanilla", p)]) for p in _PARTS}


def _machine(plan: ComparisonPlan) -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "parallel": plan.settings.parallel,
        "threads": threads(plan.settings.parallel),
    }


def _versions(finished: Iterable[Cell]) -> list[dict[str, Any]]:
    """Return the versions that cells were made with, each once: one entry, unless they differ."""
    versions: list[dict[str, Any]] = []
    for cell in finished:
        made_with = read(cell.folder)[1]["made_with"]
        version = {name: made_with[name] for name in ("grail", "python", "packages", "git")}
        if version not in versions:
            versions.append(version)
    return versions
