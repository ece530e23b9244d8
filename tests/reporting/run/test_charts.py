"""Drawings are in scale: marks lie where their numbers say, and every rule is a round number."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grail.reporting.charts import BOTTOM, LEFT, RIGHT, TOP
from grail.reporting.run.charts import POINTS, curve, layer_chart, looks


def line(step, unlearn, retain=0.5):
    return {"step": step, "terms": {"unlearn/nll": unlearn, "retain/nll": retain}}


def points(chart, kind):
    """The points of the lines of one kind, line by line."""
    lines = [line.points.split() for line in chart.lines if line.kind == kind]
    return [[tuple(map(float, place.split(","))) for place in line] for line in lines]


def read(label):
    return float(label.rstrip("%"))


@given(st.floats(1e-6, 1e6))
def test_rules_are_round_and_reach_over_the_largest_value(largest):
    drawn = curve([line(1, 0.0, 0.0), line(2, largest, 0.0)])
    values = [read(label) for _, label in drawn.rules]
    assert values[0] == 0
    assert values[-1] >= largest * (1 - 1e-6)
    assert values[-1] <= 2.6 * largest
    assert [y for y, _ in drawn.rules] == sorted((y for y, _ in drawn.rules), reverse=True)
    assert (drawn.rules[0][0], drawn.rules[-1][0]) == (BOTTOM, TOP)


def test_a_curve_has_every_step_in_its_place():
    drawn = curve([line(step, float(step), 2.0) for step in range(1, 6)])
    (places,) = points(drawn, "unlearn")
    assert [x for x, _ in places] == pytest.approx(
        [LEFT + (RIGHT - LEFT) * part / 4 for part in range(5)], abs=0.06
    )
    top = read(drawn.rules[-1][1])
    assert [y for _, y in places] == pytest.approx(
        [BOTTOM - (BOTTOM - TOP) * value / top for value in range(1, 6)], abs=0.06
    )
    assert [text for _, text, _ in drawn.ticks] == ["step 1", "step 5"]


def test_long_runs_are_thinned_and_say_so():
    drawn = curve([line(step, 1.0) for step in range(3 * POINTS)])
    assert len(points(drawn, "unlearn")[0]) == POINTS
    assert "Every 3th step is drawn." in drawn.caption
    assert curve([{"step": 1, "terms": {"unlearn/kl": 1.0}}]) is None


def test_layers_are_bars_on_one_line():
    layers = {f"model.layers.{n}": {"frozen_fraction": n / 10} for n in range(5)}
    drawn = layer_chart(layers)
    top = read(drawn.rules[-1][1])
    for number, (x, y, width, height, label) in enumerate(drawn.bars):
        assert y + height == pytest.approx(BOTTOM, abs=0.06)
        assert height == pytest.approx((BOTTOM - TOP) * number * 10 / top, abs=0.06)
        assert label == f"model.layers.{number}: {number * 10.0:.1f}%"
        assert x >= LEFT
        assert x + width <= RIGHT
    assert [text for _, text, _ in drawn.ticks] == ["0", "4"]
    assert "model.layers." in drawn.caption
    assert layer_chart({}) is None


def look(step, domain, side, success, nll=1.0):
    return {"step": step, "domain": domain, "side": side, "success": success, "nll": nll}


def test_looks_are_a_line_for_each_side_and_one_for_general_text():
    rows = [
        look(step, domain, side, 50.0 + step)
        for step in (0, 5, 10)
        for domain in ("a", "b")
        for side in ("unlearn", "retain")
    ]
    rows += [look(step, None, "general", None, 2.0 + step) for step in (0, 5, 10)]
    successes, general = looks({"rows": rows, "kept": 5})
    names = ["a forgotten", "a kept", "b forgotten", "b kept", "step 5 was kept"]
    assert [line.name for line in successes.lines] == names
    one, other = (line for line in successes.lines if line.kind == "unlearn")
    assert one.dash != other.dash
    ((top, bottom),) = points(successes, "kept")
    assert (top, bottom) == (((LEFT + RIGHT) / 2, TOP), ((LEFT + RIGHT) / 2, BOTTOM))
    ((*_, last),) = points(general, "general")
    scale = read(general.rules[-1][1])
    assert last[1] == pytest.approx(BOTTOM - (BOTTOM - TOP) * 12.0 / scale, abs=0.06)


def test_without_looks_nothing_is_drawn():
    assert looks({}) == []
    assert looks({"rows": [look(0, "a", "unlearn", None)], "kept": None}) == []
