"""Charts as numbers in SVG units, which ``pages/parts.html.jinja`` draws in the page's colours."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

LEFT, RIGHT, TOP, BOTTOM, HEIGHT = 58.0, 704.0, 14.0, 202.0, 240
DASHES = ("", "7 4", "2 4", "10 3 2 3")


@dataclass(frozen=True)
class Line:
    """A line of a chart: its style's class, its name, its points, and how it is dashed."""

    kind: str
    name: str
    points: str
    dash: str = ""


@dataclass(frozen=True)
class Mark:
    """A point with a text beside it; ``kind`` is its shape's class, ``title`` is told on hover."""

    x: float
    y: float
    kind: str
    text: str
    title: str
    text_x: float = 0.0
    text_y: float = 0.0


@dataclass(frozen=True)
class Chart:
    """A chart of 720 units' width.

    Attributes:
        unit: What is drawn, above the chart.
        label: What it is, for those who do not see it.
        rules: Horizontal rules as (y, text).
        ticks: Texts below as (x, text, anchor).
        lines: Lines.
        bars: Bars as (x, y, width, height, title).
        marks: Points.
        caption: What a reader must know.
        height: Units.
    """

    unit: str
    label: str
    rules: list[tuple[float, str]]
    ticks: list[tuple[float, str, str]] = field(default_factory=list)
    lines: list[Line] = field(default_factory=list)
    bars: list[tuple[float, float, float, float, str]] = field(default_factory=list)
    marks: list[Mark] = field(default_factory=list)
    caption: str = ""
    height: int = HEIGHT


def rules_to(largest: float, unit: str = "") -> tuple[float, list[tuple[float, str]]]:
    """Return the top of the axis and its rules at round numbers, from 0 to at least ``largest``."""
    size = 10.0 ** math.floor(math.log10(largest / 4)) if largest > 0 else 0.25
    step = next(size * f for f in (1, 2, 2.5, 5, 10) if size * f * 4 >= largest)
    count = max(1, math.ceil(largest / step - 1e-9))
    top = count * step
    return top, [(y_of(i * step, top), f"{i * step:g}{unit}") for i in range(count + 1)]


def ends(first: str, last: str) -> list[tuple[float, str, str]]:
    """Return the texts at both ends of the axis below."""
    return [(LEFT, first, "start"), *([(RIGHT, last, "end")] if last else [])]


def x_of(step: float, low: float, high: float) -> float:
    """Return the place of ``step`` on an axis from ``low`` to ``high``."""
    return round(LEFT + (RIGHT - LEFT) * (step - low) / ((high - low) or 1), 1)


def y_of(value: float, top: float, bottom: float = BOTTOM) -> float:
    """Return the height of ``value`` on an axis from 0 to ``top``; what is outside is clipped."""
    return round(bottom - (bottom - TOP) * min(max(value, 0.0), top) / top, 1)


def path(points: Sequence[tuple[float, float]]) -> str:
    """Return points for a polyline; a single one is given twice, which draws a dot."""
    drawn = [f"{x},{y}" for x, y in points]
    return " ".join(drawn if len(drawn) > 1 else drawn * 2)


def steps_axis(steps: Iterable[int]) -> tuple[int, int, list[tuple[float, str, str]]]:
    """Return the lowest and the highest step, and the texts at the ends of their axis."""
    known = list(steps)
    low, high = min(known), max(known)
    return low, high, ends(f"step {low}", f"step {high}" if high > low else "")
