"""The settings as a list, read from the models: key, default, allowed values, help."""

import json
from collections.abc import Iterator, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin

from pydantic import BaseModel

HIDDEN = ("made_with",)
"""Written by grail itself."""

_WORDS = {
    "boolean": "true, false",
    "integer": "whole number",
    "null": "null",
    "number": "number",
    "object": "section",
    "string": "text",
}
"""JSON schema's types in the user's words."""


class Setting(NamedTuple):
    """One setting: dotted key, default as in YAML ("required" if there is none), and texts."""

    key: str
    default: str
    allowed: str
    help: str


def named_fields(section: type[BaseModel]) -> dict[str, Any]:
    """Return the fields of a section by their keys in a YAML file."""
    return {field.alias or name: field for name, field in section.model_fields.items()}


def settings_of(section: type[BaseModel], prefix: str = "") -> Iterator[Setting]:
    """Yield every setting of a section and of the sections in it; free names are ``NAME``."""
    properties = section.model_json_schema()["properties"]
    for name, field in named_fields(section).items():
        key, inner = f"{prefix}{name}", section_in(field.annotation)
        if name not in HIDDEN and field.description:
            default = "required"
            if not field.is_required():
                value = field.get_default(call_default_factory=True)
                default = "section" if isinstance(value, BaseModel) else json.dumps(value)
            text = " ".join(field.description.split())
            yield Setting(key, default, _allowed(properties[name]), text)
        if inner:
            free = ".NAME" if get_origin(field.annotation) is dict else ""
            yield from settings_of(inner, f"{key}{free}.")


def field_at(path: Sequence[str], root: type[BaseModel]) -> tuple[type[BaseModel], Any]:
    """Return the innermost section on ``path``, and the type of the last setting on it."""
    section, annotation, steps = root, root, iter(path)
    for step in steps:
        if step in named_fields(section):
            annotation = named_fields(section)[step].annotation
            if get_origin(annotation) is dict:
                next(steps, None)  # the name of a domain or a method, which is free
            section = section_in(annotation) or section
    return section, annotation


def section_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section that a type is, or allows beside null or under free names."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    return next(filter(None, map(section_in, get_args(annotation))), None)


def choices(annotation: Any) -> list[str]:
    """Return the words that a type allows: those of its ``Literal``, also inside a list."""
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    return [word for part in get_args(annotation) for word in choices(part)]


def _allowed(schema: dict[str, Any]) -> str:
    """Say in words what a JSON schema allows."""
    if "anyOf" in schema:
        return " or ".join(map(_allowed, schema["anyOf"]))
    if "enum" in schema:
        return ", ".join(schema["enum"])
    if schema.get("type") == "array":
        return f"list of {_allowed(schema['items'])}"
    limits = {"minimum": ">=", "exclusiveMinimum": ">", "maximum": "<=", "exclusiveMaximum": "<"}
    bounds = [f"{sign} {schema[key]:.10g}" for key, sign in limits.items() if key in schema]
    return f"{_WORDS[schema.get('type', 'object')]} {' and '.join(bounds)}".rstrip()
