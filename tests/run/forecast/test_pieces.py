"""Pieces are the real work on a part of the model's tensors, which they leave as they are."""

import time

import pytest
import torch

from grail.config.run import parse_config
from grail.localization.localizers import LOCALIZERS
from grail.model.forward import trainable
from grail.run.forecast import pieces
from grail.training.optimizer import OPTIMIZERS

SIDE = {"train": "x.jsonl"}


def make_config(**sections):
    domains = {name: {"unlearn": SIDE, "retain": SIDE} for name in "ab"}
    return parse_config({"domains": domains, "output": "o", "preset": "grail", **sections})


def timed(call, *arguments):
    began = time.perf_counter()
    result = call(*arguments)
    return time.perf_counter() - began, result


def size(model):
    return sum(p.numel() for p in trainable(model).values())


class Spy:
    """Calls, and remembers, what is timed."""

    def __init__(self):
        self.made = []

    def __call__(self, call, *arguments):
        seconds, result = timed(call, *arguments)
        self.made.append(result)
        return seconds, result


@pytest.mark.parametrize("method", [*LOCALIZERS, "mine:localizer"])
def test_a_mask_of_a_part_of_the_tensors_is_made(tiny_model, monkeypatch, method):
    model, spy = tiny_model(lora=False), Spy()
    config = make_config(localization={"method": method})
    whole = list(pieces.choosing(model, config, spy))
    shapes = {name: p.shape for name, p in trainable(model).items()}
    assert [{n: m.shape for n, m in made.frozen.items()} for made, _ in spy.made] == 2 * [shapes]
    about = {about["localizer"] for _, about in spy.made}
    assert about == {method if method in LOCALIZERS else "grail"}
    assert [entries for entries, _ in whole] == 2 * [size(model)]
    assert all(seconds > 0 for _, seconds in whole)
    monkeypatch.setattr(pieces, "CHOSEN", 1000)
    (few, _), _ = pieces.choosing(model, config, timed)
    assert few < 1000 + 100, "a row is not cut"


def test_a_mask_that_would_be_reused_is_chosen_anew(tiny_model, tmp_path):
    spy = Spy()
    config = make_config(localization={"from": str(tmp_path)})
    list(pieces.choosing(tiny_model(), config, spy))
    assert {about["localizer"] for _, about in spy.made} == {"grail"}


@pytest.mark.parametrize("keep", ["frozen", "damage", "magnitude", "random"])
def test_survivors_of_a_part_are_chosen(tiny_model, keep):
    model, spy = tiny_model(lora=False), Spy()
    reset = {"keep": keep, "share": 0.75}
    found = list(pieces.surviving(model, make_config(unlearning={"reset": reset}), spy))
    entries = size(model)
    assert [n for n, _ in found] == [entries, entries]
    kept = [made.counts()["frozen"] for made in spy.made]
    assert kept == [0, 0] if keep == "frozen" else kept == pytest.approx([entries / 4] * 2, rel=0.1)
    assert list(pieces.surviving(model, make_config(), timed)) == []


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_an_optimiser_steps_on_copies(tiny_model, monkeypatch, name, dtype):
    model = tiny_model(lora=False).to(dtype)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    config = make_config(unlearning={"optimizer": name})
    found = list(pieces.stepping(model, config, timed))
    assert [entries for entries, _ in found] == 3 * [size(model)]
    assert all(seconds > 0 for _, seconds in found)
    assert all(torch.equal(p, before[n]) and p.grad is None for n, p in model.named_parameters())
    monkeypatch.setattr(pieces, "STEPPED", 500)
    assert next(iter(pieces.stepping(model, config, timed)))[0] < 500 + 100, "a row is not cut"


def test_a_step_that_is_timed_is_adamw_s(tiny_model, monkeypatch):
    """Gradients of 1e-3, clipped: AdamW moves every entry by its rate in the first step."""
    moved = []
    config = make_config(unlearning={"learning_rate": 0.5, "weight_decay": 0})

    def masters(parameters, frozen):
        moved.append((parameters, {n: p.detach().clone() for n, p in parameters.items()}))
        return dict(parameters)

    monkeypatch.setattr(pieces, "masters_of", masters)
    next(iter(pieces.stepping(tiny_model(lora=False), config, timed)))
    ((after, before),) = moved
    for name, value in before.items():
        assert torch.allclose(value - after[name], torch.tensor(0.5), rtol=1e-2), name


def test_a_tensor_is_cut_after_some_of_its_rows(tiny_model):
    model = tiny_model(lora=False)
    first, *_ = trainable(model).items()
    row = first[1][0].numel()
    part = pieces._first(model, 3 * row + 1)
    assert {n: tuple(p.shape) for n, p in part.items()} == {
        first[0]: (3, row),
        [*trainable(model)][1]: (1, *[*trainable(model).values()][1].shape[1:]),
    }
    whole = pieces._first(model, 10**9)
    assert {n: p.shape for n, p in whole.items()} == {
        n: p.shape for n, p in trainable(model).items()
    }


def test_bytes_are_hashed():
    found = list(pieces.hashing(timed))
    assert [size for size, _ in found] == 2 * [pieces.HASHED]
    assert all(seconds > 0 for _, seconds in found)
