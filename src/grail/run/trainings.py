"""What the training stages train, put together from a run's context.

Knows settings, rows and objectives; knows no file of the run directory.
"""

from __future__ import annotations

from grail.data import substitutes
from grail.data.labels import ordinary_tokens
from grail.model.weights import copy_weights
from grail.run.context import RunContext
from grail.training.descent import VanillaTask
from grail.training.descent import loop_settings as vanilla_settings
from grail.training.optimizer import Settings
from grail.training.task import Task
from grail.unlearning import task as unlearn
from grail.unlearning.objectives import EXACT, make_objective

Training = tuple[Task, Settings]
"""What the loop trains, and how it steps."""


def vanilla_training(context: RunContext) -> Training:
    """Return the training on both sides of all domains."""
    return _descent(context, ("unlearn", "retain"), context.config.vanilla_seed)


def _descent(context: RunContext, sides: tuple[str, ...], seed: int) -> Training:
    """Return the vanilla stage's training on some sides."""
    given = context.config.vanilla
    parts = ("train", "val") if given.include_val else ("train",)
    rows = tuple(row for row in context.rows if row.part in parts and row.side in sides)
    task = VanillaTask(context.model, rows, given, seed, context.tokenizer.pad_token_id)
    return task, vanilla_settings(given, seed)


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
    task = unlearn.UnlearnTask(
        context.model,
        rows,
        objective,
        settings,
        by_side or settings.rectify,
        config.seed,
        context.tokenizer.pad_token_id,
        copy_weights(context.model) if compared else None,
        _substitute(context, objective.labels),
    )
    return task, unlearn.loop_settings(settings, config.seed)


def _substitute(context: RunContext, labels: str) -> substitutes.Substitute:
    if labels == "random":
        return substitutes.random_targets(vocabulary(context), context.config.seed)
    if labels == "refusal":
        said = context.tokenizer(substitutes.REFUSAL, add_special_tokens=False)["input_ids"]
        return substitutes.refusal(said)
    return substitutes.truth


def vocabulary(context: RunContext) -> tuple[int, ...]:
    """Return the token ids that random labels are drawn from."""
    model, tokenizer = context.model, context.tokenizer
    size = min(len(tokenizer), model.get_input_embeddings().weight.shape[0])  # type: ignore
    return ordinary_tokens(size, tokenizer.all_special_ids)
