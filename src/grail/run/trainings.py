"""What the training stages train, put together from a run's context.

Knows settings, rows and objectives; knows no file of the run directory.
"""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from grail.config.run import Unlearning, Vanilla
from grail.data import substitutes
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.importance.score import Scorer
from grail.model.weights import copy_weights
from grail.run.context import RunContext
from grail.training.descent import DescentTask
from grail.training.optimizer import LoopSettings
from grail.training.task import Task
from grail.unlearning.objectives import EXACT, make_objective
from grail.unlearning.task import Schedule, UnlearnTask

Training = tuple[Task, LoopSettings]
"""What the loop trains, and how it steps."""


def vanilla_training(context: RunContext) -> Training:
    """Return the training on both sides of all domains."""
    return _descent(context, ("unlearn", "retain"), context.config.vanilla_seed)


def _descent(context: RunContext, sides: tuple[str, ...], seed: int) -> Training:
    """Return the vanilla stage's training on some sides."""
    section, pad = context.config.vanilla, context.tokenizer.pad_token_id
    parts = ("train", "val") if section.include_val else ("train",)
    rows = tuple(row for row in context.rows if row.part in parts and row.side in sides)
    task = DescentTask(context.model, rows, pad, seed, section.batch_size, section.until)
    return task, loop_settings(section, seed)


def unlearn_training(context: RunContext, by_side: bool) -> Training:
    """Return Stage 3; the model holds the vanilla weights now, and they are the reference.

    ``exact`` starts over instead: the weights before the vanilla stage, trained as that stage does
    but on the retain rows alone.
    """
    config = context.config
    settings, objective = config.unlearning, make_objective(config.unlearning)
    if settings.objective == EXACT:
        context.start_over(config.seed)
        return _descent(context, ("retain",), config.seed)
    known = [*context.rows, *context.general]
    rows = tuple(row for row in known if row.part == "train" and row.side in objective.sides)
    compared = any(objective.compares(side) for side in objective.sides)
    task = UnlearnTask(
        context.model,
        rows,
        objective,
        context.tokenizer.pad_token_id,
        schedule_of(settings),
        config.seed,
        split=by_side or settings.rectify,
        reference=copy_weights(context.model) if compared else None,
        substitute=_substitute(context, objective.labels),
    )
    return task, loop_settings(settings, config.seed)


def schedule_of(section: Unlearning) -> Schedule:
    """Return which rows Stage 3 trains, and when."""
    until = section.until
    limits = (until.row_accuracy, until.domain_accuracy)
    return Schedule(section.batch_size, section.epochs, section.phases, *limits)


def loop_settings(section: Vanilla | Unlearning, seed: int) -> LoopSettings:
    """Return how the loop steps: the settings that it shares with a section, by name."""
    shared = {field.name for field in fields(LoopSettings)} & set(type(section).model_fields)
    values: dict[str, Any] = {name: getattr(section, name) for name in shared}
    cycles = len(getattr(section, "phases", None) or [()])
    values |= {"seed": seed, "epochs": section.epochs * cycles, "cycles": cycles}
    return LoopSettings(**values)


def _substitute(context: RunContext, labels: str) -> substitutes.Substitute:
    if labels == "random":
        return substitutes.random_targets(vocabulary(context), context.config.seed)
    if labels == "refusal":
        said = context.tokenizer(substitutes.REFUSAL, add_special_tokens=False)["input_ids"]
        return substitutes.refusal(said)
    return substitutes.truth


def make_scorer(context: RunContext) -> Scorer:
    """Return Stage 1 of the model, whatever weights it holds."""
    config, pad = context.config, context.tokenizer.pad_token_id
    labels = RandomLabels(vocabulary(context), config.importance.substitution, config.label_seed)
    values = config.importance.model_dump(exclude={"substitution", "seed"})
    return Scorer(context.model, labels, pad, **values)


def vocabulary(context: RunContext) -> tuple[int, ...]:
    """Return the token ids that random labels are drawn from."""
    model, tokenizer = context.model, context.tokenizer
    size = min(len(tokenizer), model.get_input_embeddings().weight.shape[0])  # type: ignore
    return ordinary_tokens(size, tokenizer.all_special_ids)
