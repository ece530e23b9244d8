"""Attackers: how many there are, what each trains, and that none leaves a trace."""

import pytest
import torch

from grail.audit.attacks.attackers import Attacker, attackers, trained
from grail.config.run import FULL_WEIGHTS_RATE, parse_config
from grail.data.batches import collate
from grail.model.answers import answers_of
from grail.model.forward import is_adapter, trainable

PART = {"train": "x.jsonl"}
SMALLEST = {"domains": {"a": {"unlearn": PART, "retain": PART}}, "output": "out"}


def of(lora=True, rate=0.004, **relearn):
    model = {} if lora else {"model": {"lora": None}}
    settings = {"audit": {"relearn": relearn}, "unlearning": {"learning_rate": rate}}
    return attackers(parse_config(SMALLEST | model | settings))


def test_without_a_word_there_are_three_rates_two_octaves_apart():
    assert [a.learning_rate for a in of()] == [0.001, 0.004, 0.016]
    assert {(a.train, a.optimizer) for a in of()} == {(None, "adamw")}
    assert of(train=["adapter"]) == of() == of(lora=False, train=["all"])


def test_the_other_kind_of_training_starts_from_its_own_default_rate():
    both = of(train=["adapter", "all"])
    assert both[:3] == of()
    assert [(a.learning_rate, a.train) for a in both[3:]] == [
        (share * FULL_WEIGHTS_RATE, "all") for share in (0.25, 1.0, 4.0)
    ]
    assert [a.learning_rate for a in of(lora=False, train=["adapter"])] == [0.0005, 0.002, 0.008]


@pytest.mark.parametrize("given", [0.5, [0.5], [0.5, 0.5]])
def test_a_number_is_a_list_of_one_and_nobody_attacks_twice(given):
    assert of(learning_rate=given) == [Attacker(0.5)]


def test_every_attacker_has_a_name_of_its_own():
    made = of(train=["adapter", "all"], optimizer=["adamw", "sgd"])
    assert len({a.name for a in made}) == len(made) == 12
    assert Attacker(2e-5, "all", "sgd").name == "2e-05, all, sgd"


def logits(model, rows):
    with torch.no_grad():
        return answers_of(model, collate(rows, 0)).logits


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("train", [None, "adapter", "all"])
def test_what_is_trained_moves_the_model_and_all_is_undone(tiny_model, tiny_rows, lora, train):
    model, rows = tiny_model(lora=lora).eval(), tiny_rows(4)
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    own, said = list(trainable(model)), logits(model, rows)
    places = [p.data_ptr() for p in model.parameters()]
    with trained(model, Attacker(0.1, train), 0) as parameters:
        assert torch.equal(logits(model, rows), said)
        answers_of(model, collate(rows, 0)).nll.sum().backward()
        with torch.no_grad():
            for parameter in parameters:
                assert parameter.dtype == torch.float32
                parameter.add_(torch.full_like(parameter, 0.1))
        assert not torch.equal(logits(model, rows), said)
        trains_adapter = train == "adapter" or (train is None and lora)
        assert (
            sum(p.numel() for p in parameters) < 0.5 * sum(map(torch.numel, before.values()))
        ) == (trains_adapter)
    assert dict(model.named_parameters()).keys() == before.keys()
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())
    assert list(trainable(model)) == own
    assert places == [p.data_ptr() for p in model.parameters()]
    assert is_adapter(model) == lora
    assert torch.equal(logits(model, rows), said)
    if train is not None:
        assert all(p.grad is None for p in model.parameters() if (train == "all") == lora)


def test_all_weights_under_an_adapter_are_trained_in_float32(tiny_model, tiny_rows):
    """A step of 2e-5 rounds away in bfloat16."""
    model = tiny_model(lora=True)
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    with trained(model, Attacker(2e-5, "all"), 0) as parameters:
        assert {p.dtype for p in model.parameters()} == {torch.float32}
        assert not any(p.requires_grad for n, p in model.named_parameters() if "lora_" in n)
        answers_of(model, collate(tiny_rows(2), 0)).nll.sum().backward()
        assert sum(p.grad is not None and bool(p.grad.any()) for p in parameters) > 4
    assert torch.bfloat16 in {p.dtype for p in model.parameters()}
