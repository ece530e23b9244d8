"""Packed rows against single rows, in every family; and what must not be packed."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from grail.data.batches import collate
from grail.model import packing
from grail.model.forward import answer_logits, packed_logits, trainable
from grail.model.generate import generate

FAMILIES = ["llama", "qwen2", "gemma", "gemma2", "gpt_neox", "gpt2"]


def packed(model):
    model = copy.deepcopy(model)
    assert packing.adopt(model.get_base_model() if hasattr(model, "peft_config") else model)
    assert packing.packs(model)
    return model


def read(model, batch, way):
    if way is packed_logits:
        return way(model, packing.pack(batch.ids, batch.attention, batch.at))
    return way(model, batch.ids, batch.attention, batch.at)


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_padded_rows(family, lora, tiny_model, tiny_rows):
    model, batch = tiny_model(family, lora=lora).eval(), collate(tiny_rows(5), 0)
    other = packed(model)
    a, b = read(model, batch, answer_logits), read(other, batch, packed_logits)
    assert torch.allclose(a, b, atol=2e-5)
    goal = torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    for logits in (a, b):
        (logits * goal).sum().backward()
    for name, parameter in trainable(model).items():
        gradient = trainable(other)[name].grad
        scale = float(parameter.grad.abs().max())
        assert torch.allclose(parameter.grad, gradient, atol=3e-5 * max(1.0, scale)), name


def test_padding_is_not_computed(tiny_model, tiny_rows):
    model, rows, seen = packed(tiny_model(lora=False)), tiny_rows(5), []
    block = model.model.layers[0]
    block.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].shape[:2]))
    read(model, collate(rows, 0), packed_logits)
    assert seen == [(1, sum(len(row.ids) - 1 for row in rows))]  # nobody reads the end token


@pytest.mark.parametrize("family", FAMILIES)
def test_branches_say_what_single_rows_do_and_read_their_beginning_once(
    family, tiny_model, tiny_rows
):
    """Rows of one prompt and other answers; one group whose prompts differ after all."""
    model, rows = tiny_model(family).eval(), []
    for group, row in enumerate(tiny_rows(3)):
        for trial, other in enumerate(tiny_rows(3, seed=7)):
            ids = (*row.ids[: row.start], *other.ids[other.start :])
            if (group, trial) == (2, 1):
                ids = (5, *ids[1:]) if ids[0] != 5 else (6, *ids[1:])
            rows.append(dataclasses.replace(row, ids=ids))
    batch, other = collate(rows, 0), packed(model)
    joint = packing.pack(batch.ids, batch.attention, batch.at, branches=3)
    a, b = read(model, batch, answer_logits), packed_logits(other, joint)
    assert torch.allclose(a, b, atol=2e-5)
    once = [rows[0].start + sum(len(r.ids) - 1 - r.start for r in rows[:3])]
    once += [rows[3].start + sum(len(r.ids) - 1 - r.start for r in rows[3:6])]
    assert joint.lengths == [*once, sum(len(row.ids) - 1 for row in rows[6:])]
    goal = torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    for logits in (a, b):
        (logits * goal).sum().backward()
    for name, parameter in trainable(model).items():
        gradient, scale = trainable(other)[name].grad, float(parameter.grad.abs().max())
        assert torch.allclose(parameter.grad, gradient, atol=3e-5 * max(1.0, scale)), name


@pytest.mark.parametrize("family", ["mistral", "gemma3_text"])
def test_a_sliding_window_hides_the_same_tokens(family, tiny_model, tiny_rows):
    model = tiny_model(family, lora=False, sliding_window=4).eval()
    batch = collate(tiny_rows(4, answer=(8, 20)), 0)
    a, b = read(model, batch, answer_logits), read(packed(model), batch, packed_logits)
    assert torch.allclose(a, b, atol=2e-5)
    whole = tiny_model(family, lora=False, sliding_window=512).eval()
    assert not torch.allclose(a, read(whole, batch, answer_logits), atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_does_not_change(family, tiny_model, tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    model = tiny_model(family, vocabulary=len(tokenizer)).eval()
    prompts, most = [[1, 5, 9], [7], [8, 8, 4, 40]], [6, 4, 5]
    assert generate(packed(model), prompts, most, tokenizer) == generate(
        model, prompts, most, tokenizer
    )


def test_dropout_of_attention_is_kept(tiny_model, tiny_rows):
    model, batch = packed(tiny_model(attention_dropout=0.5)), collate(tiny_rows(3), 0)
    model.train()
    torch.manual_seed(0)
    a, b = read(model, batch, packed_logits), read(model, batch, packed_logits)
    torch.manual_seed(0)
    assert not torch.equal(a, b)
    assert torch.equal(a, read(model, batch, packed_logits))


class Leaky(nn.Module):
    """Passes on half of the token before, whatever row it belongs to."""

    def forward(self, x):
        return x + 0.5 * nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]


def test_a_model_that_mixes_tokens_outside_attention_is_left_alone(tiny_model):
    model = tiny_model(lora=False).train()
    before = model.config._attn_implementation
    model.model.norm = nn.Sequential(model.model.norm, Leaky())
    assert not packing.adopt(model)
    assert model.config._attn_implementation == before
    assert model.training


def test_attention_of_its_own_kind_is_left_alone(tiny_model):
    """Sinks change every weight, and packed attention does not know them."""
    model = tiny_model("gpt_oss", lora=False)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.sinks.fill_(1.0)
    assert not packing.adopt(model)
    assert model.config._attn_implementation == "eager"


@pytest.mark.parametrize("window", [64, None])
def test_windows_that_the_mask_alone_knows_are_left_alone(window, tiny_model, tiny_rows):
    """Shorter rows, such as those that are tried, do not show them; longer ones would."""
    windows = {} if window is None else {"use_sliding_window": True, "sliding_window": window}
    model = tiny_model("qwen2_moe", lora=False, **windows).eval()
    assert packing.adopt(model) == (window is None)
    if window is None:
        batch = collate(tiny_rows(3), 0)
        a = read(model, batch, packed_logits)
        model.config._attn_implementation = "eager"
        assert torch.allclose(a, read(model, batch, answer_logits), atol=2e-5)


def test_what_hides_rows_is_made_once_a_pass_and_not_kept(tiny_model, tiny_rows):
    model, batch = packed(tiny_model(lora=False)), collate(tiny_rows(3), 0)
    rows = packing.pack(batch.ids, batch.attention, batch.at)
    with packing.reading(rows) as seen, torch.no_grad():
        model(**rows.inputs, use_cache=False)
    assert {parts for parts, *_ in seen.biases} == set(rows.rows)
    assert seen.windows == {None}


def test_no_state_is_left_after_an_exception(tiny_model, tiny_rows):
    model, batch = packed(tiny_model(lora=False)), collate(tiny_rows(2), 0)
    with pytest.raises(IndexError):
        packed_logits(model, packing.pack(batch.ids + 10**6, batch.attention, batch.at))
    assert packing.READING.get() is None
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_it_is_not_written_into_a_saved_model(tiny_model, tmp_path):
    packed(tiny_model(lora=False)).save_pretrained(tmp_path)
    assert packing.NAME not in (tmp_path / "config.json").read_text()
