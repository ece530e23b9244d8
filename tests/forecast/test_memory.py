"""What each way takes follows from counts that can be made by hand."""

import pytest

from grail.config.run import parse_config
from grail.forecast.cost import shape_of
from grail.forecast.memory import LIBRARIES, plan_of_shape
from grail.forecast.shapes import shaped

ROWS = {"train": "embedded"}


def planned(tiny_rows, name, devices=1, **sections):
    config = parse_config(
        {"domains": {"d": {"unlearn": ROWS, "retain": ROWS}}, "output": "run", **sections}
    )
    return config, plan_of_shape(config, tiny_rows(8), name, devices)


def test_weights_of_few_bits(tiny_rows):
    _, plan = planned(tiny_rows, "7b")
    full, nf4 = (next(w for w in plan.ways if w.quantise == kind) for kind in (None, "nf4"))
    shape = shape_of(shaped("7b", planned(tiny_rows, "1b")[0].model))
    assert full.weights == shape.bytes
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    assert full.weights - nf4.weights == pytest.approx(linear * (2 - 4.13 / 8), rel=1e-6)


def test_checkpointing_and_shards_lower_what_they_should(tiny_rows):
    config, plan = planned(tiny_rows, "1b", devices=4, model={"lora": None})
    ways = {(w.checkpointing, w.shards): w for w in plan.ways}
    assert set(ways) == {(False, 1), (True, 1), (False, 4), (True, 4)}
    whole, again, parts = ways[False, 1], ways[True, 1], ways[False, 4]
    assert again.train < whole.train
    assert again.score == whole.score, "scoring keeps its activations"
    assert parts.weights == pytest.approx(whole.weights / 4, abs=1)
    shape = plan.shape
    state = 4 * shape.bytes  # weights, gradients, their masked copies, and two moments, less one
    assert whole.train >= state + shape.bytes
    assert parts.train < whole.train / 2
    assert whole.host == 2 * len(config.domains) * 12 * shape.trainable
    assert whole.peak == LIBRARIES + max(whole.score, whole.train)
    assert whole.unified >= whole.peak


def test_each_way_says_what_to_set(tiny_rows):
    _, plan = planned(tiny_rows, "1b", devices=2)
    changes = [" ".join(way.changes) for way in plan.ways]
    assert len(set(changes)) == len(changes)
    assert changes[0] == ""
    assert "--set model.quantise=nf4 --set model.gradient_checkpointing=true" in changes
    assert "FSDP2 on 2 devices" in changes
