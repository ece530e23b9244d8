"""Packed rows against single rows, in every family; and what must not be packed."""

import copy
import dataclasses

import pytest
import torch
from torch import nn

from grail.data.batches import collate
from grail.model import packing
from grail.model.answers import answers_of
from grail.model.forward import answer_logits, trainable
from grail.model.generate import generate
from grail.model.packing import pack, packed_logits

FAMILIES = ["llama", "qwen2", "gemma", "gemma2", "gpt_neox", "gpt2"]
WINDOWED = {
    "mistral": {"sliding_window": 8},
    "gemma3_text": {"sliding_window": 8},
    "qwen2_moe": {"use_sliding_window": True, "sliding_window": 8},
}


def packed(model):
    model = copy.deepcopy(model)
    assert packing.enable(model.get_base_model() if hasattr(model, "peft_config") else model)
    assert packing.packs(model)
    return model


def same_gradients(a, b, model, other):
    """Compare the gradients of a random combination of logits in two models."""
    goal = torch.randn(a.shape, generator=torch.Generator().manual_seed(1))
    for logits in (a, b):
        (logits * goal).sum().backward()
    for name, parameter in trainable(model).items():
        gradient, scale = trainable(other)[name].grad, float(parameter.grad.abs().max())
        assert torch.allclose(parameter.grad, gradient, atol=3e-5 * max(1.0, scale)), name


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_and_gradients_are_those_of_padded_rows(family, lora, tiny_model, tiny_rows):
    model, rows = tiny_model(family, lora=lora).eval(), tiny_rows(5)
    other = packed(model)
    a, b = answer_logits(model, collate(rows, 0)), packed_logits(other, pack(other, rows))
    assert torch.allclose(a, b, atol=2e-5)
    same_gradients(a, b, model, other)


def test_padding_is_not_computed(tiny_model, tiny_rows):
    model, rows, seen = packed(tiny_model(lora=False)), tiny_rows(5), []
    block = model.model.layers[0]
    block.register_forward_pre_hook(lambda _m, inputs: seen.append(inputs[0].shape[:2]))
    found = pack(model, rows)
    packed_logits(model, found)
    assert seen == [(1, sum(len(row.ids) - 1 for row in rows))]  # no logits after the end token
    assert found.lengths == [len(row.ids) - 1 for row in rows]


@pytest.mark.parametrize("family", FAMILIES)
def test_branches_are_single_rows_and_share_their_prompt(family, tiny_model, tiny_rows):
    """Rows of one prompt and other answers; one group whose prompts differ after all."""
    model, rows = tiny_model(family).eval(), []
    for group, row in enumerate(tiny_rows(3)):
        for trial, other in enumerate(tiny_rows(3, seed=7)):
            ids = (*row.ids[: row.start], *other.ids[other.start :])
            if (group, trial) == (2, 1):
                ids = (5, *ids[1:]) if ids[0] != 5 else (6, *ids[1:])
            rows.append(dataclasses.replace(row, ids=ids))
    other = packed(model)
    joint = pack(other, rows, branches=3)
    a, b = answer_logits(model, collate(rows, 0)), packed_logits(other, joint)
    assert torch.allclose(a, b, atol=2e-5)
    once = [rows[0].start + sum(len(r.ids) - 1 - r.start for r in rows[:3])]
    once += [rows[3].start + sum(len(r.ids) - 1 - r.start for r in rows[3:6])]
    assert joint.lengths == [*once, sum(len(row.ids) - 1 for row in rows[6:])]
    same_gradients(a, b, model, other)


