"""Per-item outcomes of general tasks: kept, compared in pairs, averaged; knows no harness."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from grail.evaluation.metrics import mean
from grail.files import write_json

METRICS = {"acc": "correct", "acc_norm": "correct_norm"}
"""lm-eval's name of a metric -> the field of an outcome that it is the mean of."""

Estimate = dict[str, float | None]
"""A mean in percent and its standard error, which one item alone does not have."""


@dataclass(frozen=True)
class Outcome:
    """How one model did on one item (a line of ``general_samples.jsonl``); holds no text.

    Attributes:
        task: The task.
        id: The item's own id in a local file; otherwise its place in lm-eval's task.
        correct: 1 if the most probable choice is the right one, else 0.
        correct_norm: The same with the log-likelihood divided by the choice's length in
            characters; None where the task does not ask for it.
    """

    task: str
    id: str
    correct: float
    correct_norm: float | None = None

    def as_json(self, model: str) -> dict[str, Any]:
        """Return the line for a model, without what was not measured."""
        values = {"model": model, **asdict(self)}
        return {name: value for name, value in values.items() if value is not None}


def estimate(values: Sequence[float]) -> Estimate:
    """Return the mean of values from 0 to 1 in percent, with the standard error of that mean.

    The error is the sample standard deviation (n - 1) over the root of n: what lm-eval gives for
    a task. Items are taken to be drawn independently.
    """
    middle, count = mean(values), len(values)
    if count < 2:
        return {"value": 100.0 * middle, "stderr": None}
    spread = math.fsum((value - middle) ** 2 for value in values) / (count - 1)
    return {"value": 100.0 * middle, "stderr": 100.0 * math.sqrt(spread / count)}


def compare_outcomes(vanilla: Sequence[Outcome], unlearned: Sequence[Outcome]) -> dict[str, Any]:
    """Return what ``general.json`` says of two models on the same items, in percent.

    The difference (unlearned minus vanilla) is taken item by item, and its error is that of these
    differences: most items do not change, so it is much smaller than the two models' own errors.

    Raises:
        ValueError: if the two were not asked the same items.
    """
    if [(o.task, o.id) for o in vanilla] != [(o.task, o.id) for o in unlearned]:
        raise ValueError("the two models were asked different items")
    rows = [
        _row(task, metric, vanilla, unlearned)
        for task in dict.fromkeys(outcome.task for outcome in vanilla)
        for metric in METRICS
        if None not in _values(vanilla, task, metric)
    ]
    average = {"metric": "acc", **_average([row for row in rows if row["metric"] == "acc"])}
    return {"tasks": rows, "average": average}


def _row(
    task: str, metric: str, vanilla: Sequence[Outcome], unlearned: Sequence[Outcome]
) -> dict[str, Any]:
    before, after = (_values(side, task, metric) for side in (vanilla, unlearned))
    return {
        "task": task,
        "metric": metric,
        "n": len(before),
        "vanilla": estimate(before),
        "unlearned": estimate(after),
        "difference": estimate([a - b for b, a in zip(before, after, strict=True)]),
    }


def _values(outcomes: Iterable[Outcome], task: str, metric: str) -> list[Any]:
    return [getattr(o, METRICS[metric]) for o in outcomes if o.task == task]


def _average(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average over tasks, each counting the same; their errors are independent."""
    averages: dict[str, Any] = {"tasks": len(rows)}
    for name in ("vanilla", "unlearned", "difference"):
        errors = [row[name]["stderr"] for row in rows]
        known = None not in errors
        averages[name] = {
            "value": mean([row[name]["value"] for row in rows]),
            "stderr": math.sqrt(math.fsum(e * e for e in errors)) / len(rows) if known else None,
        }
    return averages


def write_outcomes(path: Path, outcomes: Sequence[Outcome], inputs: str) -> None:
    """Keep how one model did, with the digest of its inputs."""
    write_json(path, {"inputs": inputs, "outcomes": [asdict(outcome) for outcome in outcomes]})


def read_outcomes(path: Path, inputs: str) -> list[Outcome] | None:
    """Return what ``write_outcomes`` kept; None if it is absent, damaged or of other inputs."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        if found["inputs"] != inputs:
            return None
        return [Outcome(**outcome) for outcome in found["outcomes"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
