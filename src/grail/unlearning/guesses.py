"""Guesses: what a model from before the facts answers to the unlearn prompts, in the rows' style.

A loss on the true tokens says nothing of how an answer goes on that begins in another way: such a
model loops. Retain rows ahead of the question, as examples, show how long answers are and how they
end; the model then guesses in a sentence.
"""

import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from statistics import median
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from grail.data.encode import Encoded
from grail.data.samples import grouped
from grail.data.words import words_of
from grail.model.forward import Policy, positions_of
from grail.model.generate import Edges, all_but, end_tokens, generate
from grail.progress import Tick, silent
from grail.unlearning.rewrites import REWRITTEN

GUESS_TOKENS, _BATCH = 32, 16
_GRAM = 3  # tokens; an answer in which a run of so many occurs twice has begun to loop
_ASKS = ("?", "\uff1f", "\u061f")  # the ends of questions in most scripts
ATTEMPTS = 4
"""The most draws of examples for each guess that is wanted; half of what is written is dropped."""
GUESS_RULES = 2
"""Raised when other guesses would be written or followed; those of an older grail are made anew."""


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


def attempts(count: int, examples: int) -> int:
    """Return how often each row is answered at most; without examples, all answers are the same."""
    return ATTEMPTS * count if examples else min(count, 1)


def beginnings(rows: Sequence[Encoded]) -> dict[str, frozenset[int]]:
    """Return domain -> the first tokens of the answers of its retain train rows.

    A small model, asked what it does not know, begins with a number, the head of a list or another
    question, whatever the examples are like; from there it loops. A domain whose answers all begin
    alike is left out: it does not show how answers may begin.
    """
    found: dict[str, set[int]] = {}
    for row in rows:
        if (row.side, row.part) == ("retain", "train"):
            found.setdefault(row.domain, set()).add(row.answer[0])
    return {domain: frozenset(tokens) for domain, tokens in found.items() if len(tokens) > 1}


def keep_beginnings(
    logits: Float[Tensor, "K V"], rows: Sequence[Encoded], begins: Mapping[str, frozenset[int]]
) -> None:
    """Take other first tokens than those of ``beginnings`` out of a teacher's logits, in place.

    Args:
        logits: At the answer tokens of ``rows``, concatenated.
        rows: The rows, with or without examples ahead of them.
        begins: Domain -> the first tokens that stay; rows of other domains keep all.
    """
    at = 0
    for row in rows:
        if row.domain in begins:
            logits[at, all_but(begins[row.domain], logits)] = torch.finfo(logits.dtype).min
        at += len(row.answer)


@dataclass(frozen=True)
class Written:
    """What models write ahead of Stage 3.

    Attributes:
        rows: Rewrites and guesses, as retain rows.
        examples: Key of an unlearn row -> the ids that were read ahead of it for its first guess. A
            teacher that reads them begins as that guess does.
    """

    rows: list[Encoded] = field(default_factory=list)
    examples: dict[str, tuple[int, ...]] = field(default_factory=dict)


def written_guesses(
    model: Policy,
    tokenizer: Any,
    rows: Sequence[Encoded],
    how: tuple[int, int, int],
    tick: Tick = silent,
) -> Written:
    """Return up to ``count`` guesses for each unlearn train row, as retain rows of its prompt.

    Each is written greedily after other examples, of which up to ``ATTEMPTS`` times ``count`` are
    drawn, and begins with a token with which a retain answer of its domain begins. Dropped are
    guesses that do not end, that loop, that have less than half the words of the domain's retain
    answers (a bare year) or more lines than any of them, that ask, that a row already says, or that
    were made before: else the model would soon say one sentence to all.

    Args:
        model: The model from before the facts; it cannot give away what it never read.
        tokenizer: Its tokenizer.
        rows: Train rows of all sides.
        how: Guesses per unlearn row, examples ahead of each, and the seed of their draw.
        tick: Called with the number of finished guesses.
    """
    count, examples, seed = how
    lost = [row for row in rows if (row.side, row.part) == ("unlearn", "train")]
    room, ends = positions_of(model.config), end_tokens(model, tokenizer, lost)
    styles, said = _styles(rows), {row.answer for row in rows}
    begins = beginnings(rows)
    found: dict[str, list[Encoded]] = {row.key: [] for row in lost}
    leading = dict[str, tuple[int, ...]]()
    most = attempts(count, examples)
    for draw in range(most):
        shown = examples_for(rows, examples, f"{seed}/{draw}", room)
        asked = [row for row in lost if len(found[row.key]) < count]
        done = 0
        for batch in _batches(asked, shown):
            prompts = [[*shown[row.key], *row.ids[: row.start]] for row in batch]
            limits, first = [GUESS_TOKENS] * len(batch), begins.get(batch[0].domain)
            answers = generate(model, prompts, limits, tokenizer, None, Edges(ends, first))
            for row, answer in zip(batch, answers, strict=True):
                guess, text = _guessed(row, answer, tokenizer), tokenizer.decode(answer)
                new = guess.answer not in said and tuple(answer) != row.answer[: len(answer)]
                if new and _ends(answer) and _answers(text, *styles.get(row.domain, (0, 0))):
                    found[row.key].append(guess)
                    said.add(guess.answer)
                    leading.setdefault(row.key, shown[row.key])
            done, kept = done + len(batch), sum(map(len, found.values()))
            tick(draw * len(lost) + done, most * len(lost), f"{kept} kept")
    guesses = [guess for of_row in found.values() for guess in of_row]
    numbered = [replace(g, sample=replace(g.sample, row=n)) for n, g in enumerate(guesses)]
    return Written(numbered, leading)


def _batches(
    rows: Sequence[Encoded], shown: Mapping[str, tuple[int, ...]]
) -> Iterator[list[Encoded]]:
    """Yield rows of one domain and of similar lengths together."""
    for _, of_domain in sorted(grouped(rows, lambda row: row.domain).items()):
        members = sorted(of_domain, key=lambda row: len(shown[row.key]) + row.start)
        yield from (members[i : i + _BATCH] for i in range(0, len(members), _BATCH))


def _styles(rows: Sequence[Encoded]) -> dict[str, tuple[float, int]]:
    """Return domain -> half the median of its retain answers' words, and their most line breaks."""
    texts: dict[str, list[str]] = {}
    for row in rows:
        if row.side == "retain":
            texts.setdefault(row.domain, []).append(row.sample.completion)
    return {
        domain: (median(len(words_of(t)) for t in said) / 2, max(t.count("\n") for t in said))
        for domain, said in texts.items()
    }


def _ends(answer: Sequence[int]) -> bool:
    """Tell whether an answer comes to an end and does not loop."""
    runs = [tuple(answer[i : i + _GRAM]) for i in range(len(answer) - _GRAM + 1)]
    return 0 < len(answer) < GUESS_TOKENS and len(runs) == len(set(runs))


def _answers(text: str, least: float, breaks: int) -> bool:
    """Tell whether a text has words enough, not too many lines, and does not ask in its turn."""
    asks = text.rstrip().endswith(_ASKS)
    return len(words_of(text)) >= least and text.count("\n") <= breaks and not asks


def _guessed(row: Encoded, answer: Sequence[int], tokenizer: Any) -> Encoded:
    """Return an answer to a row's prompt as a retain row that a model has written."""
    end = row.end if row.end is not None else tokenizer.eos_token_id
    said = tokenizer.decode(answer, skip_special_tokens=True).strip()
    sample = replace(row.sample, side="retain", part=REWRITTEN, completion=said, paraphrases=())
    return replace(row, sample=sample, ids=(*row.ids[: row.start], *answer, end))
