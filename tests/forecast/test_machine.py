"""The model in numbers, and timings that are at least possible."""

import pytest
import torch

from grail.config.run import parse_config
from grail.forecast import machine as measure
from grail.forecast.machine import sample, shape_of, speed_of
from grail.model.forward import trainable


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("lora", [True, False])
def test_the_numbers_of_a_model(tiny_model, family, lora):
    model = tiny_model(family, lora=lora)
    shape = shape_of(model)
    named = dict(model.named_parameters())
    assert shape.parameters == sum(p.numel() for p in named.values())
    assert shape.bytes == 4 * shape.parameters
    assert shape.tensors == tuple(tuple(p.shape) for p in trainable(model).values())
    assert shape.trainable_bytes == 4 * shape.trainable
    assert (shape.vocabulary, shape.head) == (96, 96 * 24)
    inside = [n for n in named if ".h." in n or ".layers." in n]
    products = sum(named[n].numel() for n in inside if named[n].dim() == 2)
    assert shape.products == products
    trained = shape.trainable if lora else shape.products
    assert shape.products_trained == trained


def test_the_sample_is_of_middling_rows(tiny_rows):
    rows = tiny_rows(21)
    lengths = sorted(len(row.ids) for row in rows)
    some = sample(rows, 3 * lengths[10])
    assert len(some) == 3
    assert lengths[8] <= min(len(r.ids) for r in some) <= max(len(r.ids) for r in some)
    assert max(len(r.ids) for r in some) <= lengths[12]
    assert len(sample(rows, 1)) == 1
    assert len(sample(rows[:2], 10_000)) == 2


def test_measuring_changes_nothing(tiny_model, tiny_tokenizer, tiny_rows, monkeypatch):
    monkeypatch.setattr(measure, "SIDE", 16)
    monkeypatch.setattr(measure, "LEAST", 1e-4)
    tokenizer = tiny_tokenizer()
    model = tiny_model(vocabulary=len(tokenizer)).train()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    side = {"train": "x.jsonl"}
    raw = {"domains": {"a": {"unlearn": side, "retain": side}}, "output": "o"}
    speed = speed_of(model, tiny_rows(8), tokenizer, parse_config(raw))
    assert min(speed.rate, speed.forward, speed.backward, speed.decoding, speed.saved) > 0
    assert 0 < speed.share <= 1
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    silent = parse_config({**raw, "evaluation": {"generate": False}})
    assert speed_of(model, tiny_rows(8), tokenizer, silent).decoding is None


def test_what_is_kept_for_the_backward_pass():
    """x of a linear layer is saved for its weight's gradient; the weight itself does not count."""
    layer = torch.nn.Linear(8, 8)
    x = torch.ones(5, 8)
    kept = measure._saved_bytes(layer, lambda: layer(x).square().sum())
    assert kept == 2 * 5 * 8 * 4  # x, and the layer's output for the square
