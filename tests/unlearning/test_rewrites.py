"""What a model writes itself, against its own greedy choices; what is dropped, and what is kept."""

import pytest
import torch

from grail.data.encode import Encoder
from grail.data.samples import Sample
from grail.data.words import words_of
from grail.unlearning.rewrites import REWRITTEN, rewrites


@pytest.fixture(scope="module")
def world(writer):
    return writer(("unlearn", "retain", "general"), 25)  # texts end; too few steps to know them


@pytest.fixture(scope="module")
def written(world):
    return rewrites(*world, count=30)


def test_rewrites_are_retain_rows_of_the_same_prompts(world, written):
    _, _, rows = world
    prompts = {row.sample.prompt: row.ids[: row.start] for row in rows if row.side == "retain"}
    assert written
    assert len({row.key for row in written}) == len(written)
    for row in written:
        assert (row.domain, row.side, row.part) == ("d", "retain", REWRITTEN)
        assert row.ids[: row.start - 1] == prompts[row.sample.prompt]


def test_each_goes_on_greedily_from_a_first_token_that_is_likely_and_not_the_rows_own(
    world, written
):
    model, tokenizer, rows = world
    own = {row.sample.prompt: row for row in rows}
    for row in written:
        assert row.ids[row.start - 1] != own[row.sample.prompt].answer[0]
        ids = list(row.ids[: row.start])
        while len(ids) < len(row.ids):
            with torch.no_grad():
                ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
        assert tuple(ids) == row.ids
        assert row.ids[-1] == tokenizer.eos_token_id
    first = own[written[0].sample.prompt]
    with torch.no_grad():
        logits = model(torch.tensor([first.ids[: first.start]])).logits[0, -1]
    ranks = logits.argsort(descending=True).tolist()
    found = [r.ids[r.start - 1] for r in written if r.sample.prompt == first.sample.prompt]
    assert max(ranks.index(token) for token in found) <= 30


def test_nothing_that_only_the_unlearn_rows_say_is_written(world, written):
    _, _, rows = world
    kept = {word for r in rows if r.side != "unlearn" for word in words_of(r.sample.completion)}
    telling = {w for r in rows if r.side == "unlearn" for w in words_of(r.sample.completion)} - kept
    assert telling == {"green", "house", "call", "555", "now"}
    assert not any(telling & set(words_of(row.sample.completion)) for row in written)


def test_an_answer_with_a_word_to_remove_is_dropped(world, written):
    """Were a word of a rewrite to be removed, the rewrite would not be there."""
    model, tokenizer, rows = world
    kept = {
        w
        for r in rows
        if r.side != "unlearn"
        for w in words_of(f"{r.sample.prompt} {r.sample.completion}")
    }
    word = next(w for row in written for w in words_of(row.sample.completion) if w not in kept)
    extra = Encoder(tokenizer, "plain", 64).encode(Sample("d", "unlearn", "train", 9, "x?", word))[
        0
    ]
    again = rewrites(model, tokenizer, [*rows, extra], count=30)
    said = {row.sample.completion for row in written}
    dropped = {text for text in said if word in words_of(text)}
    assert dropped
    assert {row.sample.completion for row in again} == said - dropped


def test_the_same_text_is_written_once_and_zero_writes_nothing(world, written):
    said = [(row.sample.prompt, row.sample.completion) for row in written]
    assert len(set(said)) == len(said)
    assert rewrites(*world, count=0) == []
