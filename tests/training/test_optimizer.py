"""Schedules by their identities; what an optimiser must leave alone."""

import itertools
import math

import pytest
import torch
from torch import nn

from grail.config.run import Unlearning
from grail.training import eight_bits
from grail.training.optimizer import (
    ENTRYWISE,
    OPTIMIZERS,
    LoopSettings,
    cycle_progress,
    gradient_norm,
    learning_rate,
    masters_of,
    restarts,
    take_gradients,
    trains_vector,
    write_back,
)

POINTS = [i / 64 for i in range(65)]


def settings(**given):
    return LoopSettings(**({"learning_rate": 0.5, "epochs": 3, "seed": 0} | given))


def test_constant_is_constant():
    assert {learning_rate(settings(), p) for p in POINTS} == {0.5}


@pytest.mark.parametrize("schedule", ["constant", "cosine"])
def test_warm_up_is_linear_from_nothing_and_meets_the_schedule(schedule):
    chosen = settings(schedule=schedule, warmup=0.25)
    for p in POINTS:
        if p <= 0.25:
            assert learning_rate(chosen, p) == pytest.approx(0.5 * p / 0.25)
    assert learning_rate(chosen, 0.0) == 0.0
    assert learning_rate(chosen, 0.25 - 1e-9) == pytest.approx(learning_rate(chosen, 0.25))


@pytest.mark.parametrize("warmup", [0.0, 0.25, 0.5])
def test_cosine_falls_from_the_rate_to_nothing_symmetrically(warmup):
    chosen = settings(schedule="cosine", warmup=warmup)
    rates = [learning_rate(chosen, p) for p in POINTS if p >= warmup]
    assert rates[0] == 0.5
    assert rates[-1] == pytest.approx(0.0, abs=1e-12)
    assert all(a > b for a, b in itertools.pairwise(rates))
    assert all(a + b == pytest.approx(0.5) for a, b in zip(rates, rates[::-1], strict=True))
    middle = (1 + warmup) / 2
    slope = (learning_rate(chosen, middle + 1e-5) - learning_rate(chosen, middle - 1e-5)) / 2e-5
    assert slope == pytest.approx(-0.5 * math.pi / 2 / (1 - warmup), rel=1e-4)


def test_one_cycle_is_the_whole_training():
    chosen = settings(epochs=7)
    assert [cycle_progress(chosen, i / 4) for i in range(28)] == [i / 4 / 7 for i in range(28)]
    assert [restarts(chosen, epoch) for epoch in range(7)] == [True] + [False] * 6


@pytest.mark.parametrize("cycles", [1, 2, 3, 7, 49, 98])
@pytest.mark.parametrize("length", [1, 2, 5, 8])
def test_every_cycle_is_a_training_of_its_own(cycles, length):
    """Same rates and one restart in each, whatever the numbers round to."""
    given = {"schedule": "cosine", "warmup": 0.25, "seed": 0, "learning_rate": 0.5}
    alone = LoopSettings(epochs=length, **given)
    chosen = LoopSettings(epochs=length * cycles, cycles=cycles, **given)

    def rates(which, epochs):
        return [learning_rate(which, cycle_progress(which, e + i / 8))
                for e in epochs for i in range(8)]  # fmt: skip

    expected = rates(alone, range(length))
    assert expected[0] == 0.0  # the warm-up
    for cycle in range(cycles):
        assert rates(chosen, range(cycle * length, (cycle + 1) * length)) == expected
    begins = [epoch for epoch in range(length * cycles) if restarts(chosen, epoch)]
    assert begins == list(range(0, length * cycles, length))


def special(dtype):
    values = [-0.0, 0.0, 1.5, -2.5, math.inf, -math.inf, math.nan, 1e-38, -1e-38, 1.0]
    return nn.Parameter(torch.tensor(values, dtype=dtype))


@pytest.mark.parametrize("name", sorted(OPTIMIZERS))  # adamw8bit: tensors this small are in 32
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_optimiser_moves_an_entry_whose_gradients_were_always_zero(name, dtype):
    p = special(dtype)
    p.data[4:7] = 0.5  # -0.0 stays; what is not finite would spoil Adafactor's own step size
    bits = {torch.float32: torch.int32}.get(dtype, torch.int16)
    before = p.detach().clone().view(bits)
    optimizer = OPTIMIZERS[name]([p], settings(weight_decay=0.1))
    for rate in (0.0, 0.1, 0.2):
        optimizer.param_groups[0]["lr"] = rate
        p.grad = torch.zeros_like(p)
        p.grad[-1] = 1.0
        optimizer.step()
    assert torch.equal(p.detach().view(bits)[:-1], before[:-1])
    assert float(p[-1].detach()) < 1.0


