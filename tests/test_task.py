import torch

from grail.task import Outcome, merged


def test_merged_adds_up_and_keeps_the_graph():
    x = torch.tensor(2.0, requires_grad=True)
    parts = [
        Outcome(3 * x, {"nll": torch.tensor(1.0)}, {"a": 0.5}, 1),
        Outcome(4 * x, {"nll": torch.tensor(2.5)}, {"b": 1.0}, 2),
    ]
    both = merged(parts)
    both.loss.backward()
    assert x.grad is not None
    assert float(x.grad) == 7.0
    assert float(both.terms["nll"]) == 3.5
    assert both.accuracy == {"a": 0.5, "b": 1.0}
    assert both.ascending == 3
    assert merged(parts[:1]).loss == parts[0].loss
