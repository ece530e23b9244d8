"""Charts of the report in SVG units: frozen entries per layer, NLL per step."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

from grail.reporting.tables import finite

LEFT, RIGHT, TOP, BOTTOM = 58.0, 704.0, 14.0, 202.0  # of page.html.jinja's 720 x 240 drawings
POINTS = 500
_TERMS = {"unlearn": "unlearn/nll", "retain": "retain/nll"}


@dataclass(frozen=True)
class Chart:
    """A chart in SVG units: horizontal rules (y, label), lines of points, bars, axis labels."""

    rules: list[tuple[float, str]]
    first: str
    last: str
    lines: dict[str, str]
    bars: list[tuple[float, float, float, float, str]]
    caption: str = ""


def layer_chart(layers: Mapping[str, Mapping[str, Any]]) -> Chart | None:
    """Draw one bar per layer, in percent of its entries."""
    if not layers:
        return None
    values = {name: 100.0 * layer["frozen_fraction"] for name, layer in layers.items()}
    top, rules = _rules(max(values.values()), "%")
    slot = (RIGHT - LEFT) / len(values)
    width = min(0.78 * slot, 48.0)
    bars = []
    for i, (name, value) in enumerate(values.items()):
        x, y = LEFT + slot * (i + 0.5) - width / 2, _y(value, top)
        size = (round(x, 2), y, round(width, 2), round(BOTTOM - y, 1))
        bars.append((*size, f"{name}: {value:.1f}%"))
    prefix, first, last = _ends(list(values))
    caption = f" Names start with {prefix}" if prefix else ""
    return Chart(rules, first, last, {}, bars, caption)


def _ends(names: Sequence[str]) -> tuple[str, str, str]:
    """Return the common prefix of all dotted names, and the rest of the first and of the last."""
    if len(names) == 1:
        return "", names[0], ""
    heads = zip(*(name.split(".")[:-1] for name in names), strict=False)
    shared = takewhile(lambda words: len(set(words)) == 1, heads)
    prefix = "".join(f"{words[0]}." for words in shared)
    return prefix, names[0][len(prefix) :], names[-1][len(prefix) :]


def curve(training: Sequence[Mapping[str, Any]]) -> Chart | None:
    """Draw the NLL (nats/token) of both sides at each step; None where no NLL was logged."""
    stride = math.ceil(len(training) / POINTS) or 1
    points = {side: _points(training[::stride], term) for side, term in _TERMS.items()}
    every = [point for side_points in points.values() for point in side_points]
    if not every:
        return None
    low, high = min(step for step, _ in every), max(step for step, _ in every)
    top, rules = _rules(max(value for _, value in every), "")
    lines = {}
    for side, side_points in points.items():
        drawn = [f"{_x(step, low, high)},{_y(value, top)}" for step, value in side_points]
        if drawn:
            lines[side] = " ".join(drawn if len(drawn) > 1 else drawn * 2)
    caption = f" Every {stride}th step is drawn." if stride > 1 else ""
    if "ascending" in training[-1]:
        caption += f" Rows still ascending at the last step: {training[-1]['ascending']}."
    return Chart(rules, f"step {low}", f"step {high}" if high > low else "", lines, [], caption)


def _points(training: Sequence[Mapping[str, Any]], term: str) -> list[tuple[int, float]]:
    pairs = [(line["step"], line.get("terms", {}).get(term)) for line in training]
    return [(step, float(value)) for step, value in pairs if finite(value)]


def _rules(largest: float, unit: str) -> tuple[float, list[tuple[float, str]]]:
    """Return the top of the axis and its rules at round numbers, from 0 to at least ``largest``."""
    size = 10.0 ** math.floor(math.log10(largest / 4)) if largest > 0 else 0.25
    step = next(size * f for f in (1, 2, 2.5, 5, 10) if size * f * 4 >= largest)
    count = max(1, math.ceil(largest / step - 1e-9))
    top = count * step
    return top, [(_y(i * step, top), f"{i * step:g}{unit}") for i in range(count + 1)]


def _x(step: int, low: int, high: int) -> float:
    return round(LEFT + (RIGHT - LEFT) * (step - low) / max(high - low, 1), 1)


def _y(value: float, top: float) -> float:
    return round(BOTTOM - (BOTTOM - TOP) * min(max(value, 0.0), top) / top, 1)
