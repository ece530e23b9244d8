"""What pydantic found wrong, in the words of the user's file; knows no setting by name."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from grail.errors import did_you_mean

WORDING = {
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
    key, given = ".".join(path), short(problem["input"])
    if problem["type"] == "extra_forbidden":
        allowed = _fields(path[:-1], root)
        section = ".".join(path[:-1]) or "the configuration"
        hint = did_you_mean(path[-1], allowed)
        return f"unknown key {key}.{hint} Allowed in {section}: {', '.join(allowed)}."
    if problem["type"] == "missing":
        return f"{key} is missing. Add it to the configuration."
    if problem["type"] == "value_error":
        return f"{key}: {problem['ctx']['error']}."
    if problem["type"] == "too_long":
        return f"{key}: this version has none to choose from, got {given}. Leave the list empty."
    own = problem["msg"].removeprefix("Input ").replace("'", "")
    text = WORDING.get(problem["type"], own)
    hint = _choice_hint(problem)
    return f"{key} {text}, got {given}.{hint}"


def _choice_hint(problem: dict[str, Any]) -> str:
    """Add a did-you-mean for words, and the fraction for a percentage."""
    given, context = problem["input"], problem.get("ctx", {})
    if problem["type"] == "literal_error":
        choices = [word.strip(" '") for word in context["expected"].replace(" or ", ",").split(",")]
        return did_you_mean(str(given), choices)
    numeric = isinstance(given, int | float) and not isinstance(given, bool)
    if 1 in (context.get("le"), context.get("lt")) and numeric and 1 < given <= 100:
        return f" Did you mean {given / 100:g}?"
    return ""


def _fields(path: list[str], root: type[BaseModel]) -> list[str]:
    """Return the keys allowed in the section at ``path`` (names of domains are free)."""
    section = root
    steps = iter(path)
    for step in steps:
        annotation = section.model_fields[step].annotation
        options = [annotation, *getattr(annotation, "__args__", ())]
        section = next(o for o in options if isinstance(o, type) and issubclass(o, BaseModel))
        if getattr(annotation, "__origin__", None) is dict:
            next(steps, None)  # the name of a domain or a method, which is free
    return [name for name in section.model_fields if name != "made_with"]


def short(value: Any) -> str:
    """Show what was given, cut to a readable length."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