@pytest.mark.parametrize("family", WINDOWED)
def test_rows_are_packed_where_they_fit_the_window(family, tiny_model, tiny_rows):
    """Longer rows are padded instead: their logits are those of a model that does not pack."""
    model = tiny_model(family, lora=False, **WINDOWED[family]).eval()
    other, short = packed(model), tiny_rows(3, answer=(1, 2))
    rows = [*short, *tiny_rows(2, seed=1, answer=(12, 20))]
    assert packing.packs(other, short)
    assert not packing.packs(other, rows)
    a, b = answer_logits(model, collate(short, 0)), packed_logits(other, pack(other, short))
    assert torch.allclose(a, b, atol=2e-5)
    found = answers_of(other, collate(rows, 0)).logits
    assert torch.allclose(answer_logits(model, collate(rows, 0)), found, atol=2e-5)
    broken = packed_logits(other, pack(other, rows))
    assert not torch.allclose(found, broken, atol=1e-2)


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_does_not_change(family, tiny_model, tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    model = tiny_model(family, vocabulary=len(tokenizer)).eval()
    prompts, most = [[1, 5, 9], [7], [8, 8, 4, 40]], [6, 4, 5]
    assert generate(packed(model), prompts, most, tokenizer) == generate(
        model, prompts, most, tokenizer
    )


def test_dropout_of_attention_is_kept(tiny_model, tiny_rows):
    model, rows = packed(tiny_model(attention_dropout=0.5)), tiny_rows(3)
    model.train()
    torch.manual_seed(0)
    a, b = packed_logits(model, pack(model, rows)), packed_logits(model, pack(model, rows))
    torch.manual_seed(0)
    assert not torch.equal(a, b)
    assert torch.equal(a, packed_logits(model, pack(model, rows)))


class Leaky(nn.Module):
    """Passes on half of the token before, whatever row it belongs to."""

    def forward(self, x):
        return x + 0.5 * nn.functional.pad(x, (0, 0, 1, 0))[:, :-1]


def test_a_model_that_mixes_tokens_outside_attention_is_left_alone(tiny_model):
    model = tiny_model(lora=False).train()
    before = model.config._attn_implementation
    model.model.norm = nn.Sequential(model.model.norm, Leaky())
    assert not packing.enable(model)
    assert not packing.packs(model)
    assert model.config._attn_implementation == before
    assert model.training


def test_a_model_that_counts_positions_itself_is_left_alone(tiny_model):
    model = tiny_model(lora=False)
    inner = model.model.rotary_emb.forward
    model.model.rotary_emb.forward = lambda x, position_ids: inner(x, position_ids.cumsum(-1))
    assert not packing.enable(model)


def test_a_model_that_takes_no_positions_is_left_alone(tiny_model):
    model = tiny_model(lora=False)
    inner = model.forward
    model.forward = lambda input_ids, attention_mask, use_cache: inner(input_ids, attention_mask)
    assert not packing.enable(model)


def test_attention_sinks_are_kept(tiny_model, tiny_rows):
    """GPT-OSS has attention of its own kind, which is computed block by block."""
    model, rows = tiny_model("gpt_oss", lora=False).eval(), tiny_rows(3)
    with torch.no_grad():
        for layer in model.model.layers:
            layer.self_attn.sinks.fill_(1.0)
    other = packed(model)
    a = answer_logits(model, collate(rows, 0))
    assert torch.allclose(a, packed_logits(other, pack(other, rows)), atol=2e-5)
    with torch.no_grad():
        for layer in other.model.layers:
            layer.self_attn.sinks.fill_(-50.0)
    assert not torch.allclose(a, packed_logits(other, pack(other, rows)), atol=1e-2)


def test_no_hook_is_left_after_an_exception(tiny_model, tiny_rows):
    model = packed(tiny_model(lora=False))
    found = pack(model, tiny_rows(2))
    found.inputs["input_ids"] += 10**6
    with pytest.raises(IndexError):
        packed_logits(model, found)
    assert not model.get_output_embeddings()._forward_pre_hooks


def test_it_is_not_written_into_a_saved_model(tiny_model, tmp_path):
    packed(tiny_model(lora=False)).save_pretrained(tmp_path)
    assert packing.NAME not in (tmp_path / "config.json").read_text()
