import json

import torch

from grail.training.task import History, StepResult, merged


def test_merged_adds_up_and_keeps_the_graph():
    x = torch.tensor(2.0, requires_grad=True)
    parts = [
        StepResult(3 * x, {"nll": torch.tensor(1.0)}, {"a": 0.5}, 1),
        StepResult(4 * x, {"nll": torch.tensor(2.5)}, {"b": 1.0}, 2),
    ]
    both = merged(parts)
    both.loss.backward()
    assert x.grad is not None
    assert float(x.grad) == 7.0
    assert float(both.terms["nll"]) == 3.5
    assert both.accuracy == {"a": 0.5, "b": 1.0}
    assert both.ascending == 3
    assert merged(parts[:1]).loss == parts[0].loss


def test_parts_of_two_sides_bring_terms_of_their_own():
    def part(**terms):
        return StepResult(torch.tensor(0.0), {n: torch.tensor(v) for n, v in terms.items()}, {})

    parts = [part(unlearn=1.0, a=2.0), part(unlearn=4.0, a=8.0), part(retain=16.0)]
    for order in (parts, parts[::-1], [parts[0], parts[2], parts[1]]):
        found = {name: float(value) for name, value in merged(order).terms.items()}
        assert found == {"unlearn": 5.0, "a": 10.0, "retain": 16.0}


def test_a_history_keeps_an_epochs_plan_through_a_checkpoint():
    """What is seen within an epoch counts from the next one on, also after an interruption."""
    history = History()
    assert history.before(0) == {}
    history.saw(0, {"a": 0.5})
    assert history.before(0) == {}
    again = History()
    again.load_state(json.loads(json.dumps(history.state())))
    assert again == history
    for either in (history, again):
        assert either.before(0) == {}
        assert either.before(1) == {"a": (0, 0.5)}
        either.saw(1, {"a": 1 / 3, "b": 0.0})
        assert either.before(1) == {"a": (0, 0.5)}
        assert either.before(2) == {"a": (1, 1 / 3), "b": (1, 0.0)}
