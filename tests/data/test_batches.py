"""Batches: shifted targets, padding without influence, and an order that depends on words only."""

import dataclasses
from itertools import pairwise

import pytest
import torch

from grail.data.batches import IGNORED, by_tokens, collate, shuffled, stream
from grail.model.forward import answer_logits
from grail.model.nll import token_nll

# -- batches -------------------------------------------------------------------------------------


def test_collate_shifts_right_and_ignores_prompt_and_padding(tiny_rows):
    rows = tiny_rows(6)
    batch = collate(rows, pad=0)
    width = max(len(row.ids) for row in rows)
    assert batch.ids.shape == batch.attention.shape == batch.targets.shape == (6, width)
    assert batch.rows == tuple(rows)
    assert batch.lengths == [len(row.ids) - row.start for row in rows]
    for b, row in enumerate(rows):
        for t in range(width):
            inside = t < len(row.ids)
            assert batch.ids[b, t] == (row.ids[t] if inside else 0)
            assert batch.attention[b, t] == int(inside)
            predicts = row.start <= t + 1 < len(row.ids)
            assert batch.targets[b, t] == (row.ids[t + 1] if predicts else IGNORED)
            assert bool(batch.at[b, t]) == predicts


def test_collate_takes_substituted_targets(tiny_rows):
    (row,) = tiny_rows(1)
    other = dataclasses.replace(row, targets=tuple(range(50, 50 + len(row.answer))))
    batch = collate([other], pad=0)
    assert batch.targets[batch.at].tolist() == list(other.targets)
    assert torch.equal(batch.ids, collate([row], pad=0).ids)


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
def test_loss_does_not_depend_on_padding_or_company(family, tiny_model, tiny_rows):
    model, rows = tiny_model(family).eval(), tiny_rows(5)

    @torch.no_grad()
    def losses(group, pad=0, wider=0):
        batch = collate(group, pad)
        batch = dataclasses.replace(
            batch,
            ids=torch.nn.functional.pad(batch.ids, (0, wider), value=pad),
            attention=torch.nn.functional.pad(batch.attention, (0, wider)),
            targets=torch.nn.functional.pad(batch.targets, (0, wider), value=IGNORED),
        )
        nll = token_nll(answer_logits(model, batch), batch.targets[batch.at])
        return [part.mean() for part in nll.split(batch.lengths)]

    alone = torch.stack([losses([row])[0] for row in rows])
    assert alone.std() > 1e-3, "a vacuous comparison"
    for together in (losses(rows), losses(rows, pad=7), losses(rows, wider=5)):
        assert torch.allclose(torch.stack(together), alone, atol=1e-5)
    assert torch.allclose(torch.stack(losses(rows[::-1])), alone.flip(0), atol=1e-5)


# -- order ---------------------------------------------------------------------------------------


def test_stream_depends_on_its_words_only():
    def first(*words):
        return [stream(*words).random() for _ in range(2)]

    assert first(0, "a", 1)[0] == first(0, "a", 1)[1]
    seen = {first(*words)[0] for words in ((0,), (1,), (0, 0), (0, "a"), ("a", 0), (0, "b"))}
    assert len(seen) == 6


def test_shuffled_is_a_permutation_by_words(tiny_rows):
    rows = tiny_rows(12)
    kept = list(rows)
    one, again, other = (shuffled(rows, 0, epoch) for epoch in (1, 1, 2))
    assert one == again != other
    assert one != rows == kept
    assert sorted(row.key for row in one) == sorted(row.key for row in rows)


@pytest.mark.parametrize("copies", [1, 3])
@pytest.mark.parametrize("budget", [1, 20, 64, 10**6])
def test_by_tokens_respects_the_budget_and_covers_each_row_once(budget, copies, tiny_rows):
    rows = tiny_rows(20)
    groups = by_tokens(rows, budget, copies)
    assert sorted(row.key for group in groups for row in group) == sorted(r.key for r in rows)
    for group in groups:
        padded = max(len(row.ids) for row in group) * len(group) * copies
        assert padded <= budget or len(group) == 1
    for group, after in pairwise(groups):  # no group could have taken the next row too
        grown = [*group, after[0]]
        assert max(len(row.ids) for row in grown) * len(grown) * copies > budget


def test_by_tokens_does_not_depend_on_the_order_given(tiny_rows):
    rows = tiny_rows(20)
    assert by_tokens(rows, 40) == by_tokens(rows[::-1], 40)
    assert by_tokens([], 40) == []
