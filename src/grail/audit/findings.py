"""Per-sample values of all models and attacks as rows with standard errors and differences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from grail.audit.attacks.registry import PLAIN
from grail.audit.attacks.sampling import GENERATING
from grail.audit.jackknife import estimates
from grail.evaluation.values import SampleValue

AttackValues = dict[tuple[str, str, str], list[SampleValue]]
"""(Model, attack, amount) -> values."""

_COLUMNS = ("domain", "side", "part", "metric")
_RELEARN, _START, _AREA = "relearn", "0", "area"


def findings(values: AttackValues, oracle: str | None) -> list[dict[str, Any]]:
    """Return one entry per model, attack and amount, each with its rows.

    A row is a Result row without its model, and with ``error`` (standard error of ``value``),
    ``change`` and ``beyond``, both paired by sample and each with its error. ``change`` is against
    the same model without the attack; without attack, or where generated text is scored, against
    the vanilla model. ``beyond`` is against the oracle under the same attack (interpolation:
    against the oracle without attack). A relearning curve also has an entry "0", the model before
    the first step, and one "area": the mean height of the curve over its steps.

    Args:
        values: What was measured.
        oracle: "given" (as the model "oracle"), "itself" (the run is one), or None.
    """
    starts: AttackValues = {}
    for (model, attack, _), attacked in values.items():
        if attack.startswith(_RELEARN):
            keys = {value.key for value in attacked}
            plain = values[model, PLAIN, PLAIN]
            starts[model, attack, _START] = [value for value in plain if value.key in keys]
    entries = [
        {
            "model": key[0],
            "attack": key[1],
            "amount": key[2],
            "rows": _rows(key[1], group, _baseline(values, *key), _oracle(values, *key, oracle)),
        }
        for key, group in {**values, **starts}.items()
    ]
    order = list(dict.fromkeys((model, attack) for model, attack, _ in values))
    return sorted(
        [*entries, *_areas(entries)],
        key=lambda e: (order.index((e["model"], e["attack"])), e["amount"] != _START),
    )


def _baseline(
    values: AttackValues, model: str, attack: str, amount: str
) -> list[SampleValue] | None:
    """Return the values that ``change`` is against; None where there are none."""
    if attack in (PLAIN, *GENERATING):
        return None if model == "vanilla" else values.get(("vanilla", attack, amount))
    return None if amount == _START else values.get((model, PLAIN, PLAIN))


def _oracle(
    values: AttackValues, model: str, attack: str, amount: str, oracle: str | None
) -> list[SampleValue] | None:
    """Return the oracle's values that ``beyond`` is against; None where there are none."""
    if model == "oracle" or oracle is None:
        return None
    name = "unlearned" if oracle == "itself" else "oracle"
    if attack == "interpolate":
        attack = amount = PLAIN
    return values.get((name, attack, amount))


def _rows(
    attack: str,
    values: Sequence[SampleValue],
    baseline: Sequence[SampleValue] | None,
    oracle: Sequence[SampleValue] | None,
) -> list[dict[str, Any]]:
    differences = {
        "change": estimates(values, minus=baseline or ()),
        "beyond": estimates(values, minus=oracle or ()),
    }
    rows = []
    for key, number in estimates(values).items():
        if attack in GENERATING and key[-1] != "ROUGE-L":
            continue
        row: dict[str, Any] = dict(zip(_COLUMNS, key, strict=True))
        row |= {"value": number.value, "n": number.n, "error": number.error}
        for name, metrics in differences.items():
            if key in metrics:
                row |= {name: metrics[key].value, f"{name}_error": metrics[key].error}
        rows.append(row)
    return rows


def _areas(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the entry "area" of every relearning curve, with the metrics of all its points."""
    curves: dict[tuple[str, str], dict[int, dict[tuple[str, ...], Any]]] = {}
    for entry in entries:
        if entry["attack"].startswith(_RELEARN):
            rows = {tuple(row[c] for c in _COLUMNS): row for row in entry["rows"]}
            curve = curves.setdefault((entry["model"], entry["attack"]), {})
            curve[int(entry["amount"])] = rows
    areas = []
    for (model, attack), points in curves.items():
        rows = []
        for key, start in points[0].items():
            if all(key in point for point in points.values()):
                height = mean_height({s: point[key]["value"] for s, point in points.items()})
                row = dict(zip(_COLUMNS, key, strict=True))
                rows.append(row | {"value": height, "n": start["n"]})
        areas.append({"model": model, "attack": attack, "amount": _AREA, "rows": rows})
    return areas


def mean_height(curve: Mapping[int, float]) -> float:
    """Return the mean height of a curve {steps: height} of two points or more (trapezoids)."""
    steps = sorted(curve)
    area = sum((b - a) * (curve[a] + curve[b]) / 2 for a, b in pairwise(steps))
    return area / (steps[-1] - steps[0])
