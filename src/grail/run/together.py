"""What the processes of a run do together, and what a model in parts (FSDP2) cannot do yet."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grail.artifacts import STAMP, STATISTICS, Scores, write_scores, write_sealed
from grail.config.run import Config
from grail.errors import InputError
from grail.files import replacing_folder, write_json
from grail.model.forward import Policy, trainable
from grail.model.save import save_weights
from grail.model.sharded import is_sharded, write_tensors
from grail.model.sharded_files import save_sharded
from grail.run import directory, manifest
from grail.run.context import RunContext
from grail.unlearning.objectives import EXACT

TOGETHER = ("vanilla", "score", "unlearn")
"""Stages that all processes do together; the others are the main process's."""

WHOLE = ("adafactor", "adamw8bit")
"""Optimisers whose state is of whole tensors: of rows and columns, or of neighbouring entries."""

IN_PARTS = (*TOGETHER, "evaluate")
"""Those of a model in parts: whoever has a part must compute with the others."""


def stages_together(config: Config, in_parts: bool) -> tuple[str, ...]:
    """Return the stages that all processes do; InputError for what a model in parts cannot do."""
    if in_parts:
        refuse_in_parts(config)
    return IN_PARTS if in_parts else TOGETHER


def refuse_in_parts(config: Config) -> None:
    """Refuse settings that need a whole model in one process, all of them by name."""
    unlearning, localization = config.unlearning, config.localization
    teach = config.teach
    found = {
        "model.quantise": config.model.quantise is not None,
        "model.gradient_checkpointing": config.model.gradient_checkpointing,
        "teach.adapter": teach is not None and teach.adapter is not None,
        "importance.gradients: loop": config.importance.gradients == "loop",
        f"localization.method: {localization.method}": localization.method == "magnitude"
        or ":" in localization.method,
        "unlearning.stop, or distill, after teaching all weights": config.teaches
        and config.model.lora is None
        and (unlearning.stop is not None or unlearning.objective == "distill"),
        "unlearning.reset": unlearning.reset is not None,
        "unlearning.guesses": bool(unlearning.guesses),
        "unlearning.rewrites": bool(unlearning.rewrites),
        "unlearning.objective: exact": unlearning.objective == EXACT,
        "unlearning.objective: distill with unlearning.teacher: before": unlearning.objective
        == "distill"
        and unlearning.teacher in ("auto", "before")
        and config.teaches,
        f"unlearning.optimizer: {unlearning.optimizer}": unlearning.optimizer in WHOLE,
        "evaluation.retain_target": config.evaluation.retain_target is not None,
        "evaluation.general_tasks": bool(config.evaluation.general_tasks),
    }
    if names := [name for name, given in found.items() if given]:
        raise InputError(
            f"{', '.join(names)}: not for a model in parts (FSDP2). Change "
            f"{'it' if len(names) == 1 else 'them'}, or launch without --use_fsdp."
        )


def write_run_scores(path: Path | None, scores: Scores, inputs: str, model: Policy) -> None:
    """Write the scores of a side, of which each process may have a part.

    Without a ``path``, the main process writes them. ``inputs`` is a digest of what they depend on.
    """
    if path is not None:
        manifest.drop(path.parent.parent, f"scores/{path.name}")
    if not is_sharded(model):
        if path is not None:
            write_scores(path, scores, inputs)
        return
    keys = {f"{n}.{s}": (n, s) for s in STATISTICS for n in scores.mean_abs}
    own = {key: getattr(scores, s)[n].float() for key, (n, s) in sorted(keys.items())}
    weights = trainable(model)
    like = {key: weights[n] for key, (n, _) in keys.items()}
    if path is None:
        write_tensors(None, own, like)
        return
    about = {"inputs": inputs, "samples": str(scores.samples)}
    write_sealed(path, lambda file, texts: write_tensors(file, own, like, texts), about)


def save_model(context: RunContext, name: str, about: Mapping[str, Any]) -> None:
    """Write the model and its tokenizer into a run; its checkpoint is no longer needed.

    ``about`` is what the stamp says, besides the digest of the weights.
    """
    folder = context.folder
    if not context.main:
        if context.in_parts:
            save_sharded(context.model, None)
        return
    with replacing_folder(folder / name) as partial:
        (save_sharded if context.in_parts else save_weights)(context.model, partial)
        context.tokenizer.save_pretrained(partial)
        made = {"weights": directory.weights_digest(partial), "files": sorted(os.listdir(partial))}
        write_json(partial / STAMP, {**about, **made})
        manifest.drop(folder, name)
    manifest.record(folder, name)
    directory.drop_checkpoint(folder / name)
