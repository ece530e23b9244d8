import pytest
import torch

from grail.answers import Answers, answers_of, mean_per_row
from grail.data.encode import collate
from grail.model import answer_logits, trainable
from grail.reference import Reference


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
    before = answer_logits(model, batch.ids, batch.attention, batch.at).detach().clone()
    reference = Reference(trainable(model))
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
