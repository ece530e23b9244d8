"""Wordings: whose words they are, and that none is one that was given."""

import pytest

from grail.data.encode import Encoder
from grail.data.samples import Sample
from grail.unlearning.rewrites import REWRITTEN
from grail.unlearning.wordings import word_starts, wordings

PAIRS = {
    "d": [("where?", "at 3 Cutler's Steps"), ("phone?", "her number is 555"), ("who?", "Brede")],
    "e": [("prize?", "the Span Medal")],
}


@pytest.fixture(scope="module")
def world(tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    encoder = Encoder(tokenizer, "plain", 64)
    rows = [
        encoder.encode(Sample(domain, side, part, number, *pair))[0]
        for domain, pairs in PAIRS.items()
        for side, part in (("unlearn", "train"), ("unlearn", "val"), ("retain", "train"))
        for number, pair in enumerate(pairs)
    ]
    return tokenizer, rows


def test_words_begin_after_a_blank(world):
    tokenizer, rows = world
    for row in rows:
        text = tokenizer.decode(row.words, skip_special_tokens=True)
        parts = [tokenizer.decode(row.ids[at:-1]) for at in word_starts(row, tokenizer)]
        words = text.split()
        assert [part.split() for part in parts] == [words[i:] for i in range(len(words))]


def test_a_wording_is_a_question_to_be_lost_and_the_end_of_an_answer_to_be_lost(world):
    tokenizer, rows = world
    lost = [row for row in rows if (row.side, row.part) == ("unlearn", "train")]
    found = wordings(rows, tokenizer, 6, seed=0)
    assert len({row.ids for row in (*lost, *found)}) == len(lost) + len(found)
    for number, row in enumerate(found):
        assert (row.side, row.part, row.sample.row) == ("unlearn", REWRITTEN, number)
        own = [other for other in lost if other.domain == row.domain]
        assert row.ids[: row.start] in {other.ids[: other.start] for other in own}
        ends = {other.ids[at:] for other in own for at in word_starts(other, tokenizer)}
        assert row.answer in ends
    asked = {(row.ids[: row.start], row.sample.row) for row in found}
    assert len(asked) > len(lost)
    assert {row.domain for row in found} == {"d", "e"}


def test_there_are_at_most_as_many_as_asked_for_and_the_seed_draws_them(world):
    tokenizer, rows = world
    assert wordings(rows, tokenizer, 0, seed=0) == []
    one = wordings(rows, tokenizer, 1, seed=0)
    assert 0 < len(one) <= 4
    assert one == wordings(rows, tokenizer, 1, seed=0)
    assert any(one != wordings(rows, tokenizer, 1, seed=seed) for seed in range(1, 6))
