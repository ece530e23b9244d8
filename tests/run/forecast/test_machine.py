"""Timings that are at least possible, of the real work; nothing is changed by them."""

import time
from pathlib import Path

import pytest
import torch

from grail.config.file import load_config
from grail.progress import NullListener
from grail.run.context import RunContext
from grail.run.forecast import machine
from grail.run.forecast.cost import shape_of
from grail.run.forecast.machine import STEPS, measure, pace_of
from grail.run.forecast.work import step_costs, tokens_of, workload
from grail.run.inputs import read_inputs


@pytest.fixture
def config(tiny_config):
    return load_config(tiny_config(), [], None)


def test_measuring_changes_nothing(config):
    timing = measure(config, read_inputs(config), NullListener(silent=True))
    model, device = timing.context.model, torch.device("cpu")
    fresh = RunContext(config, read_inputs(config), NullListener(silent=True), device).model
    assert timing.shape == shape_of(model)
    assert set(timing.paces) == set(timing.peaks) == set(STEPS)
    assert all(0 < fastest <= slowest for fastest, slowest in timing.paces.values())
    assert list(timing.peaks.values()) == sorted(timing.peaks.values()), "a process keeps its peak"
    assert min(*timing.peaks.values(), timing.loaded) > timing.shape.bytes
    assert all(p.grad is None for p in model.parameters())
    values = {n: p.cpu() for n, p in model.named_parameters()}
    assert all(torch.equal(p, values[n]) for n, p in fresh.named_parameters())


def test_a_pace_is_that_of_the_timed_batches(monkeypatch):
    """Seconds a token, from the fastest batch to the slowest; none is timed after ENOUGH."""
    steps = [(10, 3.0), (5, 1.0), (20, 2.0)]
    assert pace_of(iter(steps)) == (0.1, 0.3)
    monkeypatch.setattr(machine, "ENOUGH", 2.5)
    assert pace_of(iter(steps)) == (0.3, 0.3)


@pytest.mark.parametrize("objective", ["ascent_descent", "npo"])
def test_timed_steps_are_those_of_the_stages(tiny_config, monkeypatch, objective):
    monkeypatch.setattr(machine, "BATCHES", 100)
    config = load_config(tiny_config(unlearning={"objective": objective}), [], None)
    silent, cpu = NullListener(silent=True), torch.device("cpu")
    context = RunContext(config, read_inputs(config), silent, cpu)
    timed = {kind: [tokens for tokens, _ in steps(context)] for kind, steps in STEPS.items()}
    whole = workload(config, context.rows, context.general)
    assert sum(timed["read"]) == tokens_of([*context.rows, *context.general])
    train = [r for r in context.rows if r.part == "train"]
    costs = step_costs(config.unlearning)
    epoch = sum(costs[row.side] * len(row.ids) for row in train)
    taught = whole["vanilla"]["train"] / config.teach.epochs
    assert sum(timed["train"]) == pytest.approx(epoch + taught)
    assert costs["unlearn"] == (1 if objective == "ascent_descent" else pytest.approx(4 / 3))
    prompts = sum(row.start for row in context.rows)
    assert prompts < sum(timed["write"]) <= prompts + machine.DECODED * len(context.rows)
    assert all(tokens > 0 for tokens in timed["score"])


def test_batches_are_spread(monkeypatch):
    monkeypatch.setattr(machine, "BATCHES", 3)
    assert [*machine._spread(range(9))] == [8, 5, 2]
    assert [*machine._spread(range(2))] == [1, 0]
    assert [*machine._spread([])] == []


def test_time_is_that_of_the_call():
    seconds, result = machine._timed(time.sleep, 0.02)
    assert (0.02 <= seconds < 5, result) == (True, None)


def test_a_rate_is_timed_once_for_settings(config):
    timing, calls = measure(config, read_inputs(config), NullListener(silent=True)), []

    def piece(model, given, timed):
        calls.append((model, given))
        yield 10, timed(time.sleep, 0.01)[0]

    first = timing.rate(piece, config, config.localization)
    assert first == timing.rate(piece, config, config.localization)
    assert first[0] == pytest.approx(0.001, rel=2)
    assert calls == [(timing.context.model, config)]
    timing.rate(piece, config, config.unlearning)
    assert len(calls) == 2
    assert 0 < timing.hashing[0] <= timing.hashing[1] < 1e-6


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="Linux tells it")
def test_the_peak_is_this_process_s_own():
    """getrusage would tell that of the process which started this one."""
    pages = torch.ones(50 * 2**20)
    held = machine.peak_memory(torch.device("cpu"))
    assert held > pages.nbytes
    lines = Path("/proc/self/status").read_text().splitlines()
    said = {line.split(":")[0]: line.split()[1] for line in lines if line.endswith("kB")}
    assert held <= int(said["VmHWM"]) * 1024
