"""Grids of candidates: whether the best point lies inside, and what to try next if it does not."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

_Point = Mapping[str, Any]


def edges(points: Sequence[_Point], best: _Point) -> list[str]:
    """Return the keys of which ``best`` has the least or the greatest number that was tried.

    What counts is the line through ``best``: the points that have all other values in common with
    it. Words, truth values and keys with a single value have no edge.
    """
    lines = {key: _line(points, best, key) for key in best}
    return [key for key, line in lines.items() if line and best[key] in (line[0], line[-1])]


def beyond(points: Sequence[_Point], best: _Point) -> list[dict[str, Any]]:
    """Return the next point outside each edge that ``best`` lies at, by the grid's own factor.

    The factor is that of the two outermost values. None for a line that holds 0 or less, or whole
    numbers that cannot become smaller: such a grid stays as it is.
    """
    found = []
    for key in edges(points, best):
        line = _line(points, best, key)
        value, inner = (line[0], line[1]) if best[key] == line[0] else (line[-1], line[-2])
        if line[0] <= 0:
            continue
        following = float(f"{value * value / inner:.6g}")
        if isinstance(value, int):
            following = math.floor(following) if value < inner else math.ceil(following)
        if following > 0 and following != value:
            found.append({**best, key: following})
    return found


def _line(points: Sequence[_Point], best: _Point, key: str) -> list[Any]:
    """Return the numbers tried for ``key`` where all else is as in ``best``, if several."""
    others = {name: value for name, value in best.items() if name != key}
    line = {p[key] for p in points if {n: v for n, v in p.items() if n != key} == others}
    numbers = all(isinstance(v, int | float) and not isinstance(v, bool) for v in line)
    return sorted(line) if numbers and len(line) > 1 else []
