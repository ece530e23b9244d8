"""Override settings: dotted keys, deep merges and ``KEY=VALUE`` texts; knows no setting."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

import yaml

from grail.errors import InputError
from grail.files import parse_yaml

Sections = dict[str, Any]
"""Settings as read from YAML: section -> key -> value."""


def merge(*layers: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return the layers as one nested mapping: later values win, mappings are merged deeply.

    A dotted key stands for sections in sections: ``{"a.b": 1}`` is ``{"a": {"b": 1}}``.

    Raises:
        InputError: if one layer gives a key twice, as a dotted key and in its section.
    """
    merged: Sections = {}
    for layer in layers:
        _refuse_doubled(layer)
        for key, value in layer.items():
            if isinstance(key, str) and "." in key:
                key, _, rest = key.partition(".")
                value = {rest: value}
            old = merged.get(key)
            if isinstance(value, Mapping):
                value = merge(old if isinstance(old, Mapping) else {}, value)
            merged[key] = value
    return merged


def _refuse_doubled(layer: Mapping[Any, Any]) -> None:
    given = sorted(key.split(".") for key, value in flatten(layer) if value != {})
    for one, other in pairwise(given):
        if other[: len(one)] == one:
            key = ".".join(one)
            raise InputError(f"{key} is given twice: as a dotted key and in its section. Keep one.")


def flatten(values: Mapping[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for each leaf of nested mappings; ``{}`` inside is a leaf."""
    for key, value in values.items():
        if isinstance(value, Mapping) and value:
            yield from flatten(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def difference(new: Mapping[str, Any], old: Mapping[str, Any]) -> Sections:
    """Return the dotted overrides that turn ``old`` into ``new``; None for a key that is gone."""
    before, after = dict(flatten(old)), dict(flatten(new))
    changed = {key: v for key, v in after.items() if key not in before or before[key] != v}

    def replaced(key: str) -> bool:  # a section became a value, or a value a section
        return any(f"{key}.".startswith(f"{k}.") or k.startswith(f"{key}.") for k in changed)

    return changed | {key: None for key in before if key not in after and not replaced(key)}


def with_overrides(settings: Sections, overrides: Sequence[str] | Mapping[str, Any]) -> Sections:
    """Return settings after ``KEY=VALUE`` texts (in order), or merged with a mapping.

    The value of a text is read as YAML and replaces everything that its key held.

    Raises:
        InputError: if a text is no ``KEY=VALUE``, its value is not YAML, or its key goes through a
            value.
    """
    if isinstance(overrides, Mapping):
        return merge(settings, overrides)
    for text in overrides:
        key, equals, value = text.partition("=")
        if not equals or not key.strip():
            raise InputError(f"--set needs KEY=VALUE, got '{text}'. Example: --set seed=1")
        try:
            settings = _put(settings, key.strip(), parse_yaml(value))
        except (yaml.YAMLError, ValueError) as error:
            reason = (
                error if isinstance(error, InputError) else f"'{value}' is not a valid YAML value."
            )
            raise InputError(f"--set {text}: {reason}") from error
    return settings


def _put(settings: Sections, key: str, value: Any) -> Sections:
    first, dot, rest = key.partition(".")
    if not dot:
        return {**settings, key: value}
    section = settings.get(first)
    section = {} if section is None or section is True else section  # true: with its defaults
    if not isinstance(section, dict):
        raise InputError(f"'{first}' is a value, not a section.")
    return {**settings, first: _put(section, rest, value)}
