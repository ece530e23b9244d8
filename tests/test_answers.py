import torch

from grail.answers import answers_of, mean_per_row, read_answers
from grail.data.encode import collate


def test_answers_of_a_batch_equal_those_of_single_rows(tiny_rows, tiny_model):
    model = tiny_model("llama")
    rows = tiny_rows(4, 0)
    together = answers_of(model, collate(rows, 0))
    means = mean_per_row(together.nll, together.lengths)
    for row, mean, accuracy in zip(rows, means, together.accuracy, strict=True):
        alone = answers_of(model, collate([row], 0))
        assert torch.allclose(alone.nll.mean(), mean, atol=1e-5)
        assert float(alone.accuracy[0]) == float(accuracy)


def test_read_answers_counts_the_most_probable_token():
    logits = torch.tensor([[0.0, 2.0], [3.0, 0.0], [0.0, 1.0]])
    answers = read_answers(logits, torch.tensor([1, 1, 1]), torch.tensor([2, 1]))
    assert answers.right.tolist() == [True, False, True]
    assert answers.accuracy.tolist() == [0.5, 1.0]
