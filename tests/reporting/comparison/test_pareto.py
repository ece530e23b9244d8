"""Points, frontier and places, recomputed."""

from hypothesis import given
from hypothesis import strategies as st

from grail.reporting.charts import LEFT, RIGHT, TOP
from grail.reporting.comparison.pareto import frontier, pareto, pareto_table, points_of


def numbers(us, rs):
    return {f"{d}.{m}": {"mean": v} for d in "ab" for m, v in (("US", us), ("RS", rs))}


def found(**methods):
    return {
        "settings": {"domains": {"a": {}, "b": {}}},
        "vanilla": {"val": numbers(2.0, 98.0)},
        "methods": [{"method": name, "val": of} for name, of in methods.items()],
        "cells": [
            {"method": "exact", "overrides": {"unlearning.objective": "exact"}},
            {"method": "lost", "failed": "x"},
        ],
    }


def test_points_are_means_over_domains_and_the_oracle_is_marked():
    mixed = {**numbers(80.0, 60.0), "b.US": {"mean": 90.0}}
    case = found(one=mixed, exact=numbers(50.0, 97.0), lost={})
    assert points_of(case, "val") == [
        ("vanilla", "vanilla", 2.0, 98.0),
        ("one", "method", 85.0, 60.0),
        ("exact", "oracle", 50.0, 97.0),
    ]
    assert points_of(case, "train") == []


NUMBER = st.integers(0, 100).map(float)


@given(st.lists(st.tuples(NUMBER, NUMBER), max_size=8))
def test_nothing_beats_the_frontier_and_it_beats_all_else(places):
    points = [(str(i), "method", us, rs) for i, (us, rs) in enumerate(places)]
    kept = frontier([*points, ("o", "oracle", 100.0, 100.0), ("v", "vanilla", 0.0, 100.0)])
    for point in points:
        better = [q for q in points if q[2] >= point[2] and q[3] >= point[3] and q[2:] != point[2:]]
        assert (point in kept) == (not better)
    assert [p[2] for p in kept] == sorted(p[2] for p in kept)


@given(st.lists(st.tuples(NUMBER, NUMBER), min_size=2, max_size=12))
def test_every_mark_lies_inside_and_right_is_more_forgotten(places):
    points = [(str(i), "method", us, rs) for i, (us, rs) in enumerate(places)]
    chart = pareto(points, "val")
    for mark, (_, _, us, rs) in zip(chart.marks, points, strict=True):
        assert LEFT <= mark.x <= RIGHT
        assert TOP <= mark.y <= 420
        for other, (_, _, us2, rs2) in zip(chart.marks, points, strict=True):
            assert (us < us2) <= (mark.x < other.x)
            assert (rs < rs2) <= (mark.y > other.y)


def test_one_point_is_no_chart_and_the_table_has_the_same_numbers():
    assert pareto([("vanilla", "vanilla", 0.0, 1.0)], "val") is None
    points = points_of(found(one=numbers(80.0, 60.0), exact=numbers(50.0, 97.0)), "val")
    assert pareto_table(points, "val").rows == (
        ("0", "vanilla", "2.0", "98.0", ""),
        ("1", "one", "80.0", "60.0", "✓ not beaten"),
        ("2", "exact (oracle)", "50.0", "97.0", ""),
    )


def test_points_at_one_place_have_one_text_beside_them_all():
    points = [
        ("v", "vanilla", 0.0, 100.0),
        ("a", "method", 0.0, 100.0),
        ("b", "method", 50.0, 97.0),
    ]
    first, second, other = pareto(points, "val").marks
    assert (first.x, first.y) == (second.x, second.y)
    assert [mark.text for mark in (first, second, other)] == ["0, 1", "", "2"]
    assert first.text_x - 9 * len(first.text) / 2 > first.x - 9  # not over the point


@given(st.lists(NUMBER, min_size=2, max_size=4))
def test_an_axis_has_two_ends_where_all_is_kept(forgotten):
    chart = pareto([(str(i), "method", us, 100.0) for i, us in enumerate(forgotten)], "val")
    (low, _), *_, (high, last) = chart.rules
    assert last == "100"
    assert low > high
    assert {mark.y for mark in chart.marks} == {high}
