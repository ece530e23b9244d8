"""A model's numbers and the bytes of its files: against the model, and against real files."""

import pytest
import torch

from grail.config.run import parse_config
from grail.model.forward import trainable
from grail.run.forecast.cost import checkpoint_bytes, file_bytes, shape_of
from grail.training.checkpoint import State, save_checkpoint
from grail.training.optimizer import OPTIMIZERS, LoopSettings, masters_of


def make_config(**sections):
    side = {"train": "x.jsonl"}
    domains = {name: {"unlearn": side, "retain": side} for name in "ab"}
    return parse_config({"domains": domains, "output": "o", **sections})


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
    sizes = checkpoint_bytes(config, shape_of(model))
    assert sizes["unlearn"] == payload(*files)
    if (name, rectify) == ("adamw", False):
        assert sizes["vanilla"] == sizes["unlearn"]
    assert checkpoint_bytes(make_config(teach=None), shape_of(model))["vanilla"] == 0


def test_a_checkpoint_of_moments_in_8_bits_is_as_large_as_planned(tmp_path, payload):
    model = torch.nn.ModuleList([torch.nn.Linear(100, 100), torch.nn.Linear(300, 20, bias=False)])
    parameters = trainable(model)
    optimizer = OPTIMIZERS["adamw8bit"](list(parameters.values()), LoopSettings(1e-3, 1, 0))
    for parameter in parameters.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    save_checkpoint(tmp_path / "c", parameters, optimizer, State(), "x")
    files = [file for file in (tmp_path / "c").iterdir() if file.suffix != ".json"]
    config = make_config(teach=True, unlearning={"optimizer": "adamw8bit"})
    assert checkpoint_bytes(config, shape_of(model))["unlearn"] == payload(*files)


def test_a_reset_writes_one_more_mask(tiny_model):
    shape = shape_of(tiny_model())
    plain, reset = (file_bytes(make_config(unlearning=u), shape) for u in ({}, {"reset": {}}))
    assert reset == plain | {"reset": plain["localize"]}


@pytest.mark.parametrize("family", ["llama", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("lora", [True, False])
def test_the_numbers_of_a_model(tiny_model, family, lora):
    model = tiny_model(family, lora=lora)
    shape, trained = shape_of(model), trainable(model)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    assert shape.bytes == 4 * shape.parameters
    assert shape.tensors == tuple(tuple(p.shape) for p in trained.values())
    assert shape.trainable == sum(p.numel() for p in trained.values())
    assert shape.master_bytes == shape.trainable_bytes == 4 * shape.trainable
    assert (shape.trainable < shape.parameters) == lora
