"""Per-sample values of all models and attacks as rows with standard errors and differences."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from grail.audit.attacks.relearn import area
from grail.audit.attacks.sampling import WRITES
from grail.audit.attacks.table import PLAIN
from grail.audit.jackknife import Estimate, Group, Place, differences, estimates
from grail.evaluation.values import SampleValue

Key = tuple[str, str, str]
"""Model, attack, amount."""

PLACE = ("domain", "side", "part", "metric")
RELEARN, START, AREA = "relearn", "0", "area"

Measured = dict[Key, list[SampleValue]]


def findings(measured: Mapping[Key, Group], oracle: str | None) -> list[dict[str, Any]]:
    """Return one entry per model, attack and amount, each with its rows.

    A row is a Result row without its model, and with ``error`` (standard error of ``value``),
    ``change`` (against the same model without the attack; without attack, or where what the model
    writes is scored: against the vanilla model) and ``beyond`` (against the oracle under the same
    attack; where it was not attacked so, against the oracle as it is), both paired by sample and
    each with its error. A curve of relearning also has one entry "area": the mean height over its
    steps.

    Args:
        measured: What was measured.
        oracle: "given" (as the model "oracle"), "itself" (the run is one), or None.
    """
    every = {**measured, **_starts(measured)}
    entries = []
    for key, values in every.items():
        before = _before(measured, *key)
        rows = _rows(key[1], values, before, _reference(measured, key, oracle))
        entries.append(dict(zip(("model", "attack", "amount"), key, strict=True)) | {"rows": rows})
    order = list(dict.fromkeys((model, attack) for model, attack, _ in measured))
    return sorted([*entries, *_areas(every)], key=lambda entry: _place(entry, order))


def _place(entry: Mapping[str, Any], order: list[tuple[str, str]]) -> tuple[int, bool]:
    """Put attacks in the order of measurement, and the beginning of a curve before its points."""
    return order.index((entry["model"], entry["attack"])), entry["amount"] != START


def _before(measured: Mapping[Key, Group], model: str, attack: str, amount: str) -> Group | None:
    """Return what a measurement is a change of; nothing for the vanilla model itself."""
    if attack in (PLAIN, *WRITES):
        return None if model == "vanilla" else measured.get(("vanilla", attack, amount))
    return None if amount == START else measured.get((model, PLAIN, PLAIN))


def _reference(measured: Mapping[Key, Group], key: Key, oracle: str | None) -> Group | None:
    """Return the oracle under the same attack; on the way back to vanilla, the oracle as it is.

    Where the attack on the oracle is missing there is none: what it would show is not known.
    """
    model, attack, amount = key
    if model == "oracle" or oracle is None:
        return None
    name = "unlearned" if oracle == "itself" else "oracle"
    if attack == "interpolate":
        return measured.get((name, PLAIN, PLAIN))
    return measured.get((name, attack, amount))


def _rows(
    attack: str,
    values: Group,
    before: Group | None,
    reference: Group | None,
) -> list[dict[str, Any]]:
    changes = {} if before is None else differences(values, before)
    beyond = {} if reference is None else differences(values, reference)
    rows = []
    for place, found in estimates(values).items():
        if attack in WRITES and place[-1] != "ROUGE-L":
            continue
        row: dict[str, Any] = dict(zip(PLACE, place, strict=True))
        row |= {"value": found.value, "n": found.n, "error": found.error}
        row |= _named("change", changes.get(place)) | _named("beyond", beyond.get(place))
        rows.append(row)
    return rows


def _named(name: str, found: Estimate | None) -> dict[str, Any]:
    return {} if found is None else {name: found.value, f"{name}_error": found.error}


def _starts(measured: Mapping[Key, Group]) -> dict[Key, Group]:
    """Return the beginning of every curve of relearning: the model as it is, on the same rows."""
    starts: dict[Key, Group] = {}
    for (model, attack, _), values in measured.items():
        if attack.startswith(RELEARN):
            keys = {value.key for value in values}
            plain = measured[model, PLAIN, PLAIN]
            starts[model, attack, START] = [value for value in plain if value.key in keys]
    return starts


def _areas(measured: Mapping[Key, Group]) -> list[dict[str, Any]]:
    """Return the area under every curve of relearning."""
    curves: dict[tuple[str, str], dict[int, dict[Place, Estimate]]] = {}
    for (model, attack, amount), values in measured.items():
        if attack.startswith(RELEARN):
            curves.setdefault((model, attack), {})[int(amount)] = estimates(values)
    return [
        {"model": model, "attack": attack, "amount": AREA, "rows": _area_rows(points)}
        for (model, attack), points in curves.items()
    ]


def _area_rows(points: Mapping[int, Mapping[Place, Estimate]]) -> list[dict[str, Any]]:
    return [
        dict(zip(PLACE, place, strict=True))
        | {"value": area({s: found[place].value for s, found in points.items()}), "n": start.n}
        for place, start in points[0].items()
        if all(place in found for found in points.values())
    ]
