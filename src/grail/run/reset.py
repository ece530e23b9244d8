"""The reset of a run: the rows that are rewritten before it, and the weights it starts from."""

from typing import Any

from grail import artifacts
from grail.data.encode import Encoded
from grail.data.samples import Sample
from grail.files import read_json
from grail.model.weights import Weights, copy_weights, holding, put_weights
from grail.run.context import RunContext
from grail.run.looks import looked_at, measured
from grail.unlearning.guesses import ATTEMPTS, GUESS_RULES, Written, written_guesses
from grail.unlearning.reset import reset_weights
from grail.unlearning.rewrites import rewrites

KNOWS_US = 50.0
"""A base with a lower US (percent) on the rows knows them: it is not from before the facts."""
BASE_KNOWS = (
    "the base under the adapter knows rows that are to be unlearned, so that it is no teacher: the "
    "model's own answers with the true tokens pushed down are followed instead."
)
NO_GUESSES = (
    "the model from before the facts is not known: nothing guesses at the unlearn rows "
    "(unlearning.guesses)."
)
NONE_KEPT = (
    "unlearning.guesses: nothing that the model from before the facts answers is like an answer of "
    "the retain rows, so that no guess is trained."
)
SURVIVORS, REWRITES = "survivors.safetensors", "rewrites.json"


def before_facts(context: RunContext) -> Weights | None:
    """Return the weights from before the facts, if Stage 3 needs them and they are known."""
    section = context.config.unlearning
    needed = section.reset is not None or section.guesses or section.objective == "distill"
    found = context.before() if needed else None
    if found is None or section.reset is not None or section.teacher != "auto":
        return found
    rows = [row for row in looked_at(context.rows) if row.side == "unlearn"]
    with holding(context.model, found):
        known = measured(context.model, rows, context.tokenizer.pad_token_id)
    if all(row["success"] >= KNOWS_US for row in known):
        return found
    context.listener.warn(BASE_KNOWS)
    return None


def write_rewrites(context: RunContext, vanilla: str) -> None:
    """Write what models say to the train rows into ``rewrites.json``, as token ids.

    The vanilla model rewrites the retain rows; the model from before the facts guesses at the
    unlearn rows. ``vanilla`` is a digest of the vanilla weights.
    """
    section = context.config.unlearning
    if not section.rewrites and not section.guesses:
        (context.folder / REWRITES).unlink(missing_ok=True)
        return
    rows = [row for row in (*context.rows, *context.general) if row.part == "train"]
    how = section.guesses, section.examples, context.config.seed
    rules = [ATTEMPTS, GUESS_RULES] if section.guesses else [ATTEMPTS]
    facts = {"rewrites": section.rewrites, "guesses": [*how, *rules], "weights": vanilla}
    facts["rows"] = context.data("train", "general")

    def write() -> dict[str, Any]:
        context.take("vanilla")
        model, tokenizer = context.model, context.tokenizer
        told, guesses = list[Encoded](), Written()
        if section.rewrites:
            with context.listener.stage("rewrite") as tick:
                told = rewrites(model, tokenizer, rows, section.rewrites, tick=tick)
        before = before_facts(context) if section.guesses else None
        if before is not None:
            with context.listener.stage("guess") as tick, holding(model, before):
                guesses = written_guesses(model, tokenizer, rows, how, tick)
        elif section.guesses:
            context.listener.warn(NO_GUESSES)
        if before is not None and not guesses.examples:
            context.listener.warn(NONE_KEPT)
        written = [[*row.place, list(row.ids), row.start] for row in (*told, *guesses.rows)]
        return {"rows": written, "examples": guesses.examples}

    stage = "rewrite" if section.rewrites else "guess"
    context.kept(REWRITES, context.key("model", "data", **facts), stage, write)


def read_rewrites(context: RunContext) -> Written:
    """Return what ``rewrites.json`` holds; nothing if no rewrites and no guesses are asked for."""
    if not context.config.unlearning.rewrites and not context.config.unlearning.guesses:
        return Written()
    stored = read_json(context.folder / REWRITES)
    rows = [
        Encoded(Sample(domain, side, part, number, "", ""), tuple(ids), start)
        for number, (domain, side, part, ids, start) in enumerate(stored["rows"])
    ]
    return Written(rows, {key: tuple(ids) for key, ids in stored["examples"].items()})


def reset_model(context: RunContext, before: Weights | None) -> None:
    """Put all entries of the model but the survivors back to where they were before the facts."""
    how = context.config.unlearning.reset
    if how is not None:
        kept = artifacts.read_mask(context.folder / SURVIVORS).frozen
        weights = copy_weights(context.model)
        seed = context.config.seed
        put_weights(context.model, reset_weights(weights, before, kept, how.amount, seed))
