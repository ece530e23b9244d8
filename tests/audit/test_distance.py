"""Distances by hand."""

import math

import pytest
import torch

from grail.audit.distance import OUTSIDE, block_and_kind, distances

A, B = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"


def test_by_hand():
    start = {A: torch.tensor([3.0, 4.0]), B: torch.tensor([0.0, 5.0]), "x": torch.zeros(2)}
    end = {A: torch.tensor([3.0, 5.0]), B: torch.tensor([2.0, 5.0]), "x": torch.tensor([1.0, 0.0])}
    frozen = {A: torch.tensor([True, False]), B: torch.tensor([False, False])}
    found = distances(start, end, frozen)
    assert found["blocks"]["0"]["moved"] == pytest.approx(1 / 5)
    assert found["blocks"]["0"]["free"] == pytest.approx(1 / 4)
    assert found["blocks"]["1"]["moved"] == pytest.approx(2 / 5)
    assert found["blocks"][OUTSIDE]["moved"] is None
    assert found["kinds"]["self_attn.q_proj"]["moved"] == pytest.approx(math.sqrt(5 / 50))
    assert found["kinds"]["self_attn.q_proj"]["entries"] == 4
    assert found["model"]["moved"] == pytest.approx(math.sqrt(6 / 50))
    assert found["model"]["frozen"] == 0


def test_a_frozen_entry_that_moved_is_seen():
    start, end = {A: torch.tensor([3.0, 4.0])}, {A: torch.tensor([1.0, 4.0])}
    found = distances(start, end, {A: torch.tensor([True, False])})["model"]
    assert (found["frozen"], found["free"]) == (2.0, 0.0)


@pytest.mark.parametrize(
    ("name", "place"),
    [
        (
            "base_model.model.model.layers.11.mlp.up_proj.lora_A.default.weight",
            ("11", "mlp.up_proj.lora_A"),
        ),
        ("transformer.h.3.attn.c_attn.bias", ("3", "attn.c_attn.bias")),
        ("gpt_neox.layers.0.attention.dense.weight", ("0", "attention.dense")),
        ("model.vision.layers.0.attention.dense.weight", ("vision.layers.0", "attention.dense")),
        ("transformer.blocks.2.ffn.weight", ("2", "ffn")),
        ("lm_head.weight", (OUTSIDE, "lm_head")),
    ],
)
def test_names_have_a_block_and_a_kind(name, place):
    assert block_and_kind(name) == place
