"""The weight that keeps as much as wished, on curves whose answer is known."""

import pytest
import torch
from torch import nn

from grail.evaluation.calibration import MOST, TOLERANCE, Way, weight_at


class Curve:
    def __init__(self, function):
        self.function, self.asked = function, []

    def __call__(self, weight):
        assert 0 <= weight <= 1
        self.asked.append(weight)
        return self.function(weight)


def test_a_model_that_keeps_enough_stays_as_it_is():
    curve = Curve(lambda w: 100 - 3 * w)
    assert weight_at(97.0, curve) == 1.0
    assert curve.asked == [1.0]


def test_where_not_even_the_vanilla_model_keeps_enough_nothing_is_left_of_the_change():
    assert weight_at(99.0, Curve(lambda w: 98 - 20 * w)) == 0.0


@pytest.mark.parametrize("target", [60.0, 75.0, 90.0, 97.0])
@pytest.mark.parametrize("power", [0.5, 1, 2, 4])
def test_the_found_model_keeps_the_target_and_little_more(target, power):
    curve = Curve(lambda w: 100 - 60 * w**power)
    found = weight_at(target, curve)
    assert curve(found) >= target
    better = [w for w in curve.asked if curve.function(w) >= target]
    assert found == max(better)
    assert len(curve.asked) - 1 <= MOST
    if power >= 1:
        assert curve.function(found) - target <= 8 * TOLERANCE


def test_a_step_in_the_curve_does_not_trap_the_search():
    curve = Curve(lambda w: 99.0 if w <= 0.6 else 40.0)
    found = weight_at(95.0, curve)
    assert 0.3 < found <= 0.6


def test_the_ends_of_the_way_are_exact():
    draw = torch.Generator().manual_seed(0)
    start, end = ({"w": torch.randn(50, generator=draw)} for _ in range(2))
    parameter = nn.Parameter(torch.zeros(50))
    way = Way({"w": parameter}, start, end)
    way.put(1.0)
    assert torch.equal(parameter, end["w"])
    way.put(0.0)
    assert torch.equal(parameter, start["w"])
    way.put(0.3)
    torch.testing.assert_close(parameter.data, 0.7 * start["w"] + 0.3 * end["w"])
