"""The lens against the model's own answers, and against blocks cut off by hand."""

import copy

import pytest
import torch
from torch import nn

from grail.audit.lens import hits_by_block, lens_summary, model_parts
from grail.data.batches import collate
from grail.errors import InputError
from grail.model.answers import answers_of

FAMILIES = ["llama", "qwen2", "gemma", "gemma2", "gpt_neox", "gpt2"]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("lora", [True, False])
def test_the_last_block_says_what_the_model_says(tiny_model, tiny_rows, family, lora):
    model, rows = tiny_model(family, lora=lora).eval(), tiny_rows(9)
    hits = {row.key: of_row for row, of_row in hits_by_block(model, rows, 0)}
    with torch.no_grad():
        guesses = answers_of(model, collate(rows, 0)).guesses
    for row, own in zip(rows, guesses.split([len(r.answer) for r in rows]), strict=True):
        assert hits[row.key].shape == (2, len(row.answer))
        assert torch.equal(hits[row.key][-1], own == torch.tensor(row.answer))


@pytest.mark.parametrize("family", ["llama", "gpt_neox"])
def test_a_block_says_what_a_model_that_ends_there_says(tiny_model, tiny_rows, family):
    model, rows = tiny_model(family, lora=False).eval(), tiny_rows(40, answer=(5, 9))
    first = {row.key: of_row[0] for row, of_row in hits_by_block(model, rows, 0)}
    short = copy.deepcopy(model)
    inner = short.gpt_neox if family == "gpt_neox" else short.model
    inner.layers = inner.layers[:1]
    short.config.num_hidden_layers = 1
    hits = {row.key: of_row[0] for row, of_row in hits_by_block(short, rows, 0)}
    assert all(torch.equal(first[key], hits[key]) for key in first)
    assert any(bool(own.any()) for own in first.values())


def test_looking_changes_nothing(tiny_model, tiny_rows):
    model = tiny_model().train()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    list(hits_by_block(model, tiny_rows(3), 0))
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())
    assert model.training
    assert not any(module._forward_hooks for module in model.modules())


def test_a_model_that_is_built_otherwise_is_refused_in_words(tiny_model):
    model = tiny_model(lora=False)
    model.config.num_hidden_layers = 7
    with pytest.raises(InputError, match="0 lists of 7 blocks"):
        model_parts(model)
    model = tiny_model(lora=False)
    model.model.norm = nn.Identity()
    with pytest.raises(InputError, match="0 norms next to"):
        model_parts(model)


def test_summary_by_hand():
    hits = torch.tensor([[0, 0, 0, 0], [1, 0, 1, 0], [1, 0, 0, 1]], dtype=torch.bool)
    found = lens_summary([hits, torch.zeros(3, 2, dtype=torch.bool)])
    assert found["share"] == [0.0, 25.0, 25.0]
    assert found["n"] == 2
