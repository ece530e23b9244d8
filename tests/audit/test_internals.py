"""What is seen inside the models of a tiny run."""

import pytest

from grail.audit.audit import audit_run
from grail.audit.internals import lens_rows


def test_blocks_moved_frozen_entries_did_not_and_the_last_block_is_the_output(copied):
    settings = ["audit.attacks=[]", "audit.lens_rows=null", "audit.max_rows=null"]
    found = audit_run(copied("run"), overrides=settings)
    moved = found["inside"]["moved"]
    assert set(moved["blocks"]) == {"0", "1", "outside the blocks"}
    assert all(block["moved"] > 0 for block in moved["blocks"].values())
    assert moved["model"]["frozen"] == 0
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
        assert max(seen["share"]) <= seen["ever"] + 1e-4


def test_where_nothing_was_unlearned_nothing_moved(copied):
    settings = ["audit.attacks=[]", "audit.lens_rows=1"]
    found = audit_run(copied("same"), overrides=settings)["inside"]
    assert {block["moved"] for block in found["moved"]["blocks"].values()} == {0.0}
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
