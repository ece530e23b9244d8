"""General ability as a table: ``general.json`` of a run directory, read and shown."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grail.errors import InputError
from grail.reporting.tables import MISSING, Table

NOTE = (
    "Accuracy in percent ± its standard error, by the log-likelihood of each choice. "
    "acc takes the most probable choice, acc_norm the most probable per character. "
    "Difference = unlearned - vanilla; its error is that of the differences item by item. "
    "A difference of less than two errors may be chance. "
    "Average = mean of the tasks' acc, each counting the same."
)
COLUMNS = ("Task", "Metric", "n", "Vanilla", "Unlearned", "Difference")
MODELS = ("vanilla", "unlearned", "difference")


def read_general(folder: Path) -> dict[str, Any]:
    """Return what ``general.json`` holds; empty where general tasks were not asked.

    Raises:
        InputError: if the file is damaged.
    """
    path = folder / "general.json"
    if not path.exists():
        return {}
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}). Run `grail evaluate` again.") from error


def general_table(found: Mapping[str, Any]) -> Table:
    """Return a row per task and metric, then the average; no rows where nothing was asked."""
    if not found:
        return Table("General ability", COLUMNS, ())
    rows = [(r["task"], r["metric"], f"{r['n']:,}", *_cells(r)) for r in found["tasks"]]
    average = found["average"]
    if average["tasks"] > 1:
        rows.append((f"average of {average['tasks']}", average["metric"], "", *_cells(average)))
    return Table("General ability", COLUMNS, tuple(rows), f"{NOTE} By {found['harness']}.")


def _cells(row: Mapping[str, Any]) -> tuple[str, ...]:
    signs = {"difference": "+"}
    return tuple(_estimate(row[name], signs.get(name, "")) for name in MODELS)


def _estimate(found: Mapping[str, float | None], sign: str) -> str:
    value, stderr = found["value"], found["stderr"]
    error = MISSING if stderr is None else f"{stderr:.1f}"
    return f"{value:{sign}.1f} ± {error}"
