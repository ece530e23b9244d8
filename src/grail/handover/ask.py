"""Talk to the models of a run: one question, and the answer of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from grail.config.file import read
from grail.data.encode import Encoded, Encoder
from grail.data.samples import Sample
from grail.errors import InputError
from grail.handover.opened import check_start, open_run
from grail.model.forward import positions_of
from grail.model.generate import TextGenerator, streamed
from grail.model.save import load_weights
from grail.model.weights import Weights, copy_weights, put_weights
from grail.run import manifest
from grail.run.context import RunContext

BEFORE, AFTER, ORACLE = "before", "after", "oracle"
"""The models that answer, in this order."""

Show = Callable[[str, str], None]
"""Called with the name of a model and a piece of its answer; the first piece is empty."""


@dataclass(frozen=True)
class Talk:
    """The models of a run in memory: one model, whose trained weights are exchanged.

    Attributes:
        context: Model, tokenizer and settings of the run.
        weights: Name of a model -> its trained weights.
        limit: The most tokens of an answer.
        seed: That of samples; None: greedily.
    """

    context: RunContext
    weights: Mapping[str, Weights]
    limit: int
    seed: int | None = None


def open_talk(folder: Path, oracle: Path | None, limit: int, sample: bool) -> Talk:
    """Load the models of a run, and that of an oracle: a run of preset exact on the same model.

    After a purge only the unlearned model is left to answer. ``limit`` is the most tokens of an
    answer; ``sample`` draws at temperature 1 instead of taking the most probable tokens.

    Raises:
        InputError: if a model is missing or damaged, or the oracle is of another model.
    """
    purged = any(name.startswith("vanilla/") for name in manifest.purged(folder))
    names = {AFTER: "unlearned"} if purged else {BEFORE: "vanilla", AFTER: "unlearned"}
    context = open_run(folder, *names.values())
    check_start(folder, context)
    places = {name: folder / model for name, model in names.items()}
    if oracle is not None:
        _check_oracle(folder, oracle)
        places[ORACLE] = oracle / "unlearned"
    weights = {}
    for name, place in places.items():
        load_weights(context.model, place)
        weights[name] = copy_weights(context.model)
    return Talk(context, weights, limit, context.config.seed if sample else None)


def answers(talk: Talk, question: str, number: int, show: Show) -> dict[str, str]:
    """Ask each model a question, as the rows of the run are asked; return name -> answer.

    ``number`` says how many questions were asked before: each is sampled from another seed.
    ``show`` is called with the answers as they come.

    Raises:
        InputError: if the question is empty, too long, or holds a control token.
    """
    model, found = talk.context.model, dict[str, str]()
    row = encoded(talk.context, question)
    room = (positions_of(model.config) or row.start + talk.limit) - row.start
    if room < 1:
        raise InputError(f"The question has {row.start} tokens: the model has no room for more.")
    tokenizer: Any = talk.context.tokenizer
    generator = TextGenerator(model, tokenizer, min(talk.limit, room), 1)
    seed = None if talk.seed is None else talk.seed + number
    for name, weights in talk.weights.items():
        put_weights(model, weights)
        show(name, "")
        told = partial(show, name)
        found[name] = streamed(generator, row, told, seed).strip()
    return found


def encoded(context: RunContext, question: str) -> Encoded:
    """Return a question as a row of the run: its prompt is ``ids[:start]``."""
    if not question.strip():
        raise InputError("The question is empty.")
    data = context.config.data
    encoder = Encoder(context.tokenizer, data.template, data.max_tokens, data.date)
    sample = Sample("question", "asked", "once", 0, question, "A")
    try:
        return encoder.encode(sample)[0]
    except InputError as error:
        name = f"{sample.key}: "
        raise InputError(f"the question: {p.removeprefix(name)}" for p in error.problems) from error


def _check_oracle(folder: Path, oracle: Path) -> None:
    """Refuse an oracle that is none, or of another model."""
    found = open_run(oracle, "unlearned").config
    if found.unlearning.objective != "exact":
        raise InputError(f"--oracle: {oracle} is no run of preset exact: it saw what was removed.")
    one, other = (read(place)[1] for place in (folder, oracle))
    known = [(s.get("made_with") or {}).get("model") for s in (one, other)]
    if one.get("model") != other.get("model") or known[0] != known[1]:
        raise InputError(f"--oracle: {oracle} is of another model than {folder}.")
