"""The weight that keeps as much as wished, on curves whose answer is known."""

import math

import pytest
import torch

from grail.evaluation.equal_retention import MOST, TOLERANCE, between, weight_at


class Curve:
    def __init__(self, function):
        self.function, self.asked = function, []

    def __call__(self, weight):
        assert 0 <= weight <= 1
        self.asked.append(weight)
        return self.function(weight)


def test_a_model_that_keeps_enough_stays_as_it_is():
    curve = Curve(lambda w: 100 - 3 * w)
    assert weight_at(97.0, curve) == (1.0, 97.0)
    assert curve.asked == [1.0]


def test_where_not_even_the_vanilla_model_keeps_enough_nothing_is_left_of_the_change():
    assert weight_at(99.0, Curve(lambda w: 98 - 20 * w)) == (0.0, 98.0)


@pytest.mark.parametrize("target", [60.0, 75.0, 90.0, 97.0])
@pytest.mark.parametrize("power", [0.5, 1, 2, 4])
def test_the_found_model_keeps_the_target_and_no_more_than_the_tolerance(target, power):
    curve = Curve(lambda w: 100 - 60 * w**power)
    found, kept = weight_at(target, curve)
    assert kept == curve.function(found)
    assert 0 <= kept - target <= TOLERANCE <= 0.25
    assert found == max(w for w in curve.asked if curve.function(w) >= target)
    assert len(curve.asked) <= MOST


@pytest.mark.parametrize("edge", [0.01, 0.2, 0.6, 0.95])
@pytest.mark.parametrize("fall", [math.inf, 900.0])
def test_a_curve_that_is_level_and_then_falls_is_followed_to_its_edge(edge, fall):
    curve = Curve(lambda w: 99.0 if w <= edge else max(0.0, 99.0 - fall * (w - edge)))
    found, kept = weight_at(95.0, curve)
    true = edge + 4.0 / fall
    assert true - 2 ** -(MOST - 2) < found <= true or kept - 95.0 <= TOLERANCE
    assert kept >= 95.0
    assert len(curve.asked) <= MOST


def test_the_ends_of_the_way_are_exact():
    draw = torch.Generator().manual_seed(0)
    start, end = ({"w": torch.randn(50, generator=draw)} for _ in range(2))
    assert torch.equal(between(start, end, 1.0)["w"], end["w"])
    assert torch.equal(between(start, end, 0.0)["w"], start["w"])
    torch.testing.assert_close(between(start, end, 0.3)["w"], 0.7 * start["w"] + 0.3 * end["w"])
