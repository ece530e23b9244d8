"""What the evaluation measures on one model of a run, or takes from what was measured before."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

from grail.data.heldout import HELD_OUT
from grail.data.samples import CHECK
from grail.evaluation.equal_retention import CALIBRATED, between, weight_at
from grail.evaluation.evaluate import Evaluator
from grail.evaluation.membership import membership_results
from grail.evaluation.values import SampleValue, to_results, values_in
from grail.model.weights import copy_weights, holding, put_weights
from grail.progress import Tick, silent
from grail.results import GUESS, Result
from grail.run import directory
from grail.run.context import RunContext
from grail.run.looks import examples_read, guess_domains, unknowing
from grail.run.neighbours import own_digest, write_neighbours
from grail.unlearning.guesses import after_examples


def values_of(context: RunContext, name: str, weights: str) -> list[SampleValue]:
    """Measure all rows on one model; the unlearn rows on a model that never knew, if it is known.

    The values are kept in ``evaluation/NAME.json``.

    Args:
        context: The run's model, tokenizer and rows.
        name: "vanilla", "unlearned", the model between them at equal retention, or "guess".
        weights: Digest of that model's weights; of a guess, those of the vanilla model.
    """
    if name == "vanilla":  # which is measured first
        write_neighbours(context, weights)
    rows = context.data("train", "val", HELD_OUT, CHECK, "general") | own_digest(context)
    facts: dict[str, Any] = {"weights": weights, "rows": rows, "repetition": "characters"}
    file, stage = f"evaluation/{name}.json", f"evaluate {name}"
    domains = guess_domains(context.folder) if name == GUESS else []
    if name == GUESS:
        if not domains:
            (context.folder / file).unlink(missing_ok=True)
            return []
        facts |= {
            "domains": domains,
            "examples": examples_read(context.config.unlearning),
            "seed": context.config.seed,
        }
    key = context.key("model", "data", "evaluation", **facts)

    def measure() -> dict[str, Any]:  # of a model in parts, all processes measure
        if context.main:
            directory.outdate(context.folder)
        evaluator = context.evaluator(context.config.evaluation.generate)
        about: dict[str, float] = {}
        with context.listener.stage(stage) as tick:
            if name == GUESS:
                context.take("vanilla")
                values = guessed(context, domains, tick)
                return {"values": [value.as_json() for value in values]}
            if name == CALIBRATED:
                about = _go_back(context, evaluator, tick)
            else:
                context.take(name)
            values = evaluator.run(name, context.measured, tick)
        return {**about, "values": [value.as_json() for value in values]}

    return values_in(context.folder / file, context.kept(file, key, stage, measure))


def guessed(
    context: RunContext, domains: Collection[str], tick: Tick = silent
) -> list[SampleValue]:
    """Measure what a model guesses that never knew the unlearn rows, train and val.

    The vanilla model, whose weights the model has now, answers a domain's heldout rows, which stand
    for both parts; where there are none, the model from before the facts answers the rows, after
    examples as the looks draw them. ``domains`` are those whose guess the looks found to be one.
    """
    evaluator, section = context.evaluator(generate=False), context.config.unlearning
    lost = [row for row in context.rows if row.side == "unlearn" and row.domain in domains]
    held = [row for row in lost if row.part == HELD_OUT]
    apart = {row.domain for row in held}
    asked = [row for row in lost if row.domain not in apart]
    both = {row.place for row in lost if row.domain in apart and row.part != HELD_OUT}
    values = [
        replace(value, part=place.part)
        for value in (evaluator.run(GUESS, held, tick) if held else ())
        for place in sorted(both)
        if place.domain == value.domain
    ]
    before = context.before() if asked else None
    known = unknowing(context.model, before, context.rows, section, context.config.seed)
    if asked and known is not None:
        weights, examples = known
        with holding(context.model, weights):
            values += evaluator.run(GUESS, [after_examples(r, examples) for r in asked], tick)
    return values


def rows_of(values: Sequence[SampleValue], unseen: Collection[str]) -> list[Result]:
    """Return the rows of ``results.json`` for what was measured on all models.

    ``unseen`` are keys of the unlearn rows that no training has read.
    """
    models = [value for value in values if value.model != GUESS]
    return [*to_results(values), *membership_results(models, unseen)]


def _go_back(context: RunContext, evaluator: Evaluator, tick: Tick) -> dict[str, float]:
    """Let the model be the one between vanilla and unlearned that keeps as much as wished."""
    wished = context.config.evaluation.retain_target or 0.0
    context.take("vanilla")
    vanilla = copy_weights(context.model)
    context.take("unlearned")
    unlearned = copy_weights(context.model)
    retained = [row for row in context.rows if (row.side, row.part) == ("retain", "train")]

    def kept(weight: float) -> float:
        put_weights(context.model, between(vanilla, unlearned, weight))
        return evaluator.retain_success(retained, tick)

    weight, reached = weight_at(wished, kept)
    put_weights(context.model, between(vanilla, unlearned, weight))
    return {"weight": weight, "retain_target": wished, "retain_success": reached}
