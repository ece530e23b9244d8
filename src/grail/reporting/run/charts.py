"""Charts of a run: frozen entries per layer, NLL per step, and looks during training."""

import math
from collections.abc import Mapping, Sequence
from itertools import takewhile
from typing import Any

from grail.reporting.charts import (
    BOTTOM,
    DASHES,
    LEFT,
    RIGHT,
    TOP,
    Chart,
    Line,
    ends,
    path,
    rules_to,
    steps_axis,
    x_of,
    y_of,
)
from grail.reporting.tables import finite

POINTS = 500
_TERMS = {"unlearn": "unlearn/nll", "retain": "retain/nll"}
_WORDS = {"unlearn": "forgotten", "retain": "kept"}


def layer_chart(layers: Mapping[str, Mapping[str, Any]]) -> Chart | None:
    """Draw one bar per layer, in percent of its entries."""
    if not layers:
        return None
    values = {name: 100.0 * layer["frozen_fraction"] for name, layer in layers.items()}
    top, rules = rules_to(max(values.values()), "%")
    slot = (RIGHT - LEFT) / len(values)
    width = min(0.78 * slot, 48.0)
    bars = []
    for i, (name, value) in enumerate(values.items()):
        x, y = LEFT + slot * (i + 0.5) - width / 2, y_of(value, top)
        size = (round(x, 2), y, round(width, 2), round(BOTTOM - y, 1))
        bars.append((*size, f"{name}: {value:.1f}%"))
    prefix, first, last = _ends(list(values))
    caption = "One bar per layer, in the order of the model."
    caption += f" Names start with {prefix}" if prefix else ""
    unit, label = "frozen entries, in percent of the layer", "Frozen fraction per layer in percent"
    return Chart(unit, label, rules, ends(first, last), bars=bars, caption=caption)


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
    found = {
        (side, side): [(line["step"], line.get("terms", {}).get(term)) for line in drawn]
        for side, term in _TERMS.items()
        if (drawn := training[::stride])
    }
    caption = "NLL of each step's rows."
    caption += f" Every {stride}th step is drawn." if stride > 1 else ""
    if training and "ascending" in training[-1]:
        caption += f" Rows still ascending at the last step: {training[-1]['ascending']}."
    label = "NLL of the unlearn and retain rows per step"
    return _over_steps(found, ("NLL in nats/token", label, caption))


def looks(steps: Mapping[str, Any]) -> list[Chart]:
    """Draw what was seen during training (``evaluation/steps.json``): successes, general text.

    A side's colour and name tell the lines apart, a domain's dashes; an upright line is the step
    whose weights were kept. Empty where nothing was looked at.
    """
    rows = steps.get("rows") or []
    successes: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    general: dict[tuple[str, str], list[tuple[int, Any]]] = {}
    for row in rows:
        if row["side"] in _WORDS:
            name = f"{row['domain']} {_WORDS[row['side']]}"
            successes.setdefault((row["side"], name), []).append((row["step"], row["success"]))
        elif row["side"] == "general":
            general.setdefault(("general", "general text"), []).append((row["step"], row["nll"]))
    kept = steps.get("kept")
    caption = "Looks during training."
    caption += "" if kept is None else f" Upright line: step {kept}, whose weights were kept."
    words = ("percent, higher is better", "Forgotten (US) and kept (RS) during training", caption)
    text = ("NLL of general text in nats/token", "General text during training", caption)
    both = _over_steps(successes, words, kept), _over_steps(general, text, kept)
    return [chart for chart in both if chart is not None]


def _over_steps(
    found: Mapping[tuple[str, str], Sequence[tuple[int, Any]]],
    words: tuple[str, str, str],
    kept: int | None = None,
) -> Chart | None:
    """Draw {(kind, name): [(step, value)]}; values that are no finite numbers are left out.

    ``words``: unit, label and caption. None where there is nothing to draw.
    """
    lines = {key: [(s, float(v)) for s, v in pairs if finite(v)] for key, pairs in found.items()}
    every = [point for points in lines.values() for point in points]
    if not every:
        return None
    unit, label, caption = words
    low, high, ticks = steps_axis(step for step, _ in every)
    top, rules = rules_to(max(value for _, value in every))
    drawn: list[Line] = []
    for (kind, name), points in lines.items():
        dash = DASHES[sum(line.kind == kind for line in drawn) % len(DASHES)]
        places = [(x_of(step, low, high), y_of(value, top)) for step, value in points]
        if places:
            drawn.append(Line(kind, name, path(places), dash))
    if kept is not None and low <= kept <= high:
        x = x_of(kept, low, high)
        drawn.append(Line("kept", f"step {kept} was kept", path([(x, TOP), (x, BOTTOM)])))
    return Chart(unit, label, rules, ticks, drawn, caption=caption)
