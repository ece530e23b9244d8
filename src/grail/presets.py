"""PRESETS: name -> the settings that make a method; knows no section's meaning.

Every row of the paper's tables is one of them, so that a comparison is a list of names.
"""

from __future__ import annotations

from typing import Any

from grail.errors import InputError, did_you_mean

Sections = dict[str, dict[str, Any]]

PAPER: dict[str, Any] = {"max_token_nll": None, "until": None}
"""The ascent of the paper: nothing bounds it and nothing stops it but the epochs."""


def _method(objective: str, localizer: str = "none", **more: Any) -> Sections:
    return {
        "unlearning": {"objective": objective, **more},
        "localization": {"method": localizer},
    }


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
    "memflex": _method("ascent_descent", "memflex", **PAPER, unlearn_weight=0.4),
    "grail": _method("ascent_descent", "grail", **PAPER),
    "no-mask": _method("ascent_descent", "none", **PAPER),
    "random-mask": _method("ascent_descent", "random", **PAPER),
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
    filled = dict(raw)
    for section, values in PRESETS[name].items():
        own = raw.get(section)
        if own is None:
            filled[section] = dict(values)
        elif isinstance(own, dict):
            filled[section] = {**values, **own}
    return filled
