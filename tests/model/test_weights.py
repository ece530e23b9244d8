"""Weights held for a block: the model is another one inside, bit for bit, and its own after it."""

import pytest
import torch

from grail.data.batches import collate
from grail.errors import InputError
from grail.model.forward import answer_logits, trainable
from grail.model.weights import copy_weights, fresh_adapter, holding, put_weights

KINDS = {"lora": {}, "all": {"lora": False, "tied": True}}


class StoppedError(Exception):
    pass


@pytest.fixture(params=KINDS)
def world(request, tiny_model, tiny_rows):
    """A model that has moved since its reference was taken: (model, reference, before, logits)."""
    model, batch = tiny_model(**KINDS[request.param]), collate(tiny_rows(3), 0)

    def logits():
        return answer_logits(model, batch)

    with torch.no_grad():
        before = logits().clone()
        reference = copy_weights(model)
        for i, p in enumerate(trainable(model).values()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return model, reference, before, logits


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def same(a, b):
    return all(torch.equal(a[name], b[name]) for name in a)


@torch.no_grad()
def test_inside_it_is_the_model_as_it_was_and_outside_nothing_changed(world):
    model, reference, before, logits = world
    moved, weights = logits().clone(), weights_of(model)
    places = [p.data_ptr() for p in model.parameters()]
    assert not torch.equal(moved, before)
    for _ in range(2):
        with holding(model, reference):
            assert torch.equal(logits(), before)
        assert torch.equal(logits(), moved)
        assert same(weights, weights_of(model))
        assert [p.data_ptr() for p in model.parameters()] == places


@torch.no_grad()
def test_training_on_does_not_reach_it(world):
    model, reference, before, logits = world
    for p in trainable(model).values():
        p.zero_()
    with holding(model, reference):
        assert torch.equal(logits(), before)


def test_a_graph_from_before_can_be_differentiated_afterwards(world):
    model, reference, _, logits = world
    weights = list(trainable(model).values())
    wanted = torch.autograd.grad(logits().square().mean(), weights)
    loss = logits().square().mean()
    with torch.no_grad(), holding(model, reference):
        logits()
    found = torch.autograd.grad(loss, weights)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted, strict=True))
    assert any(a.any() for a in found)


def test_an_optimiser_goes_on_with_the_policys_weights(world):
    model, reference, _, logits = world
    weights = trainable(model)
    optimizer = torch.optim.SGD(weights.values(), lr=0.5)
    loss = logits().square().mean()
    with torch.no_grad(), holding(model, reference):
        logits()
    loss.backward()
    expected = {name: p.detach() - 0.5 * p.grad for name, p in weights.items()}
    optimizer.step()
    for name, p in weights.items():
        torch.testing.assert_close(p.detach(), expected[name])


def test_an_exception_inside_restores(world):
    model, reference, _, logits = world
    moved, weights = logits().detach().clone(), weights_of(model)
    with pytest.raises(StoppedError), holding(model, reference):
        raise StoppedError
    assert same(weights, weights_of(model))
    assert torch.equal(logits(), moved)


def test_writing_inside_reaches_the_given_tensors_alone(world):
    model, reference, _, logits = world
    moved, weights = logits().detach().clone(), weights_of(model)
    before = {name: tensor.clone() for name, tensor in reference.items()}
    with torch.no_grad(), holding(model, reference):
        for p in trainable(model).values():
            p.mul_(2)
    assert all(torch.equal(reference[name], 2 * before[name]) for name in before)
    assert same(weights, weights_of(model))
    assert torch.equal(logits(), moved)


def test_a_name_that_the_model_does_not_have_is_refused(world):
    model = world[0]
    weights = weights_of(model)
    with pytest.raises(KeyError), holding(model, {"nothing": torch.zeros(1)}):
        pass
    assert same(weights, weights_of(model))


def test_weights_are_copied_and_written_back(world):
    model, reference, before, logits = world
    moved = copy_weights(model)
    put_weights(model, reference)
    assert torch.equal(logits(), before)
    assert not any(torch.equal(moved[name], reference[name]) for name in moved)
    assert all(p.data_ptr() != reference[n].data_ptr() for n, p in trainable(model).items())
    with pytest.raises(KeyError):
        put_weights(model, {})


def test_a_fresh_adapter_is_the_base_and_the_model_keeps_its_own_weights(tiny_model, tiny_rows):
    model, batch = tiny_model(), collate(tiny_rows(3), 0)
    with torch.no_grad():
        for i, p in enumerate(trainable(model).values()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    before, drawn = copy_weights(model), torch.random.get_rng_state()
    fresh = fresh_adapter(model, 3)
    assert same(copy_weights(model), before)
    assert torch.equal(torch.random.get_rng_state(), drawn)  # the caller's draws are not disturbed
    assert all(not fresh[name].any() for name in fresh if ".lora_B." in name)
    assert same(fresh, fresh_adapter(model, 3))
    other = fresh_adapter(model, 4)
    assert not any(torch.equal(fresh[n], other[n]) for n in fresh if ".lora_A." in n)
    with torch.no_grad():
        with model.disable_adapter():
            base = answer_logits(model, batch)
        with holding(model, fresh):
            assert torch.equal(answer_logits(model, batch), base)


def test_what_is_not_a_lora_matrix_has_no_fresh_value(tiny_model):
    model = tiny_model()
    norm = next(p for n, p in model.named_parameters() if "norm" in n)
    norm.requires_grad_(True)
    with pytest.raises(InputError, match=r"more than LoRA matrices .*norm"):
        fresh_adapter(model, 0)
