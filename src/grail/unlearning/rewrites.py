"""Rewrites: other answers that a model gives to the retain rows, written before it is reset.

A retain row states a fact in one way. The vanilla model knows others, and facts that no row states.
With every likely first token but the row's own it is made to begin another way, and goes on
greedily. What it then says is trained like a retain row.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import torch

from grail.data.batches import by_tokens, collate
from grail.data.encode import Encoded
from grail.data.words import words_of
from grail.model.answers import answers_of
from grail.model.forward import Policy, device_of, evaluating
from grail.model.generate import Edges, end_tokens, generate, most_new
from grail.progress import Tick, silent

REWRITTEN = "rewritten"
"""The part of the samples that a model has written."""
LIMIT, BATCH = 96, 32
"""Tokens of an answer at most, and answers that are written at once."""
_BATCH_TOKENS = 1024


def rewrites(
    model: Policy,
    tokenizer: Any,
    rows: Sequence[Encoded],
    count: int,
    limit: int = LIMIT,
    tick: Tick = silent,
) -> list[Encoded]:
    """Return up to ``count`` other answers to each retain row, as the model writes them.

    Dropped are answers with a word that the domain's unlearn completions have and no retain or
    general row: they may tell what is to be removed. The first token, which was forced, is part of
    the prompt: no loss is taken on it, and the row's own answer stays the most probable one.

    Args:
        model: The vanilla model.
        tokenizer: Its tokenizer.
        rows: Train rows of all sides.
        count: The most answers per retain row.
        limit: The most tokens of an answer.
        tick: Called with the number of finished answers.
    """
    retain = [row for row in rows if row.side == "retain"]
    begun = [
        replace(row, ids=(*row.ids[: row.start], token), start=row.start + 1)
        for row, tokens in zip(retain, _first_tokens(model, tokenizer, retain, count), strict=True)
        for token in tokens
    ]
    telling = {domain: telling_words(rows, domain) for domain in {row.domain for row in retain}}
    found, seen = list[Encoded](), {(row.sample.prompt, row.sample.completion) for row in rows}
    for first in range(0, len(begun), BATCH):
        batch = begun[first : first + BATCH]
        for row in _continued(model, tokenizer, batch, retain, limit):
            sample = row.sample
            said = (sample.prompt, sample.completion)
            if said not in seen and not telling[row.domain] & set(words_of(sample.completion)):
                seen.add(said)
                found.append(replace(row, sample=replace(sample, part=REWRITTEN, row=len(found))))
        tick(first + len(batch), len(begun), f"{len(found)} kept")
    return found


@torch.no_grad()
def _first_tokens(
    model: Policy, tokenizer: Any, rows: Sequence[Encoded], count: int
) -> list[list[int]]:
    """Return the most probable first tokens of each row's answer, without the row's own."""
    first: dict[str, list[int]] = {}
    for batch in by_tokens(rows, _BATCH_TOKENS):
        with evaluating(model):
            answers = answers_of(model, collate(batch, tokenizer.pad_token_id, device_of(model)))
        starts = answers.lengths.cumsum(0) - answers.lengths
        best = answers.logits[starts].float().topk(min(count + 1, answers.logits.shape[1])).indices
        for row, tokens in zip(batch, best.tolist(), strict=True):
            others = [token for token in tokens if token != row.answer[0]]
            first[row.key] = [t for t in others if t not in tokenizer.all_special_ids][:count]
    return [first[row.key] for row in rows]


def _continued(
    model: Policy, tokenizer: Any, begun: Sequence[Encoded], rows: Iterable[Encoded], limit: int
) -> Iterator[Encoded]:
    """Yield what the model goes on with, where it comes to an end and is more than one token."""
    whole = {row.key: row for row in rows}
    ends = end_tokens(model, tokenizer, list(whole.values()))
    most = [most_new(whole[row.key], limit) for row in begun]
    texts = generate(model, [row.ids for row in begun], most, tokenizer, None, Edges(ends))
    for row, tokens, room in zip(begun, texts, most, strict=True):
        end = row.end if row.end is not None else tokenizer.eos_token_id
        if len(tokens) < 2 or len(tokens) == room:
            continue
        said = tokenizer.decode([row.ids[-1], *tokens], skip_special_tokens=True).strip()
        sample = replace(row.sample, completion=said, paraphrases=())
        yield replace(row, sample=sample, ids=(*row.ids, *tokens, end))


def telling_words(rows: Sequence[Encoded], domain: str) -> set[str]:
    """Return the words of a domain's unlearn completions that stand in no row that is kept."""
    kept = (row.sample for row in rows if row.side != "unlearn")
    known = {word for s in kept for word in words_of(f"{s.prompt}\n{s.completion}")}
    removed = (r.sample for r in rows if r.side == "unlearn" and r.domain == domain)
    return {word for s in removed for word in words_of(s.completion)} - known