def test_settings_offer_the_optimisers_there_are():
    offered = Unlearning.model_fields["optimizer"].annotation.__args__
    assert set(offered) == set(OPTIMIZERS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_small_steps_add_up_in_16_bits_as_in_32(name, dtype):
    """A tenth of what the type can show at each step; all of them show in the end."""
    chosen = settings(learning_rate=1e-4, momentum=0.0)
    start = torch.full((4, 3), 1.0)
    narrow, wide = ({"w": nn.Parameter(start.clone().to(t))} for t in (dtype, torch.float32))
    optimizers = []
    for parameters in (narrow, wide):
        masters = masters_of(parameters)
        optimizers.append((parameters, masters, OPTIMIZERS[name](list(masters.values()), chosen)))
    for _ in range(200):
        for parameters, masters, optimizer in optimizers:
            parameters["w"].grad = torch.ones_like(parameters["w"])
            masters["w"].grad = take_gradients(parameters, masters)["w"]
            optimizer.step()
            write_back(masters, parameters)
    assert torch.equal(narrow["w"], wide["w"].to(dtype))
    assert float(wide["w"].detach().max()) < 0.985
    alone = nn.Parameter(start.to(dtype))  # negative control: the optimiser on the weight itself
    optimizer = OPTIMIZERS[name]([alone], chosen)
    for _ in range(200):
        alone.grad = torch.ones_like(alone)
        optimizer.step()
    assert torch.equal(alone, start.to(dtype))


def test_parameters_of_32_bits_or_more_are_their_own_masters():
    given = {str(t): nn.Parameter(torch.ones(2, dtype=t)) for t in (torch.float32, torch.float64)}
    given["half"] = nn.Parameter(torch.ones(2, dtype=torch.float16))
    masters = masters_of(given)
    assert [masters[name] is p for name, p in given.items()] == [True, True, False]
    given["half"].grad = torch.ones_like(given["half"])
    taken = take_gradients(given, masters)
    assert {n: g.dtype for n, g in taken.items()} == {n: p.dtype for n, p in masters.items()}
    assert [g.sum().item() for g in taken.values()] == [0, 0, 2]
    assert all(p.grad is None for p in given.values())


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_an_optimiser_is_entrywise_if_it_moves_a_part_of_a_tensor_as_it_moves_the_whole(
    name, monkeypatch
):
    monkeypatch.setattr(eight_bits, "SMALLEST", 1)
    generator = torch.Generator().manual_seed(0)
    start, free = torch.randn(33, 70, generator=generator), torch.zeros(33, 70, dtype=torch.bool)
    free[1:19, 2:25] = True
    whole, part = nn.Parameter(start.clone()), nn.Parameter(start[free])
    optimizers = [OPTIMIZERS[name]([p], settings()) for p in (whole, part)]
    for _ in range(5):
        gradient = torch.randn(33, 70, generator=generator)
        whole.grad, part.grad = gradient.masked_fill(~free, 0.0), gradient[free]
        for optimizer in optimizers:
            optimizer.step()
    assert torch.equal(whole[free], part) == (name in ENTRYWISE)


def test_which_tensors_are_trained_as_vectors():
    shares, worth = (0.0, 1e-6, 0.499, 0.5, 1.0), (False, False, False, True, True)
    wanted = {"adamw": worth, "sgd": worth, "adafactor": (False,) * 5, "": (False,) * 5}
    wanted["adamw8bit"] = (False, True, True, True, True)
    assert set(wanted) == {*OPTIMIZERS, ""}
    for name, expected in wanted.items():
        assert tuple(trains_vector(name, share) for share in shares) == expected


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_a_master_of_free_entries_goes_there_and_back(dtype):
    generator = torch.Generator().manual_seed(0)
    parameters = {
        n: nn.Parameter(torch.randn(s, generator=generator).to(dtype))
        for n, s in {"a": (31, 5), "b": (4,), "c": (3, 3)}.items()
    }
    parameters["a"].data.view(-1)[::3] = -0.0
    frozen = {"a": torch.rand(31, 5, generator=generator) < 0.8, "c": torch.ones(3, 3).bool()}
    before = {n: p.detach().clone() for n, p in parameters.items()}
    masters = masters_of(parameters, frozen)
    assert [m.numel() for m in masters.values()] == [int((~frozen["a"]).sum()), 4, 0]
    wide = torch.promote_types(dtype, torch.float32)
    assert {m.dtype for m in masters.values()} == {wide}
    whole = {n: nn.Parameter(p.detach().to(wide)) for n, p in parameters.items()}
    for name, parameter in parameters.items():
        parameter.grad = torch.randn(parameter.shape, generator=generator).to(dtype)
        hidden = frozen.get(name, torch.zeros(parameter.shape).bool())
        whole[name].grad = parameter.grad.to(wide).masked_fill(hidden, 0.0)
    for name, gradient in take_gradients(parameters, masters, frozen).items():
        masters[name].grad = gradient
    norms = (
        gradient_norm(masters, frozen),
        nn.utils.get_total_norm([p.grad for p in whole.values()]),
    )
    assert torch.equal(*norms)
    with torch.no_grad():
        for master in masters.values():
            master.add_(1)
    write_back(masters, parameters, frozen)
    for name, parameter in parameters.items():
        hidden = frozen.get(name, torch.zeros(parameter.shape).bool())
        expected = torch.where(hidden, before[name], (before[name].to(wide) + 1).to(dtype))
        assert torch.equal(parameter, expected)
        assert torch.equal(torch.signbit(parameter), torch.signbit(expected))
