"""Wordings: unlearn rows in forms that nobody gave, so that a fact is lost and not a sentence.

A model that is trained on one sentence alone still knows the fact when it is asked in other words
and may begin the answer where the fact begins. Here an answer begins at a later word, and stands
after the question of another unlearn row: no text is made up, and no model is asked.
"""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from grail.data.encode import Encoded
from grail.unlearning.rewrites import REWRITTEN


def wordings(rows: Sequence[Encoded], tokenizer: Any, count: int, seed: int | str) -> list[Encoded]:
    """Return up to ``count`` other forms of each unlearn train row, as unlearn rows.

    Each is a question of the row's domain, its own or that of another unlearn train row, and the
    row's answer from one of its words on. Forms that occur twice are left out. ``seed`` is that of
    the draw.
    """
    draws = random.Random(f"{seed}/wordings")
    lost = [row for row in rows if (row.side, row.part) == ("unlearn", "train")]
    found, seen = list[Encoded](), {row.ids for row in lost}
    for row in lost:
        asked = [other for other in lost if other.domain == row.domain]
        starts = word_starts(row, tokenizer)
        for _ in range(count if starts else 0):
            question = draws.choice(asked)
            ids = (*question.ids[: question.start], *row.ids[draws.choice(starts) :])
            if ids not in seen:
                seen.add(ids)
                sample = replace(row.sample, part=REWRITTEN, row=len(found), paraphrases=())
                found.append(replace(row, sample=sample, ids=ids, start=question.start))
    return found


def word_starts(row: Encoded, tokenizer: Any) -> list[int]:
    """Return the positions in ``row.ids`` at which a word of the answer begins, the first too.

    A token begins a word where the text before it is the same with and without it but for a blank
    and what follows.
    """
    before, starts = "", [row.start]
    for at in range(row.start + 1, row.start + len(row.words)):
        before = tokenizer.decode(row.ids[row.start : at], skip_special_tokens=True)
        after = tokenizer.decode(row.ids[row.start : at + 1], skip_special_tokens=True)
        if after.startswith(before) and after[len(before) :][:1].isspace():
            starts.append(at)
    return starts
