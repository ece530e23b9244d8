"""Descent that leaves no trace, and the curve it draws."""

import pytest
import torch

from grail.audit.attacks.relearn import Descent, RelearnTask, area, relearn
from grail.model.forward import trainable
from grail.training.accelerator import make_accelerator
from grail.training.descent import DescentTask


def copy_of(model):
    return {name: p.detach().clone() for name, p in trainable(model).items()}


def run(model, rows, points, seed=0, rate=0.05):
    how = Descent(rate, 2, points, seed, pad=0)
    return relearn(model, rows, how, make_accelerator(), lambda steps: (steps, copy_of(model)))


@pytest.mark.parametrize("lora", [True, False])
def test_the_model_is_as_before_to_the_bit(tiny_model, tiny_rows, lora):
    model = tiny_model(lora=lora).eval()
    before, places = copy_of(model), [p.data_ptr() for p in model.parameters()]
    (first, one), (second, two) = run(model, tiny_rows(5), (1, 3))
    assert (first, second) == (1, 3)
    for name, value in copy_of(model).items():
        assert torch.equal(value, before[name])
    assert places == [p.data_ptr() for p in model.parameters()]
    assert all(p.grad is None for p in model.parameters())
    assert not model.training
    moved = [n for n in before if not torch.equal(before[n], one[n])]
    further = [n for n in before if not torch.equal(one[n], two[n])]
    assert moved
    assert further


def test_a_point_on_the_way_is_the_end_of_a_shorter_attack(tiny_model, tiny_rows):
    model = tiny_model()
    rows = tiny_rows(5)
    long, short = run(model, rows, (2, 4)), run(model, rows, (2,))
    again = run(model, rows, (1, 2, 4))
    assert all(torch.equal(long[0][1][n], short[0][1][n]) for n in long[0][1])
    assert all(torch.equal(long[1][1][n], again[2][1][n]) for n in long[0][1])


def test_another_seed_is_another_attack(tiny_model, tiny_rows):
    model, rows = tiny_model(), tiny_rows(5)
    one, other = run(model, rows, (1,), seed=0), run(model, rows, (1,), seed=1)
    assert any(not torch.equal(one[0][1][n], other[0][1][n]) for n in one[0][1])


@pytest.mark.parametrize(("steps", "size"), [(1, 4), (3, 2), (7, 2), (5, 9)])
def test_exactly_so_many_steps_and_every_row_before_any_again(tiny_rows, steps, size):
    rows = tiny_rows(5)
    task = RelearnTask(DescentTask(torch.nn.Module(), tuple(rows), 0, batch_size=size), steps)
    task.saw(0, {row.key: 1.0 for row in rows})
    plan = task.plan(0)
    assert len(plan) == steps
    seen = [row.key for step in plan for row in step]
    for first in range(0, len(seen) - 4, 5):
        assert len(set(seen[first : first + 5])) == 5


def test_area_by_hand():
    assert area({0: 10.0, 5: 20.0, 10: 40.0}) == pytest.approx((5 * 15 + 5 * 30) / 10)
    assert area({2: 7.0, 9: 7.0, 0: 7.0}) == pytest.approx(7.0)
