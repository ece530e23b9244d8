"""What a stage holds is counted as its tensors are: those of a real optimiser, loop and choice."""

import gc
import os
import subprocess
import sys
from functools import partial

import pytest
import torch

from grail.artifacts import Mask, Scores
from grail.config.localization import Localization
from grail.config.run import parse_config
from grail.localization import localizers
from grail.model.forward import trainable
from grail.run.forecast.cost import shape_of
from grail.run.forecast.holds import set_bytes, state_bytes, trainings
from grail.training import eight_bits
from grail.training.accelerator import make_accelerator
from grail.training.freezing import Freezing
from grail.training.loop import Loop, LoopFiles
from grail.training.optimizer import (
    OPTIMIZERS,
    LoopSettings,
    masters_of,
    take_gradients,
    trains_vector,
)
from grail.training.task import History, StepResult

SIDE = {"train": "x.jsonl"}


def make_config(domains="ab", **sections):
    given = {name: {"unlearn": SIDE, "retain": SIDE} for name in domains}
    whole = {"model": {"lora": None}, "preset": "grail"}
    return parse_config({"domains": given, "output": "o", **whole, **sections})


def storages(kind):
    """Bytes of all tensors of a type that are alive, each storage once."""
    tensors = [t for t in gc.get_objects() if issubclass(type(t), torch.Tensor)]
    tensors = [t for t in tensors if t.dtype == kind]
    found = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(found.values())


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


class Opposed:
    """A task whose loss is the sum of all weights, by side where ``split``: then up and down."""

    def __init__(self, parameters, rows, split):
        self.parameters, self.rows, self.split, self.history = parameters, rows, split, History()

    def plan(self, epoch):
        return [self.rows]

    def groups(self, rows):
        return [("unlearn", rows[:1]), ("retain", rows[1:])] if self.split else [("", rows)]

    def run(self, rows, step):
        sign = -1 if len(rows) == 1 and self.split and rows[0] is self.rows[0] else 1
        return StepResult(sign * sum(p.sum() for p in self.parameters.values()), {}, {})


@pytest.mark.parametrize("frozen", [0.0, 0.875])
@pytest.mark.parametrize("sides", ["", "by_side", "rectify", "by_side and rectify"])
def test_gradients_are_as_many_as_the_loop_holds(tiny_model, tiny_rows, tmp_path, frozen, sides):
    """Counted whenever gradients have been masked, and when those of all sides are one."""
    model, by_side, rectify = tiny_model(lora=False), "by_side" in sides, "rectify" in sides
    parameters, seen = trainable(model), []
    bits = {
        n: (torch.arange(p.numel()) % 8 < 8 * frozen).reshape(p.shape)
        for n, p in parameters.items()
    }
    mask = Mask(bits, *([dict(bits), dict(bits)] if by_side else []))
    settings = LoopSettings(1e-3, 1, 0, rectify=rectify)
    task = Opposed(parameters, tiny_rows(2), by_side or rectify)
    loop = Loop(parameters, task, mask, settings, make_accelerator())
    gc.collect()
    before = storages(torch.float32)

    def count(frame, event, _):
        if event == "return" and frame.f_code.co_name in ("masked", "_combined"):
            seen.append(storages(torch.float32) - before)

    sys.setprofile(count)
    try:
        loop.run(LoopFiles(tmp_path / "log", tmp_path / "checkpoint", ""))
    finally:
        sys.setprofile(None)
    vectors = frozen >= 0.5
    _, gradients = state_bytes(shape_of(model), "adamw", frozen, by_side, rectify)
    direction = rectify * gradients / (4 if vectors and not by_side else 5)
    assert max(seen) == pytest.approx(gradients + direction, rel=0.02)


