"""Per-sample values of all models and attacks as rows with standard errors and differences."""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from grail.audit.attacks.registry import PLAIN
from grail.audit.attacks.sampling import GENERATING
from grail.audit.jackknife import Estimate, MetricKey, estimates, gaps
from grail.evaluation.values import SampleValue
from grail.results import GUESS

AttackValues = dict[tuple[str, str, str], list[SampleValue]]
"""(Model, attack, amount) -> values."""

_COLUMNS = ("domain", "side", "part", "metric")
_START, _AREA = "0", "area"
_KNOWN = {"US": -1, "ES": 1}
"""What is measured after relearning -> whether more of it is more knowledge."""


def findings(values: AttackValues, oracle: str | None) -> list[dict[str, Any]]:
    """Return one entry per model, attack and amount, each with its rows.

    A row is a Result row without its model, and with ``error`` (standard error of ``value``),
    ``change`` and ``beyond``, both paired by sample and each with its error. ``change`` is against
    the same model without the attack; without attack, or where generated text is scored, against
    the vanilla model. ``beyond`` is against the oracle under the same attack (interpolation:
    against the oracle without attack). Where the oracle is a guess, ``beyond`` is against the
    guess, which is never attacked.

    A relearning curve ("relearn-few@ATTACKER") also has an entry "0", the model before the first
    step, and one "area": the mean height of the curve over its steps. The worst case over all
    attackers, at every step, is an attack "relearn-few"; its rows name the ``attacker``, and their
    ``beyond`` is against the oracle's own worst case.

    ``oracle`` is "given" (as the model "oracle"), "itself" (the run is one), "guess" (there is
    none, but a guess of a model that never knew), or None.
    """
    other = {"given": "oracle", "itself": "unlearned", GUESS: GUESS}.get(oracle or "")
    entries = [
        _entry(*key, _rows(key, group, values, other))
        for key, group in values.items()
        if "@" not in key[1]
    ]
    return [*entries, *_relearning(values, other)]


def _entry(model: str, attack: str, amount: str, rows: list[dict[str, Any]]) -> dict[str, Any]:
    return {"model": model, "attack": attack, "amount": amount, "rows": rows}


def _rows(
    key: tuple[str, str, str],
    group: Sequence[SampleValue],
    values: AttackValues,
    oracle: str | None,
) -> list[dict[str, Any]]:
    """Return the rows of anything but relearning."""
    model, attack, amount = key
    against = (model, PLAIN, PLAIN)
    if attack in (PLAIN, *GENERATING):
        against = ("", "", "") if model == "vanilla" else ("vanilla", attack, amount)
    same = PLAIN if attack == "interpolate" or oracle == GUESS else ""
    other = (
        ()
        if oracle is None or model in ("oracle", GUESS)
        else values.get((oracle, same or attack, same or amount), ())
    )
    change = estimates(group, minus=values.get(against, ()))
    beyond = gaps(group, other)
    return [
        _row(place, number, change.get(place), beyond.get(place))
        for place, number in estimates(group).items()
        if attack not in GENERATING or place[-1] in ("ROUGE-L", "Repetition")
    ]


def _row(
    place: MetricKey, number: Estimate, change: Estimate | None, beyond: Estimate | None
) -> dict[str, Any]:
    row: dict[str, Any] = dict(zip(_COLUMNS, place, strict=True))
    row |= {"value": number.value, "n": number.n, "error": number.error}
    for name, difference in (("change", change), ("beyond", beyond)):
        if difference is not None:
            row |= {name: difference.value, f"{name}_error": difference.error}
    return row


def _relearning(values: AttackValues, oracle: str | None) -> list[dict[str, Any]]:
    """Return the entries of every relearning curve, and of the worst case over them."""
    guess = values.get((GUESS, PLAIN, PLAIN), ()) if oracle == GUESS else ()
    points: dict[tuple[str, str], dict[str, dict[str, list[SampleValue]]]] = {}
    for (model, name, step), group in values.items():
        attack, _, attacker = name.partition("@")
        if attacker:
            plain, keys = values[model, PLAIN, PLAIN], {value.key for value in group}
            start = [value for value in plain if value.key in keys]
            for at, own in ((_START, start), (step, group)):
                points.setdefault((attack, at), {}).setdefault(model, {})[attacker] = own
    entries: list[dict[str, Any]] = []
    for (attack, step), models in points.items():
        known = {m: {a: _what_is_known(v) for a, v in own.items()} for m, own in models.items()}
        for model, own in models.items():
            plain = values[model, PLAIN, PLAIN] if step != _START else ()
            other = oracle if oracle in models and model != "oracle" else None
            rows = []
            for place in next(iter(known[model].values())):
                attacker = _worst(known[model], place)
                against = models[other][_worst(known[other], place)] if other else guess
                change = estimates(own[attacker], minus=plain).get(place)
                beyond = gaps(own[attacker], against).get(place)
                row = _row(place, known[model][attacker][place], change, beyond)
                rows.append(row | {"attacker": attacker})
            entries.append(_entry(model, attack, step, rows))
            for attacker, found in known[model].items():
                rows = [_row(place, number, None, None) for place, number in found.items()]
                entries.append(_entry(model, f"{attack}@{attacker}", step, rows))
    return _with_areas(entries)


def _what_is_known(group: Sequence[SampleValue]) -> dict[MetricKey, Estimate]:
    return {place: number for place, number in estimates(group).items() if place[-1] in _KNOWN}


def _worst(own: Mapping[str, Mapping[MetricKey, Estimate]], place: MetricKey) -> str:
    """Return the attacker under whom the most is known."""
    return max(own, key=lambda attacker: _KNOWN[place[-1]] * own[attacker][place].value)


def _with_areas(entries: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the entries curve by curve, each curve in the order of its steps, with its area."""
    curves: dict[tuple[str, str], dict[int, dict[MetricKey, Any]]] = {}
    for entry in entries:
        rows = {tuple(row[c] for c in _COLUMNS): row for row in entry["rows"]}
        curve = curves.setdefault((entry["model"], entry["attack"]), {})
        curve[int(entry["amount"])] = rows  # type: ignore[assignment]
    found = []
    for key, points in curves.items():
        found += [_entry(*key, str(step), [*points[step].values()]) for step in sorted(points)]
        rows = []
        for place, start in points[0].items():
            row = dict(zip(_COLUMNS, place, strict=True)) | {"n": start["n"]}
            for name in ("value", "beyond"):
                heights = {step: point[place].get(name) for step, point in points.items()}
                if None not in heights.values():
                    row[name] = mean_height(heights)
            rows.append(row)
        found.append(_entry(*key, _AREA, rows))
    return found


def mean_height(curve: Mapping[int, float]) -> float:
    """Return the mean height of a curve {steps: height} of two points or more (trapezoids)."""
    steps = sorted(curve)
    area = sum((b - a) * (curve[a] + curve[b]) / 2 for a, b in pairwise(steps))
    return area / (steps[-1] - steps[0])
