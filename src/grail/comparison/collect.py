"""From the folders of cells to comparison.json: means over seeds, differences, what was chosen.

Reads files; runs nothing. A grid is judged by train rows alone.
"""

from __future__ import annotations

import json
import math
import os
import platform
import statistics as spread
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from itertools import pairwise
from pathlib import Path
from typing import Any

from grail.comparison import cells
from grail.comparison.paired import METRICS, MODELS, Samples, compared
from grail.comparison.processes import threads
from grail.comparison.rows import Cell, ComparisonPlan, Point, Row
from grail.config.file import read
from grail.results import Results, harmonic_success, read_results

PARTS = ("train", "val")


def train_score(cell: Cell, metric: str) -> float:
    """Return the success of a grid point on the train rows; nothing else of it is read."""
    results = read_results(cell.folder / "results.json")
    return results.summary["train"]["unlearned"][metric]


def best(candidates: Sequence[Cell], metric: str) -> Cell:
    """Return the finished grid point with the best success on train; the first of equals."""
    return max(candidates, key=lambda cell: train_score(cell, metric))


def collect(
    plan: ComparisonPlan, chosen: Mapping[str, Point | None], failures: Mapping[Path, str]
) -> dict[str, Any]:
    """Return what comparison.json holds.

    Args:
        plan: The comparison; all its cells have been run.
        chosen: Row -> the point that was chosen; None where every candidate failed.
        failures: Folder of a failed cell -> the last lines of its log.
    """
    found: list[dict[str, Any]] = []
    methods: list[dict[str, Any]] = []
    samples: dict[str, Samples] = {}
    whole = [cell for cell in _candidates(plan) if cell.folder not in failures]
    for row in plan.rows:
        point = chosen[row.name]
        own = [] if point is None else plan.cells(row, point)
        lines = [_cell(plan, cell, failures) for cell in own]
        methods.append(_method(row, point, lines))
        finished = [cell for cell in own if cell.folder not in failures]
        samples[row.name] = Samples(finished)
        whole += finished
        found += lines
    return {
        "title": plan.settings.title,
        "machine": _machine(plan),
        "made_with": _versions(whole),
        "settings": cells.settings_of(plan.base),
        "choose": plan.settings.choose.model_dump(),
        "reference": plan.settings.reference,
        "figures": list(plan.settings.figures),
        "columns": list(plan.settings.columns),
        "vanilla": _vanilla(plan, whole),
        "grid": [_candidate(plan, cell, chosen, failures) for cell in _candidates(plan)],
        "cells": found,
        "methods": methods,
        "differences": _differences(plan, samples),
        "best": _best(methods, samples),
    }


def _differences(plan: ComparisonPlan, samples: Mapping[str, Samples]) -> list[dict[str, Any]]:
    return [
        {"method": row.name, "reference": reference, **found}
        for reference in plan.settings.reference
        for row in plan.rows
        if row.name != reference
        for model in MODELS
        for part in PARTS
        for found in compared(samples[row.name], samples[reference], model, part)
    ]


def _best(methods: list[dict[str, Any]], samples: Mapping[str, Samples]) -> list[dict[str, Any]]:
    """Return who leads in Avg and HS, over whom, and whether the interval excludes 0."""
    found = []
    for model in MODELS:
        for part in PARTS:
            for metric in METRICS:
                ranked = _ranked(methods, model, part, metric)
                for first, second in list(pairwise(ranked))[:1]:
                    for line in compared(samples[first], samples[second], model, part):
                        if line["metric"] == metric:
                            about = {"method": first, "second": second, "clear": line["low"] > 0}
                            found.append(about | line)
    return found


def _ranked(methods: list[dict[str, Any]], model: str, part: str, metric: str) -> list[str]:
    scored = []
    for method in methods:
        metrics = measured(method, model).get(part, {})
        if metric in metrics:
            scored.append((-metrics[metric]["mean"], method["method"]))
    return [name for _, name in sorted(scored, key=lambda pair: pair[0])]


def measured(method: Mapping[str, Any], model: str) -> Mapping[str, Any]:
    """Return {part: {metric: {mean, sd}}} of one model of a method."""
    return method if model == "unlearned" else method.get(model, {})


def _cell(plan: ComparisonPlan, cell: Cell, failures: Mapping[Path, str]) -> dict[str, Any]:
    about = _about(plan, cell)
    if cell.folder in failures:
        return about | {"failed": failures[cell.folder]}
    results = read_results(cell.folder / "results.json")
    record = cells.read_record(cell.folder)
    pace = [line["seconds"] for line in _lines(cell.folder / "train.jsonl")]
    return about | {
        "seconds": spread.median(pace) * len(pace) if pace else 0.0,
        "wall_seconds": record.get("seconds"),
        "peak_bytes": record.get("peak_bytes"),
        "resumed": record.get("resumed", False),
        "steps": len(pace),
        "frozen": results.freezing.get("frozen"),
        "calibrated_weight": _weight(cell.folder),
        "own_vanilla": not cells.shares_vanilla(cell.config, plan.base),
        "summary": {
            model: {part: found[model] for part, found in results.summary.items() if model in found}
            for model in MODELS
            if any(row.model == model for row in results.rows)
        },
        "rows": [asdict(row) for row in results.rows if row.model in MODELS],
    }


