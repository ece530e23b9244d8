"""PRESETS: name -> the settings that make a method; knows no section's meaning.

Every row of the paper's tables is one of them, so that a comparison is a list of names.
"""

from __future__ import annotations

from typing import Any

from grail.errors import InputError, did_you_mean

Sections = dict[str, dict[str, Any]]

PAPER: dict[str, Any] = {"max_token_nll": None, "until": None}
"""The ascent of the paper: nothing bounds it and nothing stops it but the epochs."""

BOUNDED: dict[str, Any] = {
    "max_token_nll": 12.0,
    "until": None,
    "general_weight": 0.2,
}
"""Ascent that leaves alone what is about as unlikely as by chance, token by token.

General text is held near the vanilla model (KL): what that keeps is not said by any retain row.
No row rests once it is unlearned: its tokens are bounded, and the steps that would be left out also
hold the retain rows.
"""

ABSOLUTE: dict[str, Any] = {"thresholds": "absolute", "cosine": 0.94, "magnitude": 5e-4}
"""MemFlex's thresholds as published for Llama-2-7B and two domains together."""


def _method(objective: str, mask: dict[str, Any] | None = None, **more: Any) -> Sections:
    """Return the settings of an objective under a mask (default: nothing frozen)."""
    return {"unlearning": {"objective": objective, **more}, "localization": mask or _mask("none")}


def _mask(localizer: str, **more: Any) -> dict[str, Any]:
    return {"method": localizer, **more}


def _grail(localizer: str = "grail", **more: Any) -> Sections:
    """Return GRAIL's training, under its own mask or another."""
    return _method("ascent_descent", _mask(localizer, **more), **PAPER)


def _memflex(**more: Any) -> Sections:
    return _method("ascent_descent", _mask("memflex", **more), **PAPER, unlearn_weight=0.4)


PRESETS: dict[str, Sections] = {
    "ascent": _method("ascent", **PAPER),
    "random-labels": _method("random_labels", **PAPER),
    "adversarial-labels": _method("adversarial_labels", **PAPER),
    "ascent-descent": _method("ascent_descent", **PAPER, retain_weight=1.0),
    "ascent-descent-ood": _method(
        "ascent_descent", **PAPER, retain_weight=1.0, retain_rows="general"
    ),
    "ascent-kl": _method("ascent_kl", **PAPER, retain_weight=1.0),
    "ascent-kl-ood": _method("ascent_kl", **PAPER, retain_weight=1.0, retain_rows="general"),
    "memflex": _memflex(),
    "memflex-published": _memflex(memflex=ABSOLUTE),
    "grail": _grail(),
    "grail-plus": _method("ascent_descent", _mask("grail"), **BOUNDED),
    "no-mask-plus": _method("ascent_descent", _mask("none"), **BOUNDED),
    "grail-by-side": _grail(freeze="by_side"),
    "grail-signed": _grail(statistic="z_mean", layer="tensor"),
    "without-op-ur": _grail(keep_op_ur=False),
    "without-op-rr": _grail(keep_op_rr=False),
    "no-mask": _grail("none"),
    "random-mask": _grail("random"),
    "magnitude-mask": _grail("magnitude"),
    "damage-budget": _grail("damage_budget"),
    "exact": _method("exact"),
}


def with_preset(raw: dict[str, Any]) -> dict[str, Any]:
    """Fill in the values of ``preset`` where ``raw`` gives none.

    Raises:
        InputError: if there is no such preset.
    """
    name = raw.get("preset")
    if name is None:
        return raw
    if not isinstance(name, str) or name not in PRESETS:
        raise InputError(
            f"preset: {name!r} is unknown.{did_you_mean(str(name), PRESETS)} "
            f"Allowed: {', '.join(PRESETS)}."
        )
    given = {section: value for section, value in raw.items() if value is not None}
    return raw | {key: _filled(given.get(key, {}), own) for key, own in PRESETS[name].items()}


def _filled(given: Any, values: Any) -> Any:
    """Return what is given, with ``values`` where it says nothing; groups within groups alike."""
    if not isinstance(given, dict) or not isinstance(values, dict):
        return given
    return values | {key: _filled(value, values.get(key)) for key, value in given.items()}
