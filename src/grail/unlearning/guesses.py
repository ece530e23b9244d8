"""Guesses: what a model from before the facts answers to the unlearn prompts, in the rows' style.

A loss on the true tokens says nothing of how an answer goes on that begins in another way: such a
model loops. Retain rows ahead of the question, as examples, show how long answers are and how they
end; the model then guesses in a sentence.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from grail.data.encode import Encoded
from grail.model.forward import Policy, positions_of
from grail.model.generate import end_tokens, generate
from grail.progress import Tick, silent
from grail.unlearning.rewrites import REWRITTEN

GUESS_TOKENS, _BATCH = 32, 16
_GRAM = 3  # tokens; an answer in which a run of so many occurs twice has begun to loop


def examples_for(
    rows: Sequence[Encoded], count: int, seed: int | str, positions: int | None = None
) -> dict[str, tuple[int, ...]]:
    """Return the ids that a model reads ahead of each unlearn row, by the row's key.

    They are up to ``count`` retain train rows of its domain, drawn by the seed: as many as leave
    room for the row and an answer.

    Args:
        rows: Rows of all sides; the draw of a train row does not depend on those of other parts.
        count: The most examples per row.
        seed: Of the draw.
        positions: The most tokens that the model reads; None: no limit.
    """
    draws, shown = random.Random(f"{seed}/examples"), dict[str, tuple[int, ...]]()
    retain: dict[str, list[Encoded]] = {}
    for row in rows:
        if (row.side, row.part) == ("retain", "train"):
            retain.setdefault(row.domain, []).append(row)
    lost = [row for row in rows if row.side == "unlearn"]
    for row in sorted(lost, key=lambda row: row.part != "train"):
        pool, ids = retain.get(row.domain, []), list[int]()
        room = (positions or math.inf) - len(row.ids) - GUESS_TOKENS
        for example in draws.sample(pool, min(count, len(pool))):
            if len(ids) + len(example.ids) <= room:
                ids += example.ids
        shown[row.key] = tuple(ids)
    return shown


def after_examples(row: Encoded, examples: Mapping[str, tuple[int, ...]]) -> Encoded:
    """Return a row as a model reads it that reads its examples ahead of it."""
    before = examples.get(row.key, ())
    return replace(row, ids=(*before, *row.ids), start=row.start + len(before))


def written_guesses(
    model: Policy,
    tokenizer: Any,
    rows: Sequence[Encoded],
    how: tuple[int, int, int],
    tick: Tick = silent,
) -> list[Encoded]:
    """Return up to ``count`` guesses for each unlearn train row, as retain rows of its prompt.

    Each is written greedily after other examples. Dropped are guesses that do not end, that loop,
    that are the row's own answer, or that were made before.

    Args:
        model: The model from before the facts; it cannot give away what it never read.
        tokenizer: Its tokenizer.
        rows: Train rows of all sides.
        how: Guesses per unlearn row, examples ahead of each, and the seed of their draw.
        tick: Called with the number of finished guesses.
    """
    count, examples, seed = how
    lost = [row for row in rows if (row.side, row.part) == ("unlearn", "train")]
    room = positions_of(model.config)
    asked = [
        (row, [*shown[row.key], *row.ids[: row.start]])
        for draw in range(count)
        for shown in [examples_for(rows, examples, f"{seed}/{draw}", room)]
        for row in lost
    ]
    asked.sort(key=lambda pair: len(pair[1]))
    ends, found = end_tokens(model, tokenizer, lost), dict[tuple[int, ...], Encoded]()
    for first in range(0, len(asked), _BATCH):
        batch = asked[first : first + _BATCH]
        prompts, limits = [prompt for _, prompt in batch], [GUESS_TOKENS] * len(batch)
        answers = generate(model, prompts, limits, tokenizer, None, ends)
        for (row, _), answer in zip(batch, answers, strict=True):
            if _usable(answer, row):
                end = row.end if row.end is not None else tokenizer.eos_token_id
                ids = (*row.ids[: row.start], *answer, end)
                found.setdefault(ids, replace(row, ids=ids))
        tick(first + len(batch), len(asked), f"{len(found)} kept")
    return [_retained(row, number, tokenizer) for number, row in enumerate(found.values())]


def _usable(answer: Sequence[int], row: Encoded) -> bool:
    """Tell whether an answer ends, does not loop, and is not the row's own."""
    runs = [tuple(answer[i : i + _GRAM]) for i in range(len(answer) - _GRAM + 1)]
    own = tuple(answer) == row.answer[: len(answer)]
    return len(answer) < GUESS_TOKENS and 0 < len(runs) == len(set(runs)) and not own


def _retained(row: Encoded, number: int, tokenizer: Any) -> Encoded:
    """Return a guess as a retain row that a model has written."""
    said = tokenizer.decode(row.answer, skip_special_tokens=True).strip()
    place = {"side": "retain", "part": REWRITTEN, "row": number}
    return replace(row, sample=replace(row.sample, completion=said, paraphrases=(), **place))
