"""What each way takes follows from counts that can be made by hand."""

from functools import partial

import pytest
import torch

from grail.artifacts import Mask
from grail.config.run import Model, parse_config
from grail.model.forward import trainable
from grail.run.forecast.cost import shape_of
from grail.run.forecast.memory import LIBRARIES, plan_of_shape, state_bytes
from grail.run.forecast.shapes import shaped
from grail.training import eight_bits
from grail.training.freezing import Freezing
from grail.training.optimizer import (
    OPTIMIZERS,
    LoopSettings,
    masters_of,
    take_gradients,
    trains_vector,
)

ROWS = {"train": "embedded"}


def planned(tiny_rows, name, devices=1, **sections):
    domains = {"d": {"unlearn": ROWS, "retain": ROWS}}
    config = parse_config({"domains": domains, "output": "run", "preset": "grail"} | sections)
    return config, plan_of_shape(config, tiny_rows(8), name, devices)


def test_weights_of_few_bits(tiny_rows):
    _, plan = planned(tiny_rows, "7b")
    full, nf4 = (next(w for w in plan.ways if w.quantise == kind) for kind in (None, "nf4"))
    shape = shape_of(shaped("7b", planned(tiny_rows, "1b")[0].model))
    assert full.weights == shape.bytes
    linear = 32 * (4 * 4096**2 + 3 * 4096 * 11008)
    tokens = 2 * 32000  # embedding and head, and a scale of 16 bits for each row
    saved = linear * (2 - 4.13 / 8) + tokens * (4096 - 2)
    assert full.weights - nf4.weights == pytest.approx(saved, rel=1e-6)


def test_a_tied_vocabulary_is_stored_once(tiny_rows):
    _, plan = planned(tiny_rows, "1b")
    full, nf4 = (next(w for w in plan.ways if w.quantise == kind) for kind in (None, "nf4"))
    linear = 16 * (2 * 2048**2 + 2 * 2048 * 512 + 3 * 2048 * 8192)
    saved = linear * (2 - 4.13 / 8) + 128256 * (2048 - 2)
    assert full.weights - nf4.weights == pytest.approx(saved, rel=1e-6)


def test_checkpointing_and_shards_lower_what_they_should(tiny_rows):
    config, plan = planned(tiny_rows, "1b", devices=4, model={"lora": None})
    ways = {(w.checkpointing, w.shards): w for w in plan.ways}
    assert set(ways) == {(False, 1), (True, 1), (False, 4)}, "in parts there is no checkpointing"
    whole, again, parts = ways[False, 1], ways[True, 1], ways[False, 4]
    assert again.train == whole.train, "with few tokens, the optimiser's step takes the most"
    assert again.score == whole.score, "scoring keeps its activations"
    _, adapter = planned(tiny_rows, "1b")
    assert adapter.ways[1].checkpointing > adapter.ways[0].checkpointing
    assert adapter.ways[1].train < adapter.ways[0].train
    assert parts.weights == pytest.approx(whole.weights / 4, abs=1)
    shape = plan.shape
    state = 4 * shape.bytes  # weights, gradients, their masked copies, and two moments, less one
    assert whole.train >= state + shape.bytes
    assert parts.train < whole.train / 2
    assert whole.host == 2 * len(config.domains) * 12 * shape.trainable
    assert whole.peak == LIBRARIES + max(whole.score, whole.train)
    assert whole.sets == (4 * len(config.domains) + 5) * shape.trainable
    assert whole.unified >= whole.peak


def test_each_way_says_what_to_set(tiny_rows):
    _, plan = planned(tiny_rows, "1b", devices=2)
    changes = [" ".join(way.changes) for way in plan.ways]
    assert len(set(changes)) == len(changes)
    assert changes[0] == ""
    assert "--set model.quantise=nf4 --set model.gradient_checkpointing=true" in changes
    assert "FSDP2 on 2 devices" in changes


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("frozen", [0.0, 0.25, 0.875])
def test_a_training_s_state_is_what_its_tensors_take(tiny_model, name, frozen, dtype, monkeypatch):
    monkeypatch.setattr(eight_bits, "SMALLEST", 1)
    model = tiny_model(lora=False).to(dtype)
    parameters = trainable(model)
    bits = {n: torch.arange(p.numel()).reshape(p.shape) % 8 for n, p in parameters.items()}
    mask = Mask({n: values < 8 * frozen for n, values in bits.items()})
    freezing = Freezing(parameters, mask, partial(trains_vector, name))
    masters = masters_of(parameters, freezing.vectors)
    optimizer = OPTIMIZERS[name](list(masters.values()), LoopSettings(1e-3, 1, 0))
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    taken = take_gradients(parameters, masters, freezing.vectors)
    for key, gradient in freezing.masked(taken, "").items():
        masters[key].grad = gradient
    both = {id(g): g.nbytes for g in (*taken.values(), *(m.grad for m in masters.values()))}
    held = sum(m.nbytes for key, m in masters.items() if m is not parameters[key])
    optimizer.step()
    states = [v for of in optimizer.state_dict()["state"].values() for v in of.values() if v.dim()]
    if name != "adafactor":  # means of rows and columns: little
        held += sum(value.nbytes for value in states)
    counted = state_bytes(shape_of(model), name, frozen)
    assert counted == pytest.approx((held, sum(both.values())), rel=0.02)


def test_what_a_mask_freezes_lowers_stage_3_alone(tiny_rows):
    def train(**more):
        config = parse_config(
            {"domains": {"d": {"unlearn": ROWS, "retain": ROWS}}, "output": "run",
             "preset": "grail", "model": {"lora": None}, **more}
        )  # fmt: skip
        return [plan_of_shape(config, tiny_rows(8), "1b", 1, f).ways[0].train for f in (0, 0.875)]

    whole, masked = train()
    entries = shape_of(shaped("1b", Model(lora=None))).trainable
    # moments and two gradients of each entry; a copy and moments of free ones, and one gradient
    assert whole - masked == pytest.approx(4 * entries * ((2 + 2) - (3 / 8 + 1)), rel=0.1)
    taught, lowest = train(teach=True)
    assert taught == pytest.approx(whole)
    assert masked < lowest < taught, "the teaching has no mask"


def test_what_cannot_run_in_parts_is_left_out_and_said(tiny_rows):
    _, plan = planned(tiny_rows, "1b", devices=2, preset="request")
    assert {way.shards for way in plan.ways} == {1}
    assert "unlearning.guesses: not for a model in parts" in plan.refused
