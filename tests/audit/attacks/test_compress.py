"""Compressed models: merged first, changed where they should be, and put back to the bit."""

import pytest
import torch
from torch import nn

from grail.audit.attacks.compress import compressed, linear_layers
from grail.audit.attacks.prune import pruned
from grail.audit.attacks.quantise import quantised
from grail.data.batches import collate
from grail.model.forward import answer_logits


def logits(model, tiny_rows):
    batch = collate(tiny_rows(3), 0)
    with torch.no_grad():
        return answer_logits(model.eval(), batch)


def state(model):
    return {n: (p, p.data_ptr(), p.detach().clone()) for n, p in model.named_parameters()}


def as_before(model, before):
    return all(
        p is before[n][0] and p.data_ptr() == before[n][1] and torch.equal(p, before[n][2])
        for n, p in model.named_parameters()
    )


@pytest.mark.parametrize("family", ["llama", "gemma", "gpt_neox", "gpt2"])
@pytest.mark.parametrize("lora", [True, False])
def test_equals_changing_a_merged_copy_by_hand(tiny_model, tiny_rows, family, lora):
    model, other = tiny_model(family, lora=lora), tiny_model(family, lora=lora)
    before, said = state(model), logits(model, tiny_rows)
    if lora:
        other = other.merge_and_unload()
    head = other.get_output_embeddings()
    with torch.no_grad():
        for module in other.modules():
            if isinstance(module, nn.Linear) and module is not head:
                module.weight.copy_(quantised(module.weight, 4, 8))
            elif type(module).__name__ == "Conv1D":
                module.weight.copy_(quantised(module.weight.T.contiguous(), 4, 8).T)
    with compressed(model, lambda weight: quantised(weight, 4, 8)):
        torch.testing.assert_close(logits(model, tiny_rows), logits(other, tiny_rows))
    assert as_before(model, before)
    assert torch.equal(logits(model, tiny_rows), said)
    assert not torch.allclose(logits(other, tiny_rows), said)


def test_merging_alone_changes_no_answer(tiny_model, tiny_rows):
    model = tiny_model()
    said = logits(model, tiny_rows)
    with compressed(model, None):
        torch.testing.assert_close(logits(model, tiny_rows), said)
        weights = [m.weight for m in linear_layers(model).values()]
        assert all(w.dtype == torch.float32 for w in weights)


def test_the_adapter_is_rounded_too(tiny_model):
    """Rounding the base and keeping the adapter would leave entries off the grid."""
    model = tiny_model(tied=False)
    with compressed(model, lambda weight: quantised(weight, 2)):
        for name, layer in linear_layers(model).items():
            levels = [len(row.unique()) for row in layer.weight]
            assert max(levels) <= 3, name  # two bits: -1, 0 and 1 times the scale


def test_embeddings_head_and_norms_stay(tiny_model):
    model = tiny_model(tied=False)
    names = linear_layers(model)
    assert len(names) == 2 * 7
    assert not any("lora" in name or "lm_head" in name for name in names)
    kept = {n: p.detach().clone() for n, p in model.named_parameters() if "base_layer" not in n}
    with compressed(model, lambda weight: pruned(weight, 0.5)):
        now = dict(model.named_parameters())
        assert all(torch.equal(now[name], value) for name, value in kept.items())


def test_a_half_precision_model_stays_one(tiny_model):
    model = tiny_model().to(torch.bfloat16)
    before = state(model)
    with compressed(model, lambda weight: quantised(weight, 8)):
        assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert as_before(model, before)


def test_what_is_changed_is_the_merged_weight_in_float32(tiny_model):
    """Rounded once, after the change: a grid for rounded weights would not be theirs."""
    model = tiny_model()
    for parameter in model.parameters():
        if not parameter.requires_grad:  # the base; adapters are kept in float32
            parameter.data = parameter.data.bfloat16()
    merged = [
        m.base_layer.weight.float()
        + m.scaling["default"] * m.lora_B["default"].weight @ m.lora_A["default"].weight
        for m in model.modules()
        if hasattr(m, "lora_A")
    ]
    seen = []
    with compressed(model, lambda weight: seen.append(weight.clone()) or weight):
        rounded = [layer.weight.clone() for layer in linear_layers(model).values()]
    assert len(seen) == len(merged)
    for given, expected, after in zip(seen, merged, rounded, strict=True):
        torch.testing.assert_close(given, expected)
        assert torch.equal(given.bfloat16(), after)
        assert not torch.equal(given, after.float())


def test_an_error_inside_puts_the_weights_back(tiny_model):
    model = tiny_model()
    before = state(model)
    with pytest.raises(KeyError), compressed(model, lambda weight: weight * 0):
        raise KeyError
    assert as_before(model, before)
    with compressed(model, None):  # and PEFT holds the adapter for unmerged again
        pass
