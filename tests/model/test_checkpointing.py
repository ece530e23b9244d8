"""Gradient checkpointing: the same gradients from fewer tensors in memory."""

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from grail.data.batches import collate
from grail.errors import InputError
from grail.model import packing
from grail.model.answers import answers_of, together
from grail.model.checkpointing import recompute_activations
from grail.model.forward import trainable
from grail.model.fused_lora import fused, is_fused


def trained(model, rows):
    """Return the loss, all gradients, and the bytes that autograd kept for them."""
    kept = {}

    def keep(tensor):
        kept[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
        return tensor

    model.train()
    with saved_tensors_hooks(keep, lambda tensor: tensor):
        parts = [answers_of(model, collate(part, 0)).nll for part in together(model, rows)]
        loss = torch.cat(parts).sum()
    loss.backward()
    gradients = {name: p.grad.clone() for name, p in trainable(model).items()}
    return loss.detach(), gradients, sum(kept.values())


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("dropout", [0.0, 0.5])
def test_gradients_are_equal_to_the_bit_with_less_kept(
    tiny_model, tiny_rows, lora, packed, dropout
):
    def made():
        model = tiny_model(lora=lora, attention_dropout=dropout)
        with torch.no_grad():
            for number, parameter in enumerate(trainable(model).values()):
                generator = torch.Generator().manual_seed(number)
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        assert not packed or packing.enable(model.get_base_model() if lora else model)
        return model

    one, other, rows = made(), made(), tiny_rows(4)
    recompute_activations(other)
    torch.manual_seed(1)
    loss, gradients, kept = trained(one, rows)
    torch.manual_seed(1)
    again, others, fewer = trained(other, rows)
    assert torch.equal(loss, again)
    assert all(torch.equal(gradients[name], others[name]) for name in gradients)
    assert any(g.any() for g in gradients.values())
    assert fewer < kept


def test_whether_a_block_is_open(tiny_model):
    model = tiny_model()
    assert not is_fused(model)
    with fused(model):
        assert is_fused(model)
    assert not is_fused(model)


def test_a_class_that_cannot_is_refused(tiny_model):
    model = tiny_model(lora=False)
    model.supports_gradient_checkpointing = False
    with pytest.raises(InputError, match=r"model.gradient_checkpointing: .* Set it to false"):
        recompute_activations(model)
