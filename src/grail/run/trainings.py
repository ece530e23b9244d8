"""What the training stages train, put together from a run's materials.

Knows settings, rows and objectives; knows no file of the run directory.
"""

from __future__ import annotations

from grail.data import substitutes
from grail.data.labels import ordinary_tokens
from grail.model.forward import trainable
from grail.model.reference import Reference
from grail.run.context import Materials
from grail.training.descent import VanillaTask
from grail.training.descent import loop_settings as vanilla_settings
from grail.training.optimizer import Settings
from grail.training.task import Task
from grail.unlearning import task as unlearn
from grail.unlearning.objectives import EXACT, make_objective

Training = tuple[Task, Settings]
"""What the loop trains, and how it steps."""


def vanilla_training(materials: Materials) -> Training:
    """Return the training on both sides of all domains."""
    return _descent(materials, ("unlearn", "retain"), materials.config.vanilla_seed)


def _descent(materials: Materials, sides: tuple[str, ...], seed: int) -> Training:
    """Return the vanilla stage's training on some sides."""
    given = materials.config.vanilla
    parts = ("train", "val") if given.include_val else ("train",)
    rows = tuple(row for row in materials.rows if row.part in parts and row.side in sides)
    task = VanillaTask(materials.model, rows, given, seed, materials.tokenizer.pad_token_id)
    return task, vanilla_settings(given, seed)


def unlearn_training(materials: Materials, by_side: bool) -> Training:
    """Return Stage 3; the model holds the vanilla weights now, and they are the reference.

    ``exact`` starts over instead: the weights before the vanilla stage, trained as that stage does
    but on the retain rows alone.
    """
    config = materials.config
    settings, objective = config.unlearning, make_objective(config.unlearning)
    if settings.objective == EXACT:
        materials.start_over(config.seed)
        return _descent(materials, ("retain",), config.seed)
    known = [*materials.rows, *materials.general]
    rows = tuple(row for row in known if row.part == "train" and row.side in objective.sides)
    compared = any(objective.compares(side) for side in objective.sides)
    task = unlearn.UnlearnTask(
        materials.model,
        rows,
        objective,
        settings,
        by_side or settings.rectify,
        config.seed,
        materials.tokenizer.pad_token_id,
        Reference(trainable(materials.model)) if compared else None,
        _substitute(materials, objective.labels),
    )
    return task, unlearn.loop_settings(settings, config.seed)


def _substitute(materials: Materials, labels: str) -> substitutes.Substitute:
    if labels == "random":
        return substitutes.random_targets(vocabulary(materials), materials.config.seed)
    if labels == "refusal":
        said = materials.tokenizer(substitutes.REFUSAL, add_special_tokens=False)["input_ids"]
        return substitutes.refusal(said)
    return substitutes.truth


def vocabulary(materials: Materials) -> tuple[int, ...]:
    """Return the token ids that random labels are drawn from."""
    model, tokenizer = materials.model, materials.tokenizer
    size = min(len(tokenizer), model.get_input_embeddings().weight.shape[0])  # type: ignore
    return ordinary_tokens(size, tokenizer.all_special_ids)
