"""What pydantic found wrong, in the words of the user's file; knows no setting by name."""

from collections.abc import Mapping
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from grail.config.schema import HIDDEN, choices, field_at, named_fields
from grail.errors import InputError, did_you_mean

_S = TypeVar("_S", bound=BaseModel)

_WORDING = {
    "model_type": "should be a section of keys and values",
    "dict_type": "should be a section of keys and values",
    "too_short": "should hold at least one entry",
    "string_too_short": "should not be empty",
    "invalid_key": "is not a word: keys are text",
}
"""Where pydantic's own words would speak of Python."""


def explain(problem: dict[str, Any], root: type[BaseModel]) -> str:
    """Turn one pydantic finding into: key, what is allowed, what was given, what to do."""
    path = [str(step) for step in problem["loc"] if step != "[key]"]
    key = ".".join(path)
    if problem["type"] == "extra_forbidden":
        section, _ = field_at(path[:-1], root)
        allowed = [name for name in named_fields(section) if name not in HIDDEN]
        name = ".".join(path[:-1]) or "the configuration"
        hint = did_you_mean(path[-1], allowed)
        return f"unknown key {key}.{hint} Allowed in {name}: {', '.join(allowed)}."
    if problem["type"] == "missing":
        return f"{key} is missing. Add it to the configuration."
    if problem["type"] == "value_error":
        return f"{key}: {problem['ctx']['error']}."
    if problem["type"] == "literal_error":
        hint = did_you_mean(str(problem["input"]), choices(field_at(path, root)[1]))
    else:
        hint = _as_fraction(problem["input"], problem.get("ctx", {}))
    message = problem["msg"].removeprefix("Input ").replace("'", "")
    return f"{key} {_WORDING.get(problem['type'], message)}, got {short(problem['input'])}.{hint}"


def checked(section: type[_S], values: Mapping[str, Any], name: str) -> _S:
    """Return a section with these values; InputError with every problem of it, as ``name``."""
    try:
        return section.model_validate(dict(values))
    except ValidationError as error:
        problems = [explain(dict(problem), section) for problem in error.errors()]
        raise InputError(f"{name}: {problem}" for problem in problems) from error


def _as_fraction(value: Any, limits: dict[str, Any]) -> str:
    """Suggest the fraction where a percentage was given."""
    numeric = isinstance(value, int | float) and not isinstance(value, bool)
    if 1 in (limits.get("le"), limits.get("lt")) and numeric and 1 < value <= 100:
        return f" Did you mean {value / 100:g}?"
    return ""


def short(value: Any) -> str:
    """Show a value, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
