"""Edges of grids: the least and the greatest value, and the next by the grid's own factor."""

import pytest

from grail.comparison.grids import beyond, edges
from grail.comparison.rows import cross


@pytest.mark.parametrize(
    ("values", "best", "following"),
    [
        ([1e-3, 2e-3], 2e-3, [4e-3]),
        ([2e-3, 1e-3], 1e-3, [5e-4]),
        ([1e-3, 2e-3, 4e-3], 2e-3, []),
        ([1, 3, 9], 9, [27]),
        ([2, 3], 3, [5]),  # whole numbers go outwards
        ([2, 4], 2, [1]),
        ([1, 2], 1, []),  # no whole number is left below
        ([0.0, 0.1], 0.0, []),
        (["a", "b"], "b", []),
        ([True, False], True, []),
        ([3], 3, []),
    ],
)
def test_the_next_point_of_one_axis(values, best, following):
    assert beyond(cross({"k": values}), {"k": best}) == [{"k": value} for value in following]


def test_edges_are_those_of_the_line_through_the_best():
    points = cross({"a": [1.0, 2.0, 4.0], "b": [10, 100], "c": ["x"]})
    best = {"a": 2.0, "b": 100, "c": "x"}
    assert edges(points, best) == ["b"]
    assert beyond(points, best) == [best | {"b": 1000}]
    wider = [*points, best | {"b": 1000}]
    assert edges(wider, best) == []
    assert edges(wider, {"a": 4.0, "b": 100, "c": "x"}) == ["a", "b"]  # its own line is not wider


def test_where_only_zero_is_below_it_stays_an_edge():
    assert edges(cross({"k": [0.0, 0.1]}), {"k": 0.0}) == ["k"]
