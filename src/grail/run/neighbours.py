"""Neighbours: what the model before unlearning says by itself, to see harm that no row would show.

The model writes questions, from the opening of a conversation and from the first words of unlearn
prompts, and answers them greedily. What it then holds is measured like rows that are never trained.
"""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import chain, cycle, islice, repeat
from typing import Any

from grail.data.encode import Encoded
from grail.data.heldout import HELD_OUT
from grail.data.samples import CHECK, Place, Sample
from grail.data.words import words_of
from grail.errors import InputError
from grail.evaluation.fluency import repetition
from grail.files import digest, read_json
from grail.model.forward import positions_of
from grail.model.generate import Edges, end_tokens, generate, most_new
from grail.progress import Tick
from grail.results import OWN_WORDS
from grail.run import directory
from grail.run.context import RunContext
from grail.unlearning.rewrites import BATCH, telling_words

NEIGHBOURS = "evaluation/neighbours.json"
QUESTION, ANSWER = 32, 48
"""The most tokens of a question and of an answer."""
STEM = 40
"""About the most characters of an unlearn prompt that a question begins with."""
TRIES = 4
"""Questions that are written at most, for each one that is wanted."""
LOOPING = 0.3
"""Share of repeated 4-grams of characters from which on an answer says nothing but itself again."""
_PLACE = Place(OWN_WORDS, CHECK, "val")
FEW = (
    "evaluation.neighbours: of {} questions that the model wrote itself, {} can be measured: the "
    "others are answered with words of the unlearn rows, or with broken text."
)


def write_neighbours(context: RunContext, weights: str) -> None:
    """Let the vanilla model of a run write its neighbours, and give them to the run's context.

    ``evaluation/neighbours.json`` is dropped where the settings ask for none. ``weights`` is a
    digest of the vanilla model's.
    """
    count, heard = context.config.evaluation.neighbours, context.listener
    if not count:
        if context.main:
            (context.folder / NEIGHBOURS).unlink(missing_ok=True)
        return
    facts = {"weights": weights, "rows": context.data("train", "val", HELD_OUT, CHECK, "general")}
    facts |= {"seed": context.config.vanilla_seed, "most": context.config.evaluation.max_new_tokens}
    key = context.key("model", "data", neighbours=count, **facts)

    def make() -> dict[str, Any]:
        if context.main:
            directory.outdate(context.folder)
        context.take("vanilla")
        with heard.stage("neighbours") as tick:
            found = asked_itself(context, count, tick)
        if len(found) < count:
            heard.warn(FEW.format(count * TRIES, len(found)))
        return {"rows": [{"prompt": s.prompt, "completion": s.completion} for s in found]}

    found = context.kept(NEIGHBOURS, key, "neighbours", make)
    context.neighbours = _encoded(context, found["rows"])


def neighbours_of(context: RunContext) -> tuple[Encoded, ...]:
    """Return the neighbours that a run has written, in ids; none where it has not."""
    path = context.folder / NEIGHBOURS
    if not context.config.evaluation.neighbours or not path.exists():
        return ()
    return _encoded(context, read_json(path)["rows"])


def _encoded(context: RunContext, rows: Sequence[Mapping[str, str]]) -> tuple[Encoded, ...]:
    texts = ((row["prompt"], row["completion"]) for row in rows)
    samples = (Sample(*_PLACE, number, *both) for number, both in enumerate(texts))
    return tuple(context.encoder.encode(sample)[0] for sample in samples)


def own_digest(context: RunContext) -> dict[str, str]:
    """Return the digest of a run's neighbours under their name; {} where there are none."""
    ids = [row.ids for row in context.neighbours]
    return {"neighbours": digest(ids)} if ids else {}


def asked_itself(context: RunContext, count: int, tick: Tick) -> list[Sample]:
    """Return up to ``count`` questions that a run's model writes, with its greedy answers.

    Dropped are those with a word that the unlearn completions have, but neither the unlearn prompts
    nor any row that is kept; questions that some row or another one has already; and answers of one
    token, or that repeat themselves. ``tick`` counts the questions written.
    """
    rows = [*context.rows, *context.general]
    prompts = [row.sample.prompt for row in rows if row.side == "unlearn"]
    telling = {word for name in context.config.domains for word in telling_words(rows, name)}
    telling -= {word for prompt in prompts for word in words_of(prompt)}
    stems = chain.from_iterable(zip(repeat(""), cycle(map(_beginning, prompts)), strict=False))
    found, seen = list[Sample](), {row.sample.prompt for row in rows}
    for number in range(0, most := count * TRIES, BATCH):
        batch = list(islice(stems, min(BATCH, most - number)))
        questions = dict.fromkeys(_questions(context, batch, number))
        for sample in _answered(context, [text for text in questions if text not in seen]):
            if not telling & {*words_of(f"{sample.prompt}\n{sample.completion}")}:
                found.append(sample)
        seen |= questions.keys()
        tick(number + len(batch), most, f"{len(found)} kept")
        if len(found) >= count:
            break
    return found[:count]


def _beginning(prompt: str) -> str:
    """Return a prompt's first words, at most about half of it."""
    middle = min(len(prompt) // 2, STEM)
    return prompt[: max(middle, prompt.find(" ", middle))]


def _questions(context: RunContext, stems: Sequence[str], number: int) -> Iterator[str]:
    """Yield how the model goes on where a user has begun to ask, in one line, sampled."""
    model, tokenizer, encoder = context.model, context.tokenizer, context.encoder
    seed = context.config.vanilla_seed + number
    opened, most = [encoder.opening(stem) for stem in stems], [QUESTION] * len(stems)
    ends = end_tokens(model, tokenizer, context.rows)
    written = generate(model, opened, most, tokenizer, seed, Edges(ends))
    for stem, tokens in zip(stems, written, strict=True):
        begun = tokenizer(stem, add_special_tokens=False)["input_ids"]
        text = tokenizer.decode([*begun, *tokens], skip_special_tokens=True).strip()
        if text:
            yield text.splitlines()[0].strip()


def _answered(context: RunContext, questions: Sequence[str]) -> Iterator[Sample]:
    """Yield questions with the model's greedy answers, where these are text and fit."""
    model, tokenizer, encoder = context.model, context.tokenizer, context.encoder
    positions = positions_of(model.config) or sys.maxsize
    asked, most = list[Encoded](), list[int]()
    for question in questions:
        with suppress(InputError):  # it may have written a control token
            row, _ = encoder.encode(Sample(*_PLACE, 0, question, "yes"))
            room = min(ANSWER, min(encoder.max_tokens, positions) - row.start - 1)
            if room > 1:
                asked, most = [*asked, row], [*most, room]
    heads, ends = [row.ids[: row.start] for row in asked], end_tokens(model, tokenizer, asked)
    answers = generate(model, heads, most, tokenizer, None, Edges(ends)) if asked else []
    for row, tokens in zip(asked, answers, strict=True):
        text = tokenizer.decode(tokens, skip_special_tokens=True).strip()
        if len(tokens) < 2 or not text or repetition(text) > LOOPING:
            continue
        with suppress(InputError):
            said, cut = encoder.encode(replace(row.sample, completion=text))
            new = most_new(said, context.config.evaluation.max_new_tokens)
            if not cut and said.start + max(new, len(said.answer)) <= positions:
                yield said.sample
