import math

import pytest
import torch

from grail.data.batches import collate
from grail.model import answers as module
from grail.model.answers import Answers, answers_of, log_p_moments, mean_per_row
from grail.model.forward import answer_logits, trainable
from grail.model.weights import copy_weights


def test_answers_of_a_batch_equal_those_of_single_rows(tiny_rows, tiny_model):
    model = tiny_model("llama")
    rows = tiny_rows(4, 0)
    together = answers_of(model, collate(rows, 0))
    means = mean_per_row(together.nll, together.lengths)
    for row, mean, accuracy in zip(rows, means, together.accuracy, strict=True):
        alone = answers_of(model, collate([row], 0))
        assert torch.allclose(alone.nll.mean(), mean, atol=1e-5)
        assert float(alone.accuracy[0]) == float(accuracy)


def test_the_most_probable_token_is_the_guess():
    logits = torch.tensor([[0.0, 2.0], [3.0, 0.0], [0.0, 1.0]], requires_grad=True)
    answers = Answers(logits, torch.tensor([1, 1, 1]), torch.tensor([2, 1]))
    assert answers.guesses.tolist() == [1, 0, 1]
    assert answers.right.tolist() == [True, False, True]
    assert answers.accuracy.tolist() == [0.5, 1.0]
    assert not answers.accuracy.requires_grad


def test_only_the_targets_decide_what_is_right(tiny_rows, tiny_model):
    """Substituted targets change NLL and accuracy, never the logits and guesses."""
    model, row = tiny_model(), tiny_rows(1, answer=(6, 6))[0]
    true = answers_of(model, collate([row], 0))
    said = tuple(true.guesses.tolist())
    other = answers_of(model, collate([type(row)(**(vars(row) | {"targets": said}))], 0))
    assert torch.equal(other.logits, true.logits)
    assert torch.equal(other.guesses, true.guesses)
    assert float(other.accuracy) == 1.0
    assert (other.nll <= true.nll).all()


def test_without_a_reference_there_is_none(tiny_rows, tiny_model):
    assert answers_of(tiny_model(), collate(tiny_rows(2), 0)).reference is None


@pytest.mark.parametrize("training", [True, False])
def test_the_reference_answers_as_the_model_did_without_dropout(tiny_rows, tiny_model, training):
    model, batch = tiny_model(attention_dropout=0.5), collate(tiny_rows(3), 0)
    model.eval()
    before = answer_logits(model, batch).detach().clone()
    reference = copy_weights(model)
    with torch.no_grad():
        for p in trainable(model).values():
            p.mul_(1.5)
    model.train(training)
    state = torch.random.get_rng_state()
    found = answers_of(model, batch, reference)
    torch.random.set_rng_state(state)
    alone = answers_of(model, batch)
    assert torch.equal(found.reference, before)
    assert not found.reference.requires_grad
    assert found.logits.requires_grad
    assert torch.equal(found.logits, alone.logits)  # the policy's own, with its own dropout
    assert not torch.equal(found.logits, before)
    assert model.training is training


def moments(logits):
    """Mean and deviation of log p, by their definitions and in double precision."""
    log_p = logits.double().log_softmax(-1)
    mean = (log_p.exp() * log_p).sum(-1)
    return mean, ((log_p.exp() * log_p**2).sum(-1) - mean**2).clamp(min=0).sqrt()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("scale", [0.1, 1.0, 10.0])
def test_moments_are_those_of_the_definition(dtype, scale):
    logits = (torch.randn(7, 50, generator=torch.Generator().manual_seed(0)) * scale).to(dtype)
    before = logits.clone()
    for found, wanted in zip(log_p_moments(logits), moments(logits), strict=True):
        assert found.dtype == torch.float32
        assert torch.allclose(found.double(), wanted, rtol=1e-5, atol=1e-6)
    assert torch.equal(logits, before)


@pytest.mark.parametrize("chunk", [1, 50, 149, 150, 10**6])
def test_moments_do_not_depend_on_the_chunks(monkeypatch, chunk):
    logits = torch.randn(7, 50, generator=torch.Generator().manual_seed(1))
    whole = log_p_moments(logits)
    sizes, split = [], torch.Tensor.split
    monkeypatch.setattr(module, "CHUNK", chunk)
    monkeypatch.setattr(torch.Tensor, "split", lambda t, n: sizes.append(n) or split(t, n))
    for found, wanted in zip(log_p_moments(logits), whole, strict=True):
        assert torch.allclose(found, wanted, rtol=1e-6)
    assert sizes == [max(1, chunk // 50)]


def test_moments_where_the_model_is_certain_or_knows_nothing():
    certain = torch.full((1, 50), -float("inf"))
    certain[0, 3] = 0.0
    assert [float(m) for m in log_p_moments(certain)] == [0.0, 0.0]
    half = torch.full((1, 50), -float("inf"))
    half[0, :2] = 5.0
    mean, deviation = (float(m) for m in log_p_moments(half))
    assert (mean, deviation) == (pytest.approx(-math.log(2)), pytest.approx(0.0, abs=1e-6))
    mean, deviation = (float(m) for m in log_p_moments(torch.zeros(1, 50)))
    assert (mean, deviation) == (pytest.approx(-math.log(50)), pytest.approx(0.0, abs=1e-5))


def test_moments_take_no_gradient_and_are_of_the_policy(tiny_rows, tiny_model):
    answers = answers_of(tiny_model(), collate(tiny_rows(3), 0))
    assert answers.logits.requires_grad
    for found, wanted in zip(answers.moments, moments(answers.logits.detach()), strict=True):
        assert not found.requires_grad
        assert torch.allclose(found.double(), wanted, rtol=1e-5)
