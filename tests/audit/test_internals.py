"""What is seen inside the models of a tiny run."""

import math

import pytest
import torch

from grail.audit.audit import audit_run
from grail.audit.internals import OUTSIDE, distances, lens_rows

A, B = "model.layers.0.self_attn.q_proj.weight", "model.layers.1.self_attn.q_proj.weight"


def test_blocks_moved_frozen_entries_did_not_and_the_last_block_is_the_output(copied):
    settings = ["audit.attacks=[]", "audit.lens_rows=null", "audit.max_rows=null"]
    found = audit_run(copied("run"), overrides=settings)
    moved = found["inside"]["moved"]
    assert set(moved["blocks"]) == {"0", "1", "outside the blocks"}
    assert all(block > 0 for block in moved["blocks"].values())
    assert moved["frozen"] == 0
    for seen in found["inside"]["lens"]:
        (entry,) = [
            e for e in found["measured"] if (e["model"], e["attack"]) == (seen["model"], "plain")
        ]
        metric = {"unlearn": "US", "retain": "RS"}[seen["side"]]
        (value,) = [
            r["value"]
            for r in entry["rows"]
            if (r["side"], r["part"], r["metric"]) == (seen["side"], "train", metric)
        ]
        right = 100 - value if metric == "US" else value
        assert seen["share"][-1] == pytest.approx(right, abs=1e-4)


def test_where_nothing_was_unlearned_nothing_moved(copied):
    settings = ["audit.attacks=[]", "audit.lens_rows=1"]
    found = audit_run(copied("same"), overrides=settings)["inside"]
    assert set(found["moved"]["blocks"].values()) == {0.0}
    by_model = {seen["model"]: seen["share"] for seen in found["lens"] if seen["side"] == "unlearn"}
    assert by_model["vanilla"] == by_model["unlearned"]


def test_only_train_rows_of_the_sides_and_at_most_so_many(audit_context):
    counts = {("a", "unlearn", "train"): 9, ("a", "unlearn", "val"): 4}
    counts |= {("a", "retain", "train"): 2, ("general", "general", "val"): 3}
    sides = lens_rows(audit_context(counts, lens_rows=3))
    assert {place: len(own) for place, own in sides.items()} == {
        ("a", "unlearn"): 3,
        ("a", "retain"): 2,
    }


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
