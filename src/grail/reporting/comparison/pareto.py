"""Forgetting against keeping: the methods of a comparison as points, and which are not beaten."""

from collections.abc import Mapping, Sequence
from statistics import mean
from typing import Any

from grail.reporting.charts import LEFT, RIGHT, TOP, Chart, Line, Mark, path, x_of, y_of
from grail.reporting.tables import GOOD, Table, percent

_HEIGHT, _BOTTOM = 470, 420.0
_NEAR = 15.0  # units between two texts
_SIGN = 9.0  # units of a sign, on a phone
_PLACES = ((16, 5), (-16, 5), (0, -12), (0, 24), (28, 18), (-28, 18))

Spot = tuple[str, str, float, float]
"""Name, kind (method, oracle or vanilla), US and RS (percent, means over domains and seeds)."""


def points_of(comparison: Mapping[str, Any], part: str) -> list[Spot]:
    """Return vanilla and all methods that were measured on a part, in the order of the table."""
    domains = comparison["settings"]["domains"]
    oracles = {
        cell["method"]
        for cell in comparison["cells"]
        if cell.get("overrides", {}).get("unlearning.objective") == "exact"
    }
    found: list[Spot] = []
    numbers = [
        ("vanilla", comparison["vanilla"]),
        *((m["method"], m) for m in comparison["methods"]),
    ]
    for number, (name, of) in enumerate(numbers):
        metrics = of.get(part) or {}
        sides = [[metrics.get(f"{d}.{metric}") for d in domains] for metric in ("US", "RS")]
        if all(value for side in sides for value in side):
            us, rs = (mean(value["mean"] for value in side if value) for side in sides)
            kind = "oracle" if name in oracles else "method"
            found.append((name, kind if number else "vanilla", us, rs))
    return found


def frontier(points: Sequence[Spot]) -> list[Spot]:
    """Return the methods that no other one beats in both, by growing US; no oracle, no vanilla."""
    methods = [point for point in points if point[1] == "method"]
    kept = [
        p
        for p in methods
        if not any(q[2] >= p[2] and q[3] >= p[3] and q[2:] != p[2:] for q in methods)
    ]
    return sorted(kept, key=lambda point: (point[2], -point[3]))


def pareto(points: Sequence[Spot], part: str) -> Chart | None:
    """Draw the points and the staircase of the frontier; None without a method."""
    if len(points) < 2:
        return None
    lowest = (min(of) for of in zip(*(p[2:] for p in points), strict=True))
    low_x, low_y = (min(10 * (low // 10), 90.0) for low in lowest)  # an axis has two ends

    def place(us: float, rs: float) -> tuple[float, float]:
        return x_of(us, low_x, 100.0), y_of(rs - low_y, 100.0 - low_y, _BOTTOM)

    rules = [(place(0, rs)[1], f"{rs:g}") for rs in _tens(low_y)]
    ticks = [(place(us, 0)[0], f"{us:g}", "middle") for us in _tens(low_x)]
    ticks[-1] = (RIGHT, "100", "end")
    marks, at = list[Mark](), [place(*point[2:]) for point in points]
    for number, (name, kind, us, rs) in enumerate(points):
        x, y = at[number]
        own = [str(n) for n, other in enumerate(at) if other == at[number]]
        text = ", ".join(own) if number == at.index(at[number]) else ""  # one text for all of them
        title = f"{name}: US {percent(us)}, RS {percent(rs)}"
        marks.append(Mark(x, y, kind, text, title, *_free(x, y, text, marks)))
    stairs: list[tuple[float, float]] = []
    for _, _, us, rs in frontier(points):
        x, y = place(us, rs)
        stairs += [(stairs[-1][0] if stairs else LEFT, y), (x, y)]
    stairs += [(stairs[-1][0], _BOTTOM)] if stairs else []
    lines = [Line("frontier", "not beaten in both", path(stairs), "4 4")] if stairs else []
    caption = (
        "One point per method, the mean over domains and seeds; numbers as in the table. Cross: "
        "before unlearning. Diamond: the oracle, which never saw the rows."
    )
    unit = f"RS (up: more is kept) against US (right: more is forgotten), {part} rows, percent"
    label = f"Forgetting against keeping on {part} rows"
    return Chart(unit, label, rules, ticks, lines, marks=marks, caption=caption, height=_HEIGHT)


def _tens(low: float) -> list[int]:
    step = 20 if low < 40 else 10
    return [value for value in range(int(low), 101, step) if value != 100] + [100]


def _free(x: float, y: float, text: str, marks: Sequence[Mark]) -> tuple[float, float]:
    """Return the first place beside a point that no earlier text and no earlier point takes.

    It is the middle of the text, which stands beside the point with its whole length.
    """
    more = _SIGN * max(0, len(text) - 1) / 2
    taken = [(m.text_x, m.text_y - 5) for m in marks] + [(m.x, m.y) for m in marks]
    places = [(right + (more if right > 0 else -more if right else 0), d) for right, d in _PLACES]
    for right, down in places:
        at = round(x + right, 1), round(y + down, 1)
        inside = LEFT < at[0] < RIGHT + 12 and at[1] > TOP
        if inside and not any(
            abs(at[0] - a) < _NEAR and abs(at[1] - 5 - b) < _NEAR for a, b in taken
        ):
            return at
    return round(x + places[0][0], 1), round(y + places[0][1], 1)


def pareto_table(points: Sequence[Spot], part: str) -> Table:
    """Return the chart's points as numbers."""
    kept = {point[0] for point in frontier(points)}
    rows = tuple(
        (
            str(number),
            f"{name} (oracle)" if kind == "oracle" else name,
            percent(us),
            percent(rs),
            f"{GOOD} not beaten" if name in kept else "",
        )
        for number, (name, kind, us, rs) in enumerate(points)
    )
    columns = ("No.", "Method", "Forgotten (US)", "Kept (RS)", "In both")
    return Table(f"Forgetting against keeping: {part} rows", columns, rows)
