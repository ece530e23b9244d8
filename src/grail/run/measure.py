"""What the evaluation measures on one model of a run, or takes from what was measured before."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from grail.data.heldout import HELD_OUT
from grail.data.samples import CHECK
from grail.evaluation.equal_retention import CALIBRATED, between, weight_at
from grail.evaluation.evaluate import Evaluator
from grail.evaluation.membership import membership_results
from grail.evaluation.values import SampleValue, to_results
from grail.files import cached
from grail.model.weights import copy_weights, put_weights
from grail.progress import Tick
from grail.results import Result
from grail.run import directory
from grail.run.context import RunContext
from grail.run.general import Take
from grail.run.looks import guess_results


def values_of(
    folder: Path, context: RunContext, name: str, weights: str, take: Take
) -> list[SampleValue]:
    """Measure all rows on one model.

    Args:
        folder: The run directory; ``evaluation/NAME.json`` is kept in it.
        context: The run's model, tokenizer and rows.
        name: "vanilla", "unlearned", or the model between them at equal retention.
        weights: Digest of that model's weights.
        take: Puts the weights of a model on disk into the run's model.
    """
    settings = context.config.evaluation
    rows = context.data("train", "val", HELD_OUT, CHECK, "general")
    facts = {"weights": weights, "rows": rows, "repetition": "characters"}
    key = context.key("model", "data", "evaluation", **facts)

    main = context.process[0] == 0  # of a model in parts, all processes measure

    def measure() -> dict[str, Any]:
        if main:
            directory.outdate(folder)
        evaluator = context.evaluator(settings.generate)
        about: dict[str, float] = {}
        with context.listener.stage(f"evaluate {name}") as tick:
            if name == CALIBRATED:
                about = _go_back(context, evaluator, take, tick)
            else:
                take(name)
            values = evaluator.run(name, [*context.rows, *context.general], tick)
        return {**about, "values": [value.as_json() for value in values]}

    path = folder / "evaluation" / f"{name}.json"
    heard = context.listener
    known = lambda: heard.skipped(f"evaluate {name}")  # noqa: E731
    found = cached(path, key, measure, known, heard.warn, main)
    return [SampleValue(**value) for value in found["values"]]


def rows_of(values: Sequence[SampleValue], unseen: Collection[str], folder: Path) -> list[Result]:
    """Return the rows of ``results.json`` for what was measured on all models.

    Args:
        values: The values of every model.
        unseen: Keys of the unlearn rows that no training has read.
        folder: The run directory: what its looks say of a model that never knew.
    """
    guessed = guess_results(folder, values)
    return [*to_results(values), *membership_results(values, unseen), *guessed]


def _go_back(context: RunContext, evaluator: Evaluator, take: Take, tick: Tick) -> dict[str, float]:
    """Let the model be the one between vanilla and unlearned that keeps as much as wished."""
    wished = context.config.evaluation.retain_target or 0.0
    take("vanilla")
    vanilla = copy_weights(context.model)
    take("unlearned")
    unlearned = copy_weights(context.model)
    retained = [row for row in context.rows if (row.side, row.part) == ("retain", "train")]

    def kept(weight: float) -> float:
        put_weights(context.model, between(vanilla, unlearned, weight))
        return evaluator.retain_success(retained, tick)

    weight, reached = weight_at(wished, kept)
    put_weights(context.model, between(vanilla, unlearned, weight))
    return {"weight": weight, "retain_target": wished, "retain_success": reached}
