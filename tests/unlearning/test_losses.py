"""The losses against plain loops over tokens; padding and company change nothing."""

import dataclasses

import pytest
import torch
from torch import nn

from grail.answers import Answers, mean_per_row, read_answers
from grail.data.encode import collate
from grail.model import answer_logits
from grail.unlearning.losses import bounded_nll, nll

LENGTHS = [1, 5, 2, 9]


def answers(seed=0, lengths=LENGTHS, scale=4.0):
    generator = torch.Generator().manual_seed(seed)
    count = sum(lengths)
    logits = (scale * torch.randn(count, 30, generator=generator)).requires_grad_()
    targets = torch.randint(30, (count,), generator=generator)
    return logits, targets, read_answers(logits, targets, torch.tensor(lengths))


def rows_of(values, lengths=LENGTHS):
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return [values[a : a + n] for a, n in zip(starts, lengths, strict=True)]


def test_mean_per_row_equals_a_loop():
    values = torch.randn(sum(LENGTHS), dtype=torch.float64)
    expected = [sum(row.tolist()) / len(row) for row in rows_of(values)]
    assert mean_per_row(values, torch.tensor(LENGTHS)).tolist() == pytest.approx(expected, rel=1e-9)


def test_each_token_weighs_one_over_the_length_of_its_row():
    values = torch.randn(sum(LENGTHS), requires_grad=True)
    weights = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    (weights * mean_per_row(values, torch.tensor(LENGTHS))).sum().backward()
    for row, weight, length in zip(rows_of(values.grad), weights, LENGTHS, strict=True):
        torch.testing.assert_close(row, (weight / length).expand(length))


def test_nll_is_minus_log_p_in_nats():
    logits, targets, found = answers()
    p = [
        float(row[t].exp() / row.exp().sum())
        for row, t in zip(logits.detach().double(), targets, strict=True)
    ]
    tokens = -torch.tensor(p, dtype=torch.float64).log()
    expected = [float(row.mean()) for row in rows_of(tokens)]
    assert nll(found).tolist() == pytest.approx(expected, rel=1e-5)


def test_accuracy_counts_the_most_probable_tokens():
    logits, targets, _ = answers()
    targets = torch.where(torch.arange(len(targets)) % 3 == 0, logits.argmax(-1), targets)
    found = read_answers(logits, targets, torch.tensor(LENGTHS))
    right = [
        int(max(range(30), key=row.tolist().__getitem__) == t)
        for row, t in zip(logits, targets.tolist(), strict=True)
    ]
    assert 0 < sum(right) < len(right)
    expected = [sum(row) / len(row) for row in rows_of(right)]
    assert found.accuracy.tolist() == pytest.approx(expected)
    assert not found.accuracy.requires_grad


def test_without_a_bound_or_with_a_high_one_it_is_the_nll():
    logits, _, found = answers()
    (plain,) = torch.autograd.grad(nll(found).sum(), logits, retain_graph=True)
    for most in (None, 1e6):
        assert torch.equal(bounded_nll(found, most), nll(found))
        (bounded,) = torch.autograd.grad(bounded_nll(found, most).sum(), logits, retain_graph=True)
        assert torch.equal(bounded, plain)


def test_a_token_above_the_bound_counts_the_bound_and_gives_no_gradient():
    logits, _, found = answers()
    most = float(found.nll.detach().median())
    above = found.nll.detach() > most
    assert 0 < int(above.sum()) < len(above)
    expected = [
        sum(min(value, most) for value in row.tolist()) / len(row)
        for row in rows_of(found.nll.detach())
    ]
    assert bounded_nll(found, most).tolist() == pytest.approx(expected, rel=1e-5)
    (plain,) = torch.autograd.grad(nll(found).sum(), logits, retain_graph=True)
    (bounded,) = torch.autograd.grad(bounded_nll(found, most).sum(), logits)
    assert not bounded[above].any()
    assert torch.equal(bounded[~above], plain[~above])


@pytest.mark.parametrize("most", [None, 2.0])
def test_company_changes_nothing(most):
    _, _, together = answers()
    for i, (tokens, right) in enumerate(
        zip(rows_of(together.nll), rows_of(together.right), strict=True)
    ):
        alone = Answers(tokens, right, torch.tensor([len(tokens)]))
        assert torch.equal(bounded_nll(alone, most)[0], bounded_nll(together, most)[i])
        assert torch.equal(alone.accuracy[0], together.accuracy[i])


def test_padding_and_company_change_nothing_through_a_model(tiny_model, tiny_rows):
    model, rows = tiny_model(), tiny_rows(5)
    longest = dataclasses.replace(rows[0], ids=rows[0].ids + (7,) * 40, key="long")

    def losses(batch_rows):
        batch = collate(batch_rows, 0)
        logits = answer_logits(model, batch.ids, batch.attention, batch.at)
        lengths = torch.tensor(batch.lengths)
        return bounded_nll(read_answers(logits, batch.targets[batch.at], lengths), 12.0)

    together = losses([*rows, longest])
    for i, row in enumerate(rows):
        torch.testing.assert_close(losses([row])[0], together[i], rtol=1e-5, atol=1e-6)


def test_half_precision_logits_lose_nothing_more():
    logits, targets, _ = answers()
    half = logits.detach().half()
    found = read_answers(half, targets, torch.tensor(LENGTHS))
    expected = nn.functional.cross_entropy(half.double(), targets, reduction="none")
    assert found.nll.dtype == torch.float32
    torch.testing.assert_close(found.nll.double(), expected, rtol=1e-5, atol=1e-6)
