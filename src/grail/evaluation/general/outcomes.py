"""The outcome of each item of a general task, and the comparison of two models item by item."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from grail.evaluation.metrics import mean

_FIELDS = {"acc": "correct", "acc_norm": "correct_norm"}
"""lm-eval's name of a metric -> the field of an outcome that it averages."""


@dataclass(frozen=True)
class Outcome:
    """One model's answer to one item (a line of ``general_samples.jsonl``), without text.

    Attributes:
        task: The task.
        id: The item's own id in a local file; otherwise its position in lm-eval's task.
        correct: 1 if the most probable choice is the right one, else 0.
        correct_norm: The same with log-likelihoods per character of the choice; None where the task
            has no acc_norm.
    """

    task: str
    id: str
    correct: float
    correct_norm: float | None = None

    def as_json(self, model: str) -> dict[str, Any]:
        """Return the line for a model; values that are None are left out."""
        values = {"model": model, **asdict(self)}
        return {name: value for name, value in values.items() if value is not None}


def estimate(values: Sequence[float]) -> dict[str, float | None]:
    """Return {"value", "stderr"} in percent: the mean of values from 0 to 1 and its error.

    The error is the sample standard deviation (n - 1) over the root of n, as in lm-eval; None for
    one item. Items are taken to be drawn independently.
    """
    average, count = mean(values), len(values)
    if count < 2:
        return {"value": 100.0 * average, "stderr": None}
    variance = math.fsum((value - average) ** 2 for value in values) / (count - 1)
    return {"value": 100.0 * average, "stderr": 100.0 * math.sqrt(variance / count)}


def compare_outcomes(vanilla: Sequence[Outcome], unlearned: Sequence[Outcome]) -> dict[str, Any]:
    """Return the tasks and the average of ``general.json`` for two models, in percent.

    The difference is unlearned minus vanilla, item by item. Its error is that of these differences:
    most items do not change, so it is much smaller than the two models' own errors.

    Raises:
        ValueError: if the two were not asked the same items.
    """
    if [(o.task, o.id) for o in vanilla] != [(o.task, o.id) for o in unlearned]:
        raise ValueError("the two models were asked different items")
    rows = [
        _row(task, metric, vanilla, unlearned)
        for task in dict.fromkeys(outcome.task for outcome in vanilla)
        for metric in _FIELDS
        if None not in _values(vanilla, task, metric)
    ]
    average = {"metric": "acc", **_average([row for row in rows if row["metric"] == "acc"])}
    return {"tasks": rows, "average": average}


def _row(
    task: str, metric: str, vanilla: Sequence[Outcome], unlearned: Sequence[Outcome]
) -> dict[str, Any]:
    before, after = (_values(model, task, metric) for model in (vanilla, unlearned))
    return {
        "task": task,
        "metric": metric,
        "n": len(before),
        "vanilla": estimate(before),
        "unlearned": estimate(after),
        "difference": estimate([a - b for b, a in zip(before, after, strict=True)]),
    }


def _values(outcomes: Iterable[Outcome], task: str, metric: str) -> list[Any]:
    return [getattr(o, _FIELDS[metric]) for o in outcomes if o.task == task]


def _average(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Average over tasks with equal weights; their errors are independent."""
    averages: dict[str, Any] = {"tasks": len(rows)}
    for name in ("vanilla", "unlearned", "difference"):
        errors = [row[name]["stderr"] for row in rows]
        squares = None if None in errors else math.fsum(error * error for error in errors)
        averages[name] = {
            "value": mean([row[name]["value"] for row in rows]),
            "stderr": None if squares is None else math.sqrt(squares) / len(rows),
        }
    return averages
