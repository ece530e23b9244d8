"""Figures of a comparison. Needs matplotlib, which nothing else in grail needs.

The same comparison gives the same bytes: fixed salt for ids, no date.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from grail.errors import InputError
from grail.files import replacing_file

_Json = Mapping[str, Any]

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
"""Okabe and Ito's palette, which colour-blind readers tell apart; markers differ as well."""

_MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*", "<", ">")
_STYLE: Any = {
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
_CURVES = {"Avg": ("-", _COLOURS[0]), "HS": ("--", _COLOURS[1])}
_CURVE_STYLE: Any = {"marker": "o", "markersize": 4, "capsize": 2, "linewidth": 1.2}
_LAYER_COLUMNS = 6


def draw(comparison: _Json, folder: Path, localization: _Json | None = None) -> list[Path]:
    """Draw all figures that ``comparison`` has the numbers for; return their SVG files.

    They go into ``folder`` as ``NAME.svg`` and ``NAME.png``. ``localization`` is the content of the
    localization.json of one cell, for the heat map. InputError if matplotlib is not installed.
    """
    try:
        import matplotlib
    except ImportError as error:
        message = "figures need matplotlib: pip install 'grail-unlearning[plots]'"
        raise InputError(message) from error
    written = []
    with matplotlib.rc_context(_STYLE):
        for name, make in _wanted(comparison, localization or {}).items():
            figure = make()
            allowed = (c if (c.isalnum() and c.isascii()) or c in "._=-" else "-" for c in name)
            path = folder / f"{''.join(allowed)}.svg"
            for kind, metadata in (("svg", {"Date": None}), ("png", {})):
                with replacing_file(path.with_name(f"{path.stem}.{kind}")) as partial:
                    figure.savefig(partial, format=kind, metadata=metadata, bbox_inches="tight")
            written.append(path)
    return written


def _wanted(comparison: _Json, localization: _Json) -> dict[str, Callable[[], Any]]:
    """Return name -> function that draws the figure."""
    wanted: dict[str, Callable[[], Any]] = {}
    if "tradeoff" in comparison["figures"]:
        for part in _parts(comparison["methods"]):
            wanted[f"tradeoff-{part}"] = lambda part=part: tradeoff(comparison, part)
    if "heatmap" in comparison["figures"] and localization.get("jaccard"):
        wanted["heatmap"] = lambda: heatmap(localization)
    if "sweep" in comparison["figures"]:
        for method, rows in sweeps(comparison).items():
            wanted[f"sweep-{method}"] = lambda method=method, rows=rows: sweep(method, rows)
    return wanted


def tradeoff(comparison: _Json, part: str) -> Any:
    """Draw US against RS, a panel per domain: small points for seeds, a large one for the mean."""
    domains = list(comparison["settings"]["domains"])
    figure, axes = _panels(len(domains), 3.2, 3.2)
    for axis, domain in zip(axes, domains, strict=True):
        vanilla = comparison["vanilla"].get(part) or {}
        us, rs = vanilla.get(f"{domain}.US"), vanilla.get(f"{domain}.RS")
        if us and rs:
            style: Any = {"s": 50, "color": "#333333", "marker": "+", "zorder": 4}
            axis.scatter(us["mean"], rs["mean"], label="vanilla", **style)
        for number, method in enumerate(comparison["methods"]):
            points = _points(comparison, method["method"], domain, part)
            if points:
                _draw_points(axis, points, number, method["method"])
        axis.set(title=domain, xlabel=f"US on {part} rows (%)", xlim=(-2, 102), ylim=(-2, 102))
        axis.set_aspect("equal")
    axes[0].set_ylabel(f"RS on {part} rows (%)")
    handles, labels = axes[0].get_legend_handles_labels()
    axes[-1].legend(handles, labels, loc="center left", bbox_to_anchor=(1.02, 0.5))
    figure.suptitle(f"{comparison['title']}: unlearning against retaining")
    return figure


def heatmap(localization: _Json) -> Any:
    """Draw the Jaccard index between the sides' most important entries: whole model and layers."""
    from matplotlib.figure import Figure

    jaccard = localization["jaccard"]
    layers = {
        name: layer["jaccard"]["values"] if isinstance(layer["jaccard"], dict) else layer["jaccard"]
        for name, layer in (localization.get("layers") or {}).items()
        if layer.get("jaccard")
    }
    lines = -(-len(layers) // _LAYER_COLUMNS)
    figure = Figure(figsize=(6.4, 4.2 + 1.25 * lines), layout="constrained")
    heights = [4.2, 1.25 * lines] if lines else [4.2]
    top, *below = figure.subfigures(len(heights), 1, height_ratios=heights, squeeze=False)[:, 0]
    axis = top.subplots()
    image = _matrix(axis, jaccard["values"])
    ticks = range(len(jaccard["names"]))
    axis.set_xticks(ticks, jaccard["names"], rotation=30, ha="right")
    axis.set_yticks(ticks, jaccard["names"])
    axis.set_title(f"Overlap of the top {100 * jaccard['k']:g} % of the entries, whole model")
    for i, row in enumerate(jaccard["values"]):
        for j, value in enumerate(row):
            ink = "black" if value > 0.55 else "white"
            axis.text(j, i, f"{value:.2f}", ha="center", va="center", color=ink, fontsize=8)
    top.colorbar(image, ax=axis, label="Jaccard index", shrink=0.9)
    if below:
        _draw_layers(below[0], layers, lines)
    return figure


def _draw_layers(figure: Any, layers: Mapping[str, Any], lines: int) -> None:
    """Draw one small matrix per layer."""
    axes = figure.subplots(lines, _LAYER_COLUMNS, squeeze=False)
    figure.suptitle("Per layer, in the same order and colours", fontsize=9)
    for axis in axes.flat[len(layers) :]:
        axis.set_visible(False)
    for axis, (name, values) in zip(axes.flat, layers.items(), strict=False):
        _matrix(axis, values)
        axis.set(xticks=[], yticks=[])
        axis.set_title(str(name).rpartition("layers.")[2] or name, fontsize=7, pad=2)


def sweeps(comparison: _Json) -> dict[str, list[_Json]]:
    """Return method -> its rows, for the methods that vary exactly one setting."""
    groups: dict[str, list[_Json]] = {}
    for method in comparison["methods"]:
        if len(method["varied"]) == 1:
            groups.setdefault(method["of"], []).append(method)
    return groups


def sweep(method: str, rows: Sequence[_Json]) -> Any:
    """Draw Avg and HS against the varied setting, train and val rows, with the sd over seeds."""
    parts = _parts(rows) or ["train"]
    figure, axes = _panels(len(parts), 3.4, 2.8)
    (key,) = rows[0]["varied"]
    values = [next(iter(row["varied"].values())) for row in rows]
    numeric = all(isinstance(v, int | float) and not isinstance(v, bool) for v in values)
    positions = values if numeric else range(len(values))
    for axis, part in zip(axes, parts, strict=True):
        for metric, (line, colour) in _CURVES.items():
            points = [
                (x, row[part][metric]["mean"], row[part][metric]["sd"] or 0.0)
                for x, row in zip(positions, rows, strict=True)
                if metric in (row.get(part) or {})
            ]
            columns = ([point[i] for point in points] for i in range(3))
            axis.errorbar(*columns, color=colour, linestyle=line, label=metric, **_CURVE_STYLE)
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


def _draw_points(axis: Any, points: Sequence[tuple[float, float]], number: int, label: str) -> None:
    style = {"color": _COLOURS[number % len(_COLOURS)], "marker": _MARKERS[number % len(_MARKERS)]}
    xs, ys = zip(*points, strict=True)
    axis.scatter(xs, ys, s=12, alpha=0.45, linewidths=0, **style)
    mean = sum(xs) / len(xs), sum(ys) / len(ys)
    axis.scatter(*mean, s=52, edgecolors="white", linewidths=0.8, label=label, **style)


def _points(comparison: _Json, method: str, domain: str, part: str) -> list[tuple[float, float]]:
    """Return (US, RS) of the unlearned model of every seed."""
    points = []
    for cell in comparison["cells"]:
        if cell["method"] == method and "failed" not in cell:
            values = {
                row["metric"]: row["value"]
                for row in cell["rows"]
                if (row["model"], row["domain"], row["part"]) == ("unlearned", domain, part)
            }
            if {"US", "RS"} <= values.keys():
                points.append((values["US"], values["RS"]))
    return points


def _parts(methods: Sequence[_Json]) -> list[str]:
    return [part for part in ("train", "val") if any(method.get(part) for method in methods)]


def _matrix(axis: Any, values: Sequence[Sequence[float]]) -> Any:
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return axis.imshow(values, cmap="cividis", vmin=0, vmax=1)
