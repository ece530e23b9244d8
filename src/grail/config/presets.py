"""PRESETS: name -> the settings that make a method.

Every row of the paper's tables is one of them, so that a comparison is a list of names. A preset
gives every key of the method (``_OWNED`` and all of ``localization``): nothing of another preset
is left where one is put over the other.
"""

from typing import Any

from grail.config.localization import Localization
from grail.config.merge import Sections, merge
from grail.config.teach import switched
from grail.config.unlearning import PUBLISHED_WEIGHTS, Reset, Stop, Unlearning
from grail.errors import InputError, did_you_mean

_OWNED = ("objective", "retain_rows", "beta", "delta", "rectify", "phases", "unlearn_weight")
_OWNED += ("retain_weight", "general_weight", "max_token_nll", "until")
_OWNED += ("reset", "teacher", "rewrites", "guesses", "wordings", "examples", "retain_ratio")
_OWNED += ("stop",)
"""Keys of ``unlearning`` that belong to the method; the others say how long and how fast."""

_UNBOUNDED: Sections = {
    "max_token_nll": None,
    "until": {"row_accuracy": None, "domain_accuracy": None},
}
"""The ascent of the paper: without a bound; only the epochs end it."""

_BOUNDED: Sections = {**_UNBOUNDED, "max_token_nll": 12.0, "general_weight": 0.2}
"""Ascent that leaves a token alone once it is about as improbable as by chance.

The KL on general text keeps what no retain row says. All rows stay in: their tokens are bounded,
and the steps of a row that is left out would be missing on the retain side too.
"""

_PUBLISHED = {"thresholds": "absolute", "cosine": 0.94, "magnitude": 5e-4}
"""MemFlex's thresholds as published for Llama-2-7B and the merged data of both domains."""

_RELEASE: Sections = {
    "freeze": "by_side",
    "statistic": "z_mean",
    "layer": "tensor",
    "unlearn_weight": 0.4,
}
"""The authors' release as a whole: masks by side, z of the signed mean per tensor, 0.4 : 2."""


def _method(objective: str, localizer: str = "none", **changes: Any) -> Sections:
    """Return every key of a method: its objective, its localizer, and where it changes a default.

    A published objective has the weights of its paper and no bound.

    No key is in both sections, so that ``changes`` need not name them.
    """
    changes |= {"objective": objective, "method": localizer}
    made = Unlearning(objective=objective).model_dump()
    unlearning = {key: value for key, value in made.items() if key in _OWNED}
    sections = {"unlearning": unlearning, "localization": Localization().model_dump()}
    return {
        name: merge(section, {key: changes[key] for key in section.keys() & changes.keys()})
        for name, section in sections.items()
    }


def _paper(objective: str, localizer: str = "none", **changes: Any) -> Sections:
    """Return a method of the paper: unbounded, unless ``changes`` give a bound."""
    return _method(objective, localizer, **{**_UNBOUNDED, **changes})


def _grail(localizer: str = "grail", **changes: Any) -> Sections:
    """Return GRAIL's training, under its own mask or another."""
    return _paper("ascent_descent", localizer, **changes)


def _healed(**reset: Any) -> Sections:
    """Return a reset and the training that heals it: four retain rows for an unlearn row."""
    written: dict[str, Any] = {"rewrites": 12, "guesses": 3, "examples": 4}
    how = Reset(**reset).model_dump()
    return _method("distill", reset=how, retain_ratio=4, general_weight=0.5, **written)


REQUEST = "request"
"""The preset of a model that is given, where nothing else is asked for."""

_FORGETTING: dict[str, Any] = {"guesses": 3, "examples": 4}
_FORGETTING |= {"general_weight": 0.5, "stop": Stop().model_dump()}

PRESETS: dict[str, Sections] = {
    REQUEST: _method("distill", "grail", **_FORGETTING),
    "ascent": _paper("ascent"),
    "random-labels": _paper("random_labels"),
    "adversarial-labels": _paper("adversarial_labels"),
    "ascent-descent": _paper("ascent_descent", retain_weight=1.0),
    "ascent-descent-ood": _paper("ascent_descent", retain_weight=1.0, retain_rows="general"),
    "ascent-kl": _paper("ascent_kl", retain_weight=1.0),
    "ascent-kl-ood": _paper("ascent_kl", retain_weight=1.0, retain_rows="general"),
    "memflex": _grail("memflex", unlearn_weight=0.4),
    "memflex-published": _grail("memflex", unlearn_weight=0.4, memflex=_PUBLISHED),
    "grail": _grail(),
    "grail-plus": _grail(**_BOUNDED),
    "no-mask-plus": _grail("none", **_BOUNDED),
    "grail-by-side": _grail(freeze="by_side"),
    "grail-signed": _grail(statistic="z_mean", layer="tensor"),
    "grail-release": _grail(**_RELEASE),
    "without-op-ur": _grail(keep_op_ur=False),
    "without-op-rr": _grail(keep_op_rr=False),
    "no-mask": _grail("none"),
    "random-mask": _grail("random"),
    "magnitude-mask": _grail("magnitude"),
    "damage-budget": _grail("damage_budget"),
    **{name.replace("_", "-"): _method(name) for name in PUBLISHED_WEIGHTS},
    "reset-and-heal": _healed(),
    "reset-random": _healed(keep="random"),
    "reset-all": _healed(share=1.0),
    "exact": _method("exact"),
}


def with_preset(raw: Sections) -> Sections:
    """Return ``raw`` with the values of its ``preset`` for the keys that it does not give.

    A model that is given (no ``teach``) has the preset of a request, unless ``raw`` names another
    or an objective.

    Raises:
        InputError: if there is no such preset.
    """
    name = raw.get("preset")
    unlearning = raw.get("unlearning")
    asked = isinstance(unlearning, dict) and "objective" in unlearning
    if name is None and not asked and switched(raw.get("teach")) is None:
        raw, name = {**raw, "preset": REQUEST}, REQUEST
    if name is None:
        return raw
    if not isinstance(name, str) or name not in PRESETS:
        raise InputError(
            f"preset: {name!r} is unknown.{did_you_mean(str(name), PRESETS)} "
            f"Allowed: {', '.join(PRESETS)}."
        )
    empty = {section for section in PRESETS[name] if raw.get(section, {}) is None}
    return merge(PRESETS[name], {key: value for key, value in raw.items() if key not in empty})
