"""The reset of a run: which entries survive, and the weights with which the training starts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from grail import artifacts
from grail.config.run import Config
from grail.localization.evidence import Evidence
from grail.localization.survivors import survivors
from grail.model.weights import Weights, copy_weights, put_weights
from grail.run.context import RunContext
from grail.unlearning.reset import reset_weights

SURVIVORS = "survivors.safetensors"


def write_survivors(
    path: Path,
    mask: Path,
    scores: Mapping[tuple[str, str], Path],
    inputs: str,
    config: Config,
    weights: Callable[[], Any],
) -> None:
    """Write which entries survive the reset that ``unlearning.reset`` asks for.

    Args:
        path: The file to write.
        mask: File of the mask.
        scores: (domain, side) -> file of its scores.
        inputs: Digest of what the survivors depend on.
        config: The run's settings.
        weights: Returns the vanilla model's trainable tensors by name; called only if needed.
    """
    sides = {pair: artifacts.read_scores(file) for pair, file in scores.items()}
    evidence = Evidence(sides, weights, config.seed)
    how = config.unlearning.reset
    assert how is not None
    artifacts.write_mask(path, survivors(evidence, artifacts.read_mask(mask), how), inputs)


def before_facts(context: RunContext) -> Weights | None:
    """Return the weights from before the facts, if Stage 3 needs them and they are known."""
    section = context.config.unlearning
    needed = section.reset is not None or section.objective == "distill"
    return context.before() if needed else None


def reset_model(folder: Path, context: RunContext, before: Weights | None) -> None:
    """Put all entries of the model but the survivors back to where they were before the facts."""
    how = context.config.unlearning.reset
    if how is not None:
        kept = artifacts.read_mask(folder / SURVIVORS).frozen
        weights = copy_weights(context.model)
        seed = context.config.seed
        put_weights(context.model, reset_weights(weights, before, kept, how.amount, seed))
