"""Timings that are at least possible, of the real stages; nothing is changed by them."""

import time

import pytest
import torch

from grail.config.file import load_config
from grail.forecast import machine
from grail.forecast.cost import operations, shape_of
from grail.forecast.machine import STEPS, rate_of, speed_of
from grail.forecast.work import Passes, passes_of, workload
from grail.progress import NullListener
from grail.run.context import RunContext
from grail.run.inputs import read_inputs

CPU = torch.device("cpu")


@pytest.fixture
def context(tiny_config, monkeypatch):
    monkeypatch.setattr(machine, "SIDE", 16)
    config = load_config(tiny_config(), [], None)
    return RunContext(config, read_inputs(config), NullListener(silent=True), CPU)


def test_measuring_changes_nothing(context):
    model = context.model.train()
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    rate = rate_of(CPU, torch.float32)
    speed = speed_of(context, shape_of(model), rate)
    assert rate == speed.rate > 0
    assert set(speed.seconds) == set(speed.peaks) == set(STEPS)
    assert all(0 < fastest <= slowest for fastest, slowest in speed.seconds.values())
    assert min(speed.peaks.values()) > shape_of(model).bytes
    assert 0 < speed.share <= 1
    assert model.training
    assert all(p.grad is None for p in model.parameters())
    assert all(torch.equal(p, before[n]) for n, p in model.named_parameters())


def test_a_pace_is_that_of_the_timed_batches(context, monkeypatch):
    """Seconds an operation, from the fastest batch to the slowest; none is timed after ENOUGH."""
    shape = shape_of(context.model)
    works = [workload(context.config, context.rows, [])["vanilla"]] * 3
    count = operations(works[0], shape)
    steps = {"vanilla": lambda _: zip(works, (3.0, 1.0, 2.0), strict=True)}
    monkeypatch.setattr(machine, "STEPS", steps)
    assert speed_of(context, shape, 1.0).seconds == {"vanilla": (1 / count, 3 / count)}
    monkeypatch.setattr(machine, "ENOUGH", 2.5)
    assert speed_of(context, shape, 1.0).seconds == {"vanilla": (3 / count, 3 / count)}


def test_timed_steps_are_those_of_the_stages(context, monkeypatch):
    monkeypatch.setattr(machine, "BATCHES", 100)
    timed = {name: [work for work, _ in steps(context)] for name, steps in STEPS.items()}
    everything = [*context.rows, *context.general]
    assert sum((w.forward for w in timed["evaluate"]), Passes()) == passes_of(everything)
    whole = workload(context.config, context.rows, context.general)
    epochs = context.config.teach.epochs
    assert (
        sum((w.backward for w in timed["vanilla"]), Passes()) * epochs == whole["vanilla"].backward
    )
    assert all(0 < w.generated.batches <= machine.DECODED for w in timed["generate"])
    assert all(w.backward.tokens > 0 for w in (*timed["score"], *timed["unlearn"]))


def test_batches_are_spread(monkeypatch):
    monkeypatch.setattr(machine, "BATCHES", 3)
    assert [*machine._spread(range(9))] == [8, 5, 2]
    assert [*machine._spread(range(2))] == [1, 0]
    assert [*machine._spread([])] == []


def test_time_is_that_of_the_call():
    seconds, result = machine._timed(time.sleep, 0.02)
    assert (0.02 <= seconds < 5, result) == (True, None)
