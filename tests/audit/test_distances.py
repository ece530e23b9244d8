"""How far weights moved: in a tiny run, and by hand."""

import math

import pytest
import torch

from grail.audit.audit import audit_run
from grail.audit.distances import OUTSIDE, distances

A, B = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"


def test_blocks_moved_and_frozen_entries_did_not(copied):
    moved = audit_run(copied("run"), overrides=["audit.attacks=[]"])["inside"]["moved"]
    assert set(moved["blocks"]) == {"0", "1", "outside the blocks"}
    assert all(block > 0 for block in moved["blocks"].values())
    assert moved["frozen"] == 0


def test_where_nothing_was_unlearned_nothing_moved(copied):
    found = audit_run(copied("same"), overrides=["audit.attacks=[]"])["inside"]
    assert set(found["moved"]["blocks"].values()) == {0.0}


def test_distances_by_hand():
    start = {A: torch.tensor([3.0, 4.0]), B: torch.tensor([0.0, 5.0]), "x": torch.zeros(2)}
    end = {A: torch.tensor([3.0, 5.0]), B: torch.tensor([2.0, 5.0]), "x": torch.tensor([1.0, 0.0])}
    frozen = {A: torch.tensor([True, False]), B: torch.tensor([False, False])}
    found = distances(start, end, frozen)
    assert found["blocks"] == {"0": pytest.approx(1 / 5), "1": pytest.approx(2 / 5), OUTSIDE: None}
    assert found["model"] == pytest.approx(math.sqrt(6 / 50))
    assert found["frozen"] == 0
    end[A] = torch.tensor([1.0, 4.0])
    assert distances(start, end, frozen)["frozen"] == 2.0


@pytest.mark.parametrize(
    ("name", "block"),
    [
        ("base_model.model.model.layers.11.mlp.up_proj.lora_A.default.weight", "11"),
        ("transformer.h.3.attn.c_attn.bias", "3"),
        ("model.vision.layers.0.attention.dense.weight", "vision.layers.0"),
        ("lm_head.weight", OUTSIDE),
    ],
)
def test_a_parameter_belongs_to_a_block(name, block):
    weight = {name: torch.ones(1)}
    assert distances(weight, weight, {})["blocks"] == {block: 0.0}
