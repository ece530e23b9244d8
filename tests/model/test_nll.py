"""NLLs and their gradients against the definition in float64, whatever the chunks."""

import pytest
import torch

from grail.model import nll as module
from grail.model.nll import mixed_nll, token_nll

LINES, WORDS = 7, 11


@pytest.fixture(params=[1, 2 * WORDS, 10**6])
def _chunk(request, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", request.param)


def made(dtype=torch.float64):
    generator = torch.Generator().manual_seed(0)
    logits = 5 * torch.randn(LINES, WORDS, generator=generator, dtype=torch.float64)
    targets = torch.randint(0, WORDS, (LINES,), generator=generator)
    return logits.to(dtype).requires_grad_(), targets


def distribution(targets, share, words):
    goal = torch.nn.functional.one_hot(targets, WORDS).double() * (1 - share[:, None])
    goal[:, words] += share[:, None] / len(words)
    return goal


@pytest.mark.usefixtures("_chunk")
def test_it_is_minus_the_log_of_the_softmax():
    logits, targets = made()
    expected = -logits.softmax(-1)[range(LINES), targets].log()
    weights = torch.linspace(-1, 2, LINES, dtype=torch.float64)
    (wanted,) = torch.autograd.grad((expected * weights).sum(), logits)
    found = token_nll(logits, targets)
    (gradient,) = torch.autograd.grad((found * weights).sum(), logits)
    assert torch.allclose(found, expected, atol=1e-12)
    assert torch.allclose(gradient, wanted, atol=1e-12)


@pytest.mark.usefixtures("_chunk")
def test_mixed_it_is_the_cross_entropy_to_the_mixture():
    logits, targets = made()
    share, words = torch.linspace(0, 1, LINES, dtype=torch.float64), torch.tensor([1, 4, 5, 9])
    goal = distribution(targets, share, words)
    expected = -(goal * logits.log_softmax(-1)).sum(-1)
    (wanted,) = torch.autograd.grad(expected.square().sum(), logits)
    found = mixed_nll(logits, targets, share, words)
    (gradient,) = torch.autograd.grad(found.square().sum(), logits)
    assert torch.allclose(found, expected, atol=1e-12)
    assert torch.allclose(gradient, wanted, atol=1e-11)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_it_is_computed_in_float32_and_the_gradient_has_the_logits_precision(dtype):
    logits, targets = made(dtype)
    exact = logits.detach().double().requires_grad_()
    found = token_nll(logits, targets)
    assert found.dtype == torch.float32
    assert torch.allclose(found.double(), token_nll(exact, targets), atol=1e-5)
    (gradient,) = torch.autograd.grad(found.sum(), logits)
    (wanted,) = torch.autograd.grad(token_nll(exact, targets).sum(), exact)
    assert gradient.dtype == dtype
    assert torch.allclose(gradient.double(), wanted, atol=4 * torch.finfo(dtype).eps)


def test_words_that_are_impossible_do_not_matter_where_nobody_asks_for_them():
    logits, targets = made()
    words = torch.tensor([w for w in range(WORDS) if w != 3])
    targets = torch.where(targets == 3, 4, targets)
    cut = logits.detach().clone()
    cut[:, 3] = -torch.inf
    cut.requires_grad_()
    share = torch.full((LINES,), 0.3, dtype=torch.float64)
    for loss in (token_nll(cut, targets), mixed_nll(cut, targets, share, words)):
        (gradient,) = torch.autograd.grad(loss.sum(), cut)
        assert loss.isfinite().all()
        assert gradient.isfinite().all()
        assert (gradient[:, 3] == 0).all()


def test_no_line_is_no_loss():
    logits = torch.zeros(0, WORDS, requires_grad=True)
    assert token_nll(logits, torch.zeros(0, dtype=torch.long)).shape == (0,)
