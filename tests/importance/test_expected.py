"""The closed form against every single draw, against many draws, and against soft targets."""

import dataclasses
import itertools
import random

import pytest
import torch

from grail.data import labels as drawing
from grail.data.batches import collate
from grail.data.encode import Encoded
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.data.samples import Sample
from grail.importance.expected import ExpectedNll
from grail.importance.gradients import add_by_batch
from grail.importance.score import Scorer
from grail.importance.self_check import compare_scores, self_check
from grail.importance.sums import Sums
from grail.model.forward import trainable

WORDS = ordinary_tokens(96, (0, 1, 2))
FEW = (3, 40, 95)


def row_of(answer):
    return Encoded(Sample("d", "unlearn", "train", 0, "", ""), (1, 7, 8, *answer), 3)


def scorer(model, **given):
    how = {"labels": "expected", "batch_tokens": 10**6} | given
    return Scorer(model, RandomLabels(WORDS, "targets", 0), 0, **how)


class Script(random.Random):
    """A random stream that plays given numbers and knows when all have been taken."""

    def __init__(self, numbers):
        super().__init__()
        self.left = list(numbers)

    def randrange(self, size):
        number, limit = self.left.pop(0)
        assert limit == size, "another draw than the one that was enumerated"
        return number


def all_draws(row, words, monkeypatch):
    """Every outcome of ``RandomLabels.draw``, each as often as it is likely."""
    draws, length = max(1, len(row.answer) // 2), len(row.answer)
    labels = RandomLabels(words, "targets", 0)
    sizes = [length] * draws + [len(words)] * draws
    found = []
    for numbers in itertools.product(*map(range, sizes)):
        script = Script(zip(numbers, sizes, strict=True))
        monkeypatch.setattr(drawing, "stream", lambda *_, script=script: script)
        found.append(labels.draw(row, 0))
        assert not script.left, "fewer draws than were enumerated"
    return found


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("answer", [(5,), (5, 3), (3, 40, 9), (5, 40, 6, 2)])
def test_equals_the_mean_over_every_draw(answer, lora, tiny_model, monkeypatch):
    """True tokens may be among those that are drawn (3, 40), or special (2)."""
    model, row = tiny_model("llama", lora=lora), row_of(answer)
    every = all_draws(row, FEW, monkeypatch)
    sums, closed = (Sums.zeros(trainable(model)) for _ in range(2))
    add_by_batch(model, collate(every, 0), len(every), sums)
    expected = ExpectedNll(RandomLabels(FEW, "targets", 0))
    add_by_batch(model, collate([row], 0), 1, closed, expected)
    found = compare_scores(closed.scores(), sums.scores())
    assert found.worst < 1e-5, found


@pytest.mark.parametrize("lengths", [(1, 2, 3), (6, 6), (1,)])
def test_equals_cross_entropy_with_soft_targets(lengths):
    torch.manual_seed(0)
    rows = [row_of(torch.randint(0, 96, (length,)).tolist()) for length in lengths]
    batch = collate(rows, 0)
    logits = torch.randn(sum(lengths), 96, requires_grad=True)
    soft = torch.zeros(sum(lengths), 96, dtype=torch.float64)
    places = [(row, t) for row in rows for t in range(len(row.answer))]
    for k, (row, t) in enumerate(places):
        length = len(row.answer)
        kept = (1 - 1 / length) ** max(1, length // 2)
        soft[k, row.answer[t]] += kept
        soft[k, list(WORDS)] += (1 - kept) / len(WORDS)
    assert torch.allclose(soft.sum(1), torch.ones(len(soft), dtype=torch.float64))
    found = ExpectedNll(RandomLabels(WORDS, "targets", 0))(logits, batch)
    wide = logits.detach().double().requires_grad_(True)
    wanted = torch.nn.functional.cross_entropy(wide, soft, reduction="none")
    assert torch.allclose(found.double(), wanted, rtol=1e-5)
    weights = torch.rand(len(soft))
    (gradient,) = torch.autograd.grad((found * weights).sum(), logits)
    by_hand = (wide.detach().softmax(1) - soft) * weights[:, None].double()
    assert torch.allclose(gradient.double(), by_hand, atol=1e-6)


def test_tokens_that_are_never_drawn_may_be_impossible():
    """Some models give padded vocabulary entries a logit of minus infinity."""
    logits = torch.randn(3, 97).index_fill_(1, torch.tensor([96]), float("-inf"))
    logits.requires_grad_(True)
    loss = ExpectedNll(RandomLabels(WORDS, "targets", 0))(logits, collate([row_of((4, 5, 6))], 0))
    loss.sum().backward()
    assert loss.isfinite().all()
    assert logits.grad.isfinite().all()


@pytest.mark.parametrize(("lora", "tied"), [(True, None), (False, True)])
def test_batched_equals_the_loop_whoever_shares_the_batch(lora, tied, tiny_model, tiny_rows):
    model, rows = tiny_model("qwen2", lora=lora, tied=tied), tiny_rows(3)
    loop = scorer(model, gradients="loop").score(rows)
    for tokens in (1, 10**6):
        found = compare_scores(scorer(model, batch_tokens=tokens).score(rows), loop)
        assert found.worst < 1e-5, found
    assert self_check(scorer(model), rows, lambda *_: 1.0).worst < 2e-6
    assert all(value.any() for value in loop.mean_abs.values())


def test_neither_seed_nor_number_of_trials_matters(tiny_model, tiny_rows):
    model, rows = tiny_model(), tiny_rows(3)
    one, other = scorer(model, trials=1), scorer(model, trials=5)
    other = dataclasses.replace(other, random_labels=RandomLabels(WORDS, "targets", 9))
    assert one.draws == other.draws == 1
    assert compare_scores(one.score(rows), other.score(rows)).worst == 0


def test_many_trials_come_near_and_true_labels_do_not(tiny_model, tiny_rows):
    """The distance of the mean over R trials shrinks; what is left at 400 is the noise of draws."""
    model, rows = tiny_model(), tiny_rows(2, answer=(6, 9))
    limit = scorer(model).score(rows).mean
    drawn = {n: scorer(model, labels="random", trials=n).score(rows).mean for n in (4, 400)}
    drawn["true"] = scorer(model, labels="true").score(rows).mean

    def distance(of):
        return sum(float((of[name] - limit[name]).square().sum()) for name in limit)

    assert 400 / 4 / 6 < distance(drawn[4]) / distance(drawn[400]) < 400 / 4 * 6
    assert distance(drawn["true"]) > 5 * distance(drawn[400])