def _weight(folder: Path) -> float | None:
    """Return how far towards the unlearned model the calibrated one lies (0-1)."""
    return cells.read_json(folder / "evaluation" / "calibrated.json").get("weight")


def _about(plan: ComparisonPlan, cell: Cell) -> dict[str, Any]:
    differing = cells.overrides(cell.config, plan.base)
    return {
        "method": cell.row,
        "seed": cell.seed,
        "folder": cell.folder.relative_to(plan.output).as_posix(),
        "config_digest": cells.config_digest(cell.config),
        "overrides": {key: value for key, value in differing.items() if key != "seed"},
    }


def _candidates(plan: ComparisonPlan) -> list[Cell]:
    return [cell for row in plan.rows for cell in plan.candidates(row)]


def _candidate(
    plan: ComparisonPlan,
    cell: Cell,
    chosen: Mapping[str, Point | None],
    failures: Mapping[Path, str],
) -> dict[str, Any]:
    about = {"point": cell.point, "chosen": chosen[cell.row] == cell.point}
    about = _about(plan, cell) | about
    if cell.folder in failures:
        return about | {"failed": failures[cell.folder]}
    metric = plan.settings.choose.metric
    return about | {"part": "train", "metric": metric, "value": train_score(cell, metric)}


def _method(row: Row, point: Point | None, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    whole = [line for line in lines if "failed" not in line]
    found: dict[str, Any] = {
        "method": row.name,
        "of": row.method,
        "varied": row.varied,
        "chosen": point,
        "seeds": [line["seed"] for line in whole],
        "n_seeds": len(whole),
        "failed": len(lines) - len(whole) + (point is None),
        "minutes": _mean_sd([line["seconds"] / 60 for line in whole]),
        "peak_bytes": max((line["peak_bytes"] or 0 for line in whole), default=None),
    }
    for model in MODELS:
        own = [line for line in whole if model in line["summary"]]
        parts = {part: _over_seeds([_metrics(line, model, part) for line in own]) for part in PARTS}
        if model == "unlearned":
            found |= parts
        elif own:
            found[model] = parts
    return found


def _metrics(line: Mapping[str, Any], model: str, part: str) -> dict[str, float]:
    """Return a cell's numbers by the names of the table: "DOMAIN.US", "Avg", "unlearn NLL", ..."""
    rows = [row for row in line["rows"] if row["model"] == model]
    found = {
        f"{row['domain']}.{row['metric']}": row["value"]
        for row in rows
        if row["part"] == part and row["metric"] in ("US", "RS")
    }
    if not found:
        return {}
    for domain in {row["domain"]: None for row in rows}:
        us, rs = (found.get(f"{domain}.{metric}") for metric in ("US", "RS"))
        if us is not None and rs is not None:
            found[f"{domain}.HS"] = harmonic_success(us, rs)
    found |= line["summary"][model].get(part, {})
    nlls = [row for row in rows if row["metric"] == "NLL"]
    unlearn = [r["value"] for r in nlls if r["side"] == "unlearn" and r["part"] == part]
    apart = [row for row in nlls if row["side"] == "general"]
    held = [row for row in apart if row["part"] == "val"] or apart  # none is, of a single row
    general = [row["value"] for row in held]
    for name, values in (("unlearn NLL", unlearn), ("general NLL", general)):
        if values:
            found[name] = math.fsum(values) / len(values)
    return found


def _over_seeds(found: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    names = [name for name in (found[0] if found else {}) if all(name in one for one in found)]
    return {name: _mean_sd([one[name] for one in found]) for name in names}


def _mean_sd(values: Sequence[float]) -> dict[str, float | None] | None:
    """Return mean and standard deviation (of a sample; None for one value)."""
    if not values:
        return None
    return {
        "mean": math.fsum(values) / len(values),
        "sd": spread.stdev(values) if len(values) > 1 else None,
    }


def _vanilla(plan: ComparisonPlan, whole: Iterable[Cell]) -> dict[str, Any]:
    """Return the rows of the shared vanilla model, from a finished cell that starts from it."""
    for cell in whole:
        if cells.shares_vanilla(cell.config, plan.base):
            return _as_vanilla(read_results(cell.folder / "results.json"))
    return {}


def _as_vanilla(results: Results) -> dict[str, Any]:
    rows = [asdict(row) for row in results.rows if row.model == "vanilla"]
    summary = {p: found["vanilla"] for p, found in results.summary.items() if "vanilla" in found}
    line = {"rows": rows, "summary": {"vanilla": summary}}
    parts = {part: _over_seeds([_metrics(line, "vanilla", part)]) for part in PARTS}
    return {"rows": rows, **parts}


def _machine(plan: ComparisonPlan) -> dict[str, Any]:
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cores": os.cpu_count(),
        "parallel": plan.settings.parallel,
        "threads": threads(plan.settings.parallel),
    }


def _versions(whole: Iterable[Cell]) -> list[dict[str, Any]]:
    """Return the versions that cells were made with, each once: one entry, unless they differ."""
    found: list[dict[str, Any]] = []
    for cell in whole:
        about = read(cell.folder)[1]["made_with"]
        own = {name: about[name] for name in ("grail", "python", "packages", "git")}
        if own not in found:
            found.append(own)
    return found


def _lines(path: Path) -> list[dict[str, Any]]:
    text = path.read_text(encoding="utf-8") if path.exists() else ""
    return [json.loads(line) for line in text.splitlines() if line.strip()]
