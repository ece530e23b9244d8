"""Logits at answer positions only, and modes that last for a block."""

import dataclasses

import pytest
import torch

from grail.data.batches import collate
from grail.model.forward import answer_logits, evaluating, in_mode, trainable
from grail.model.nll import token_nll

FAMILIES = ["llama", "qwen2", "gemma", "gemma2", "gpt_neox", "gpt2"]


# -- logits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_answer_logits_are_those_of_the_full_forward(family, lora, tiny_model, tiny_rows):
    model, batch = tiny_model(family, lora=lora).eval(), collate(tiny_rows(4), 0)
    full = model(input_ids=batch.ids, attention_mask=batch.attention).logits
    found = answer_logits(model, batch)
    assert found.shape == (sum(batch.lengths), full.shape[-1])
    assert torch.allclose(found, full[batch.at], atol=1e-5)
    assert not torch.allclose(found, full[batch.at.roll(1, 1)][: len(found)], atol=1e-2)
    if family == "gemma2":
        assert full.abs().max() < 2.0, "the soft cap is in force"
    after = model(input_ids=batch.ids, attention_mask=batch.attention).logits
    assert torch.equal(after, full), "the hook is gone"


def test_answer_logits_do_not_compute_the_others(tiny_model, tiny_rows):
    model, batch, seen = tiny_model().eval(), collate(tiny_rows(4), 0), []
    head = model.get_output_embeddings()
    handle = head.register_forward_hook(lambda _m, _i, out: seen.append(out.shape[:-1]))
    answer_logits(model, batch)
    handle.remove()
    assert seen == [(sum(batch.lengths),)]


def test_answer_logits_unhook_after_an_exception(tiny_model, tiny_rows):
    model, batch = tiny_model().eval(), collate(tiny_rows(2), 0)
    head = model.get_output_embeddings()
    with pytest.raises(IndexError):
        answer_logits(model, dataclasses.replace(batch, ids=batch.ids + 10**6))
    assert not head._forward_pre_hooks


def test_gradients_through_answer_logits(tiny_model, tiny_rows):
    model, batch = tiny_model().eval(), collate(tiny_rows(3), 0)
    weights = list(trainable(model).values())
    full = model(input_ids=batch.ids, attention_mask=batch.attention).logits[batch.at]
    few = answer_logits(model, batch)
    targets = batch.targets[batch.at]
    pair = [torch.autograd.grad(token_nll(x, targets).sum(), weights) for x in (full, few)]
    for a, b in zip(*pair, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(a.abs().max()))


# -- training mode ------------------------------------------------------------------------------


def test_evaluating_switches_dropout_off_and_on_again(tiny_model):
    model, seen = tiny_model().train(), []

    def fail():
        with evaluating(model):
            seen.extend(m.training for m in model.modules())
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert seen
    assert not any(seen)
    assert all(m.training for m in model.modules())


@pytest.mark.parametrize("training", [True, False])
def test_a_mode_lasts_for_the_block_and_each_module_returns_to_its_own(tiny_model, training):
    model = tiny_model("llama").train()
    next(model.children()).eval()  # as somebody who wants no dropout in a part
    was = [module.training for module in model.modules()]
    with in_mode(model, training):
        assert {module.training for module in model.modules()} == {training}
    assert [module.training for module in model.modules()] == was
    assert len(set(was)) == 2
