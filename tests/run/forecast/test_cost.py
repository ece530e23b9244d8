"""A model's numbers and the bytes of its files: against the model, and against real files."""

import re
from pathlib import Path

import pytest
import torch

from grail.config.file import load_config
from grail.config.run import parse_config
from grail.model.forward import trainable
from grail.progress import NullListener
from grail.run.forecast.cost import checkpoint_bytes, file_bytes, hashed_bytes, shape_of
from grail.run.forecast.work import optimizer_steps
from grail.run.inputs import read_inputs
from grail.run.pipeline import STAGES, Run
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
    block = r"^.*?(layers|h)[.][0-9]+[.]"
    blocks = dict[str, int]()
    for name, p in trained.items():
        own = found[0] if (found := re.match(block, name)) else name
        blocks[own] = blocks.get(own, 0) + p.numel()
    wanted = {"tensor": max(p.numel() for p in trained.values()), "block": max(blocks.values())}
    assert shape.layers == wanted | {
        "model": shape.trainable,
        "auto": wanted["tensor" if lora else "block"],
    }


def test_stages_hash_as_much_as_counted(tiny_config, monkeypatch):
    """Sizes of weights, scores and checkpoints that are opened to be hashed, headers left out."""
    section = {"reset": {}, "checkpoint_steps": 2}
    config = load_config(tiny_config(unlearning=section), ["model.lora=null"], None)
    inputs, opened = read_inputs(config), Path.open
    stage, seen = ["start"], dict[tuple[str, str], int]()

    def opening(path, mode="r", *more, **named):
        stream = opened(path, mode, *more, **named)
        checkpoint = path.name in ("weights", "optimizer")
        name = path.name.removesuffix(".partial")
        weights = name.endswith(".safetensors") and not name.startswith(("mask", "surv"))
        if mode == "rb" and (weights or checkpoint):
            length = int.from_bytes(stream.read(8), "little")
            stream.seek(0)
            key = stage[0], "checkpoint" if checkpoint else "files"
            seen[key] = seen.get(key, 0) + path.stat().st_size - 8 - length
        return stream

    for name, do in list(STAGES.items()):

        def told(run, name=name, do=do):
            stage[0] = name
            do(run)

        monkeypatch.setitem(STAGES, name, told)
    monkeypatch.setattr(Path, "open", opening)
    run = Run(config, inputs, NullListener(silent=True))
    run.through("evaluate")
    shape, steps = shape_of(run.context.model), optimizer_steps(config, run.context.rows)
    for name, wanted in hashed_bytes(config, shape).items():
        assert seen.get((name, "files"), 0) == pytest.approx(wanted, rel=0.01), name
    for name, size in checkpoint_bytes(config, shape).items():
        most = size * (steps[name] // 2)  # free entries alone, where half of a tensor is frozen
        assert 0.95 * most <= seen[name, "checkpoint"] <= most
