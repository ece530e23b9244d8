"""Figures of a comparison; needs matplotlib, and nothing else of grail knows of it.

The same comparison gives the same bytes: fixed salt for ids, no date.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grail.errors import InputError
from grail.files import replacing_file

Found = Mapping[str, Any]

MISSING_LIBRARY = "figures need matplotlib: pip install 'grail-unlearning[plots]'"
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
"""Okabe and Ito's palette, which colour-blind readers tell apart; markers differ as well."""

MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
STYLE: Any = {
    "font.family": "DejaVu Sans",  # matplotlib's own: the same everywhere
    "font.size": 9.0,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.0,
    "axes.grid": True,
    "grid.color": "#E5E5E5",
    "grid.linewidth": 0.6,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "svg.hashsalt": "grail",
    "savefig.dpi": 160,
}
CURVES = {"Avg": ("-", COLOURS[0]), "HS": ("--", COLOURS[1])}


def draw(comparison: Found, folder: Path, localization: Found | None = None) -> list[Path]:
    """Draw all figures that ``comparison`` has the numbers for; return their SVG files.

    Args:
        comparison: The content of comparison.json, with ``figures`` naming those that are wanted.
        folder: Where ``NAME.svg`` and ``NAME.png`` go.
        localization: The localization.json of one cell, for the heat map.

    Raises:
        InputError: if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        raise InputError(MISSING_LIBRARY) from error
    wanted = _wanted(comparison, localization or {})
    written = []
    with matplotlib.rc_context(STYLE):
        for name, make in wanted.items():
            figure = make()
            for kind in ("svg", "png"):
                with replacing_file(folder / f"{_file_name(name)}.{kind}") as partial:
                    about = {"Date": None} if kind == "svg" else {}
                    figure.savefig(partial, format=kind, metadata=about, bbox_inches="tight")
            written.append(folder / f"{_file_name(name)}.svg")
    return written


def _wanted(comparison: Found, localization: Found) -> dict[str, Callable[[], Any]]:
    """Return name -> what draws it."""
    wanted: dict[str, Callable[[], Any]] = {}
    if "tradeoff" in comparison["figures"]:
        for part in _parts(comparison):
            wanted[f"tradeoff-{part}"] = lambda part=part: tradeoff(comparison, part)
    if "heatmap" in comparison["figures"] and localization.get("jaccard"):
        wanted["heatmap"] = lambda: heatmap(localization)
    if "sweep" in comparison["figures"]:
        for method, rows in sweeps(comparison).items():
            wanted[f"sweep-{method}"] = lambda method=method, rows=rows: sweep(method, rows)
    return wanted


def tradeoff(comparison: Found, part: str) -> Any:
    """US against RS, one panel per domain: seeds as small points, their mean as a large one."""
    names = list(comparison["settings"]["domains"])
    figure, axes = _panels(len(names), 3.2, 3.2)
    methods = [method["method"] for method in comparison["methods"]]
    for axis, domain in zip(axes, names, strict=True):
        vanilla = comparison["vanilla"].get(part) or {}
        _vanilla_point(axis, vanilla, domain)
        for number, method in enumerate(methods):
            points = _points(comparison, method, domain, part)
            if points:
                _cloud(axis, points, number, method)
        axis.set(title=domain, xlabel=f"US on {part} rows (%)", xlim=(-2, 102), ylim=(-2, 102))
        axis.set_aspect("equal")
    axes[0].set_ylabel(f"RS on {part} rows (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    axes[-1].legend(handles, labels, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.suptitle(f"{comparison['title']}: unlearning against retaining")
    return figure


def heatmap(localization: Found) -> Any:
    """Jaccard index between the most important entries of the sides; small multiples per layer."""
    whole = localization["jaccard"]
    layers = {
        name: found["jaccard"]["values"] if isinstance(found["jaccard"], dict) else found["jaccard"]
        for name, found in (localization.get("layers") or {}).items()
        if found.get("jaccard")
    }
    from matplotlib.figure import Figure

    columns = 6
    lines = -(-len(layers) // columns)
    figure = Figure(figsize=(6.4, 4.2 + 1.25 * lines), layout="constrained")
    top, *below = figure.subfigures(
        2 if lines else 1, 1, height_ratios=_heights(lines), squeeze=False
    )[:, 0]
    axis = top.subplots()
    image = _matrix(axis, whole["values"])
    ticks = range(len(whole["names"]))
    axis.set_xticks(ticks, whole["names"], rotation=30, ha="right")
    axis.set_yticks(ticks, whole["names"])
    axis.set_title(f"Overlap of the top {100 * whole['k']:g} % of the entries, whole model")
    for i, line in enumerate(whole["values"]):
        for j, value in enumerate(line):
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", color=_ink(value), fontsize=8)
    top.colorbar(image, ax=axis, label="Jaccard index", shrink=0.9)
    if below:
        small = below[0].subplots(lines, columns, squeeze=False)
        below[0].suptitle("Per layer, in the same order and colours", fontsize=9)
        for place in small.flat[len(layers) :]:
            place.set_visible(False)
        for place, (name, values) in zip(small.flat, layers.items(), strict=False):
            _matrix(place, values)
            place.set(xticks=[], yticks=[])
            place.set_title(str(name).rpartition("layers.")[2] or name, fontsize=7, pad=2)
    return figure


def sweeps(comparison: Found) -> dict[str, list[Found]]:
    """Return method -> its rows, for the methods that vary exactly one setting."""
    groups: dict[str, list[Found]] = {}
    for method in comparison["methods"]:
        if len(method["varied"]) == 1:
            groups.setdefault(method["of"], []).append(method)
    return groups


def sweep(method: str, rows: Sequence[Found]) -> Any:
    """Avg and HS against the varied setting, train and val side by side, with the sd over seeds."""
    parts = [part for part in ("train", "val") if any(row.get(part) for row in rows)] or ["train"]
    figure, axes = _panels(len(parts), 3.4, 2.8)
    (key,) = rows[0]["varied"]
    values = [next(iter(row["varied"].values())) for row in rows]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    for axis, part in zip(axes, parts, strict=True):
        for metric, (line, colour) in CURVES.items():
            found = [
                (value if numeric else place, row[part][metric])
                for place, (value, row) in enumerate(zip(values, rows, strict=True))
                if metric in (row.get(part) or {})
            ]
            xs, means = [x for x, _ in found], [number["mean"] for _, number in found]
            spread = [number["sd"] or 0.0 for _, number in found]
            axis.errorbar(
                xs,
                means,
                spread,
                color=colour,
                linestyle=line,
                marker="o",
                markersize=4,
                capsize=2,
                linewidth=1.2,
                label=metric,
            )
        if not numeric:
            axis.set_xticks(range(len(values)), [str(value) for value in values])
        axis.set(title=f"{part} rows", xlabel=key, ylim=(0, 102))
    axes[0].set_ylabel("success (%)")
    axes[-1].legend(loc="best")
    figure.suptitle(f"{method}: success against {key}")
    return figure


def _panels(count: int, width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * count + 1, height), layout="constrained")
    return figure, figure.subplots(1, count, sharey=True, squeeze=False)[0]


def _cloud(axis: Any, points: Sequence[tuple[float, float]], number: int, label: str) -> None:
    colour, marker = COLOURS[number % len(COLOURS)], MARKERS[number % len(MARKERS)]
    xs, ys = zip(*points, strict=True)
    axis.scatter(xs, ys, s=12, color=colour, marker=marker, alpha=0.45, linewidths=0)
    centre = (sum(xs) / len(xs)), (sum(ys) / len(ys))
    axis.scatter(
        *centre, s=52, color=colour, marker=marker, edgecolors="white", linewidths=0.8, label=label
    )


def _vanilla_point(axis: Any, vanilla: Found, domain: str) -> None:
    us, rs = vanilla.get(f"{domain}.US"), vanilla.get(f"{domain}.RS")
    if us and rs:
        axis.scatter(
            us["mean"], rs["mean"], s=50, color="#333333", marker="+", zorder=4, label="vanilla"
        )


def _points(comparison: Found, method: str, domain: str, part: str) -> list[tuple[float, float]]:
    points = []
    for cell in comparison["cells"]:
        if cell["method"] != method or "failed" in cell:
            continue
        found = {
            row["metric"]: row["value"]
            for row in cell["rows"]
            if (row["model"], row["domain"], row["part"]) == ("unlearned", domain, part)
            and row["metric"] in ("US", "RS")
        }
        if len(found) == 2:
            points.append((found["US"], found["RS"]))
    return points


def _parts(comparison: Found) -> list[str]:
    return [p for p in ("train", "val") if any(method.get(p) for method in comparison["methods"])]


def _heights(lines: int) -> list[float]:
    return [4.2, 1.25 * lines] if lines else [4.2]


def _matrix(axis: Any, values: Sequence[Sequence[float]]) -> Any:
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis.imshow(values, cmap="cividis", vmin=0, vmax=1)


def _ink(value: float) -> str:
    return "black" if value > 0.55 else "white"


def _file_name(name: str) -> str:
    return "".join(c if (c.isalnum() and c.isascii()) or c in "._=-" else "-" for c in name)
