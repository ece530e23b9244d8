"""Guesses, against greedy answers after the same examples; what is dropped, and what is shown."""

import pytest
import torch

from grail.unlearning import guesses as module
from grail.unlearning.guesses import examples_for, written_guesses
from grail.unlearning.rewrites import REWRITTEN


@pytest.fixture(scope="module")
def world(writer):
    return writer(("retain",), 60)


def test_examples_are_retain_rows_in_full_and_as_many_as_fit(world):
    _, _, rows = world
    retain = [row.ids for row in rows if row.side == "retain"]
    shown = examples_for(rows, 2, 0)
    assert set(shown) == {row.key for row in rows if row.side == "unlearn"}
    pairs = {(*one, *other) for one in retain for other in retain if one != other}
    assert set(shown.values()) <= pairs
    assert shown == examples_for(rows, 2, 0)
    assert any(shown != examples_for(rows, 2, seed) for seed in range(1, 5))
    assert examples_for(rows, 9, 0).keys() == shown.keys()  # no more than there are
    assert set(examples_for(rows, 2, 0, positions=1).values()) == {()}
    longest = max(len(row.ids) for row in rows)
    room = 2 * longest + module.GUESS_TOKENS
    assert all(0 < len(ids) <= longest for ids in examples_for(rows, 3, 0, room).values())


def test_guesses_are_greedy_after_the_examples(world):
    model, tokenizer, rows = world
    found = written_guesses(model, tokenizer, rows, (3, 2, 0))
    assert found
    ends = {tokenizer.eos_token_id}
    prompts = {row.sample.prompt: row for row in rows if row.side == "unlearn"}
    shown = [examples_for(rows, 2, f"0/{draw}") for draw in range(3)]
    for number, row in enumerate(found):
        assert (*row.place, row.sample.row) == ("d", "retain", REWRITTEN, number)
        asked = prompts[row.sample.prompt]
        assert row.ids[: row.start] == asked.ids[: asked.start]
        assert row.ids != asked.ids
        assert row.ids[-1] in ends
        assert tokenizer.decode(row.answer[:-1]).strip() == row.sample.completion
        said = []
        for before in (one[asked.key] for one in shown):
            ids = [*before, *row.ids[: row.start]]
            start = len(ids)
            while len(ids) - start < len(row.answer):
                with torch.no_grad():
                    ids.append(int(model(torch.tensor([ids])).logits[0, -1].argmax()))
            said.append(tuple(ids[start:]))
        assert row.answer in said
    assert len({row.ids for row in found}) == len(found)


@pytest.mark.parametrize(
    ("answer", "kept"),
    [
        ([1, 2, 3], True),
        ([1, 2], False),  # too short to be a sentence
        ([1, 2, 3, 1, 2, 3], False),  # loops
        (list(range(module.GUESS_TOKENS)), False),  # does not end
        ([7, 8, 9], False),  # the row's own answer
    ],
)
def test_what_is_dropped(world, answer, kept):
    _, _, rows = world
    row = rows[0].__class__(rows[0].sample, (5, 7, 8, 9, 0), 1)
    assert module._usable(answer, row) == kept
