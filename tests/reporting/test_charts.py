"""Scales and axes by hand."""

import pytest

from grail.reporting.charts import (
    BOTTOM,
    LEFT,
    RIGHT,
    TOP,
    ends,
    path,
    rules_to,
    steps_axis,
    x_of,
    y_of,
)


@pytest.mark.parametrize(
    ("largest", "texts"),
    [
        (100.0, ["0", "25", "50", "75", "100"]),
        (0.0, ["0", "0.25"]),
        (7.0, ["0", "2", "4", "6", "8"]),
    ],
)
def test_rules_are_at_round_numbers(largest, texts):
    top, rules = rules_to(largest)
    assert [text for _, text in rules] == texts
    assert top == float(texts[-1])
    assert (rules[0][0], rules[-1][0]) == (BOTTOM, TOP)


def test_places_are_in_scale_and_clipped():
    assert (x_of(0, 0, 10), x_of(5, 0, 10), x_of(10, 0, 10)) == (LEFT, (LEFT + RIGHT) / 2, RIGHT)
    assert x_of(3, 3, 3) == LEFT
    assert y_of(5, 10) == (TOP + BOTTOM) / 2
    assert (y_of(-1, 10), y_of(11, 10)) == (BOTTOM, TOP)


def test_a_single_point_is_a_dot_and_a_single_step_one_end():
    assert path([(1.0, 2.0)]) == "1.0,2.0 1.0,2.0"
    assert path([(1.0, 2.0), (3.0, 4.0)]) == "1.0,2.0 3.0,4.0"
    assert steps_axis([4]) == (4, 4, ends("step 4", ""))
    assert ends("a", "b") == [(LEFT, "a", "start"), (RIGHT, "b", "end")]