@pytest.mark.parametrize("domains", ["ab", "abc"])
@pytest.mark.parametrize("statistic", ["mean_abs", "z_mean"])
def test_sets_are_what_the_choice_holds(tiny_model, monkeypatch, domains, statistic):
    """A byte for each entry of every set that is alive when the mask is made."""
    model = tiny_model(lora=False)
    mean = {name: torch.randn_like(p) for name, p in trainable(model).items()}
    scores = Scores({n: v.abs() for n, v in mean.items()}, mean, mean, 1)
    sides = {(d, side): scores for d in domains for side in ("unlearn", "retain")}
    settings, seen = Localization(statistic=statistic, layer="tensor"), []
    gc.collect()
    before = storages(torch.bool)

    def making(*arguments, **named):
        seen.append(storages(torch.bool) - before)
        return Mask(*arguments, **named)

    monkeypatch.setattr(localizers, "Mask", making)
    localizers.make_mask(sides, settings, 0, dict)
    shape = shape_of(model)
    config = make_config(domains, localization={"statistic": statistic, "layer": "tensor"})
    whole = 4 * shape.trainable * (statistic == "z_mean")
    largest = max(v.numel() for v in mean.values())
    ranking = (4 + 16 + 0.2 * 12) * largest
    assert set_bytes(config, shape) == pytest.approx(seen[0] + whole + ranking, abs=2)


def test_what_a_choice_needs_beside_the_sets(tiny_model):
    shape = shape_of(tiny_model(lora=False))

    def counted(**section):
        return set_bytes(make_config(localization=section), shape)

    sets = 13 * shape.trainable
    assert shape.layers["tensor"] < shape.layers["block"] < shape.layers["model"] == shape.trainable
    per_entry = {
        layer: (counted(layer=layer) - sets) / size for layer, size in shape.layers.items()
    }
    assert list(per_entry.values()) == pytest.approx([22.4] * 4, rel=1e-3)
    assert counted(method="magnitude") - counted() == shape.trainable_bytes
    assert counted(method="memflex") == max(counted(), 16 * shape.trainable)
    more = make_config("abcde", localization={"layer": "tensor"})
    assert set_bytes(more, shape) - counted(layer="tensor") == 3 * 4 * shape.trainable


RANKING = """
import torch
from grail.localization.select import top
def line(key):
    lines = open("/proc/self/status").read().splitlines()
    return next(int(text.split()[1]) * 1024 for text in lines if text.startswith(key))
scores = torch.randn(4_000_000).abs()
top(scores[:1000], 10)
for share in (0.1, 0.2):
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the peak is now's
    before = line("VmRSS")
    top(scores, int(share * len(scores)))
    print((line("VmHWM") - before) / len(scores))
"""


@pytest.mark.skipif(not os.path.exists("/proc/self/clear_refs"), reason="Linux resets the peak")
def test_what_torch_sorts_is_as_large_as_counted():
    """In a process that gives freed blocks back: 16 bytes an entry, and 12 a chosen one."""
    given = os.environ | {"MALLOC_MMAP_THRESHOLD_": "65536", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RANKING]
    out = subprocess.run(command, env=given, capture_output=True, text=True, check=True).stdout
    assert [float(line) for line in out.split()] == pytest.approx([17.2, 18.4], rel=0.05)


def test_trainings_follow_the_settings(tiny_model):
    shape = shape_of(tiny_model(lora=False))
    weights, entries = shape.trainable_bytes, shape.trainable

    def unlearn(frozen=0.0, **section):
        config = make_config(unlearning={"batch_size": 8, **section})
        return trainings(config, shape, frozen)["unlearn"]

    plain = unlearn(objective="ascent_descent")
    assert (plain.state, plain.marks, plain.start) == (2 * weights, entries, weights)
    assert (plain.reference, plain.teacher, plain.earlier) == (0, 0, 0)
    assert plain.gradients == 2 * weights, "those of the pass, and masked copies"
    assert plain.kept == 2 * weights + entries
    assert unlearn(0.75, objective="ascent_descent").state == pytest.approx(3 * weights / 4)
    assert unlearn(objective="npo").reference == weights
    again = unlearn(objective="ascent_descent", accumulation=4)
    assert (again.earlier, again.rows) == (weights, -(-plain.rows // 4))
    rectified = unlearn(objective="ascent_descent", rectify=True)
    assert (rectified.state, rectified.earlier) == (3 * weights, weights)
    taught = trainings(make_config(teach=True), shape, 0.0)["vanilla"]
    assert (taught.state, taught.gradients) == (2 * weights, weights)
    assert (taught.marks, taught.start) == (0, 0), "the teaching has no mask"
    assert "vanilla" not in trainings(make_config(teach=None), shape, 0.0)
