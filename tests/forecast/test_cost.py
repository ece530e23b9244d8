"""Operations, seconds and bytes: against counts by hand, PyTorch's own counter, and real files."""

from dataclasses import replace

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from grail.config.run import parse_config
from grail.data.batches import collate
from grail.forecast.cost import Shape, artifact_bytes, operations, optimizer_bytes, shape_of
from grail.forecast.work import Passes, Work, passes_of
from grail.model.answers import answers_of
from grail.model.forward import trainable
from grail.training.checkpoint import State, save_checkpoint
from grail.training.optimizer import OPTIMIZERS, LoopSettings, masters_of

SHAPE = Shape(
    parameters=1000,
    bytes=4000,
    tensors=((3, 4), (5,)),
    trainable_bytes=68,
    products=800,
    products_trained=12,
    head=100,
)
TEN = Passes(batches=2, tokens=10, answers=4)


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
    rows = [replace(row, ids=(*row.ids, *row.ids)[:9], start=4) for row in tiny_rows(6)]
    batch = collate(rows, 0)
    with FlopCounterMode(display=False) as forward:
        answers = answers_of(model, batch)
    with FlopCounterMode(display=False) as backward:
        answers.nll.mean().backward()
    shape, own = shape_of(model), passes_of(rows)
    ours = operations(Work(forward=own), shape)
    assert ours <= forward.get_total_flops() <= 1.2 * ours
    ours = operations(Work(backward=own), shape)
    theirs = forward.get_total_flops() + backward.get_total_flops()
    assert 0.75 * theirs <= ours <= 1.2 * theirs


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("rectify", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_checkpoints_are_as_large_as_planned(tiny_model, tmp_path, payload, name, rectify, dtype):
    model = tiny_model(lora=False).to(dtype)
    parameters = masters_of(trainable(model))
    optimizer = OPTIMIZERS[name](list(parameters.values()), LoopSettings(1e-3, 1, 0))
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    direction = {n: torch.zeros_like(p) for n, p in parameters.items()} if rectify else {}
    state = State(direction=direction)
    save_checkpoint(tmp_path / "c", parameters, optimizer, state, "x")
    files = [file for file in (tmp_path / "c").iterdir() if file.suffix != ".json"]
    config = make_config(teach=True, unlearning={"optimizer": name, "rectify": rectify})
    sizes = artifact_bytes(config, shape_of(model))
    assert sizes["unlearned.checkpoint"] == payload(*files)
    skipped = make_config(teach=None)
    assert artifact_bytes(skipped, SHAPE)["vanilla.checkpoint"] == 0
    masters = sum(p.nbytes for p in parameters.values())
    assert sizes["vanilla.checkpoint"] == masters + optimizer_bytes("adamw", shape_of(model))


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
    assert shape.head == 96 * 24
    inside = [n for n in named if ".h." in n or ".layers." in n]
    products = sum(named[n].numel() for n in inside if named[n].dim() == 2)
    assert shape.products == products
    trained = shape.trainable if lora else shape.products
    assert shape.products_trained == trained
