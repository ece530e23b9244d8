"""Operations, seconds and bytes: against counts by hand, PyTorch's own counter, and real files."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from grail.config.run import parse_config
from grail.data.batches import collate
from grail.forecast.cost import (
    Shape,
    Speed,
    artifact_bytes,
    memory,
    operations,
    optimizer_bytes,
    seconds,
    selecting,
)
from grail.forecast.machine import shape_of
from grail.forecast.work import NOTHING, Passes, Reading, Work
from grail.model.answers import answers_of
from grail.model.forward import trainable
from grail.training.checkpoint import State, save_checkpoint
from grail.training.optimizer import OPTIMIZERS, LoopSettings

SHAPE = Shape(
    parameters=1000,
    bytes=4000,
    tensors=((3, 4), (5,)),
    trainable_bytes=68,
    products=800,
    products_trained=12,
    head=100,
    vocabulary=10,
    cache=16,
)
TEN = Passes(batches=2, tokens=10, answers=4, largest=6, most_answers=3)


def make_config(**sections):
    side = {"train": "x.jsonl"}
    domains = {name: {"unlearn": side, "retain": side} for name in "ab"}
    return parse_config({"domains": domains, "output": "o", **sections})


def test_operations_by_hand():
    forward = 2 * (800 * 10 + 100 * 4)
    assert operations(Work(forward=TEN), SHAPE) == forward
    assert operations(Work(generated=TEN), SHAPE) == forward
    assert operations(Work(backward=TEN), SHAPE) == 2 * forward + 2 * 12 * 10
    both = Work(forward=TEN, backward=TEN)
    assert operations(both, SHAPE) == 3 * forward + 2 * 12 * 10


@pytest.mark.parametrize("lora", [True, False])
def test_operations_are_near_those_that_torch_counts(tiny_model, tiny_rows, lora):
    """Attention's own products are what is missing; the first layer needs no input gradient."""
    model = tiny_model(lora=lora)
    rows = tiny_rows(6)
    batch = collate(rows, 0)
    with FlopCounterMode(display=False) as forward:
        answers = answers_of(model, batch)
    with FlopCounterMode(display=False) as backward:
        answers.nll.mean().backward()
    shape, own = shape_of(model), Reading(packed=False).passes([rows])
    ours = operations(Work(forward=own), shape)
    assert ours <= forward.get_total_flops() <= 1.2 * ours
    ours = operations(Work(backward=own), shape)
    theirs = forward.get_total_flops() + backward.get_total_flops()
    assert 0.75 * theirs <= ours <= 1.2 * theirs


def test_seconds_follow_from_what_was_measured():
    speed = Speed(rate=1e3, forward=0.1, backward=0.5, decoding=2.0)
    work = Work(forward=TEN, backward=TEN, generated=TEN)
    low, high = seconds(work, SHAPE, speed)
    assert low < 0.1 * 10 + 0.5 * 10 + 2.0 * 2 < high
    assert seconds(work, SHAPE, replace(speed, share=0.5)) == (low / 2, high)
    twice = Work(forward=TEN * 2, backward=TEN * 2, generated=TEN * 2)
    assert seconds(twice, SHAPE, speed) == pytest.approx((2 * low, 2 * high))
    low, high = seconds(work, SHAPE, Speed(rate=1e3))
    assert operations(work, SHAPE) / 1e3 < low < high
    assert seconds(work, SHAPE, Speed(rate=2e3)) == pytest.approx((low / 2, high / 2))
    assert selecting(SHAPE, 8) == pytest.approx([2 * value for value in selecting(SHAPE, 4)])


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("rectify", [False, True])
def test_checkpoints_are_as_large_as_planned(tiny_model, tmp_path, payload, name, rectify):
    model = tiny_model()
    parameters = trainable(model)
    optimizer = OPTIMIZERS[name](list(parameters.values()), LoopSettings(1e-3, 1, 0))
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    direction = {n: torch.zeros_like(p) for n, p in parameters.items()} if rectify else {}
    state = State(direction=direction)
    save_checkpoint(tmp_path / "c", parameters, optimizer, state, "x")
    files = [file for file in (tmp_path / "c").iterdir() if file.suffix != ".json"]
    config = make_config(unlearning={"optimizer": name, "rectify": rectify})
    sizes = artifact_bytes(config, shape_of(model), sides=4)
    assert sizes["unlearned.checkpoint"] == payload(*files)
    skipped = make_config(vanilla={"skip": True})
    assert artifact_bytes(skipped, SHAPE, 4)["vanilla.checkpoint"] == 0
    assert sizes["vanilla.checkpoint"] == sizes["vanilla"] + optimizer_bytes(
        "adamw", shape_of(model)
    )


def test_memory_grows_with_what_a_stage_holds():
    speed, config = Speed(rate=1.0, saved=50.0), make_config()
    stages = ("vanilla", "score", "localize", "unlearn", "evaluate", "generate")
    idle = {name: memory(name, Work(), SHAPE, speed, config) for name in stages}
    assert idle["evaluate"] == SHAPE.bytes
    assert idle["localize"] - SHAPE.bytes == 4 * SHAPE.trainable * (12 + 2) + 4 * SHAPE.trainable
    kept = memory("vanilla", Work(backward=TEN), SHAPE, speed, config) - idle["vanilla"]
    assert kept == 6 * 50.0 + 3 * 10 * 4 * 3  # the largest batch, and its logits
    read = memory("evaluate", Work(forward=TEN), SHAPE, speed, config) - idle["evaluate"]
    assert read == 3 * 10 * 4 * 3
    compared = make_config(unlearning={"objective": "npo"})
    more = memory("unlearn", Work(), SHAPE, speed, compared)
    assert more == idle["unlearn"] + SHAPE.trainable_bytes  # the reference
    assert memory("unlearn", Work(backward=NOTHING), SHAPE, speed, config) == idle["unlearn"]
