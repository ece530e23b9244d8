"""The types of settings: numbers with limits, names, lists of words, and paths.

A relative path is looked up beside the settings file: its folder is pydantic's validation context.
"""

import os
from datetime import date
from pathlib import Path
from typing import Annotated, Any

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
)
from pydantic_core import PydanticCustomError

EMBEDDED, HUB = "embedded", "hub:"
TASK_FILE = ".jsonl"
_LONGEST = 255  # bytes between two slashes, on all common file systems


def _no_switch(value: Any) -> Any:
    """Refuse true and false, which pydantic would read as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "should be a valid number")
    return value


def words(value: Any) -> Any:
    """Refuse everything but a name and a list of names."""
    if isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(word, str) for word in value)
    ):
        return value
    raise PydanticCustomError("words", "should be a name or a list of names")


def _domain_name(name: str) -> str:
    """Refuse a name that cannot be part of a file's name, and the name of the general rows."""
    if not name.replace("_", "").replace("-", "").isalnum() or name == "general":
        raise PydanticCustomError(
            "domain_name",
            "cannot name a domain; use letters, digits, - and _, and not 'general'",
        )
    return name


def _home(path: str) -> str:
    """Expand ``~``; refuse what no system takes as a path."""
    expanded = os.path.expanduser(path)
    if expanded.startswith("~"):
        raise PydanticCustomError("home", "begins with ~, but there is no such home folder")
    if "\0" in path:
        raise ValueError("embedded null byte")
    if max(map(len, os.fsencode(path).split(b"/"))) > _LONGEST:
        message = "does not exist: names of files have at most 255 bytes"
        raise PydanticCustomError("long", message)
    return expanded


def _absolute(path: str, info: Any) -> str:
    """Expand ``~``; look a relative path up beside the settings file (or in the current folder).

    A link keeps its name: in caches it points to a file that is named by its digest alone.
    """
    path = _home(path)
    if os.path.isabs(path):
        return path
    beside = Path(info.context or "", path)
    return str(beside.parent.resolve() / beside.name)


def _data(source: str, info: Any) -> str:
    is_path = source != EMBEDDED and not source.startswith(HUB)
    return _absolute(source, info) if is_path else source


def _date(value: Any) -> str:
    """Take a date as YAML reads it, or as text."""
    text = str(value)
    try:
        if date.fromisoformat(text).isoformat() == text:
            return text
    except ValueError:
        pass
    raise PydanticCustomError("date", "should be a date such as 2025-01-31")


def _task(task: str, info: Any) -> str:
    return _absolute(task, info) if "/" in task or task.endswith(TASK_FILE) else task


def _model(name: str, info: Any) -> str:
    path = _absolute(name, info)
    if name.startswith(("./", "../", "~", "/")) or os.path.exists(path):
        return path
    if os.path.exists(name):
        message = "is in the current folder, not beside the settings file; write its whole path"
        raise PydanticCustomError("elsewhere", message)
    return name


_NO_SWITCH = BeforeValidator(_no_switch)

Number = Annotated[float, _NO_SWITCH]
Count = Annotated[int, Field(strict=True, ge=1)]
Fraction = Annotated[float, Field(gt=0, le=1), _NO_SWITCH]
Accuracy = Annotated[float, Field(ge=0, le=1), _NO_SWITCH]
Share = Annotated[float, Field(ge=0, lt=1), _NO_SWITCH]
Percent = Annotated[float, Field(gt=0, le=100), _NO_SWITCH]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False), _NO_SWITCH]
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False), _NO_SWITCH]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Name = Annotated[str, Field(min_length=1)]
FilePath = Annotated[Name, AfterValidator(_absolute)]
Output = Annotated[Name, AfterValidator(_home)]
"""A folder to write to, relative to the current folder."""
DataSource = Annotated[Name, AfterValidator(_data)]
"""A data file, ``embedded``, or ``hub:OWNER/NAME[:CONFIG[:SPLIT]]``."""
GeneralTask = Annotated[Name, AfterValidator(_task)]
"""A task of lm-eval; with a slash or ending in .jsonl, a path."""
ModelName = Annotated[Name, AfterValidator(_model)]
"""A path if it begins like one or exists beside the settings file; else a name."""
DomainName = Annotated[str, AfterValidator(_domain_name)]
Date = Annotated[str, BeforeValidator(_date)]
"""A day, in ISO 8601."""
Phase = Annotated[list[DomainName], Field(min_length=1)]
Phases = Annotated[list[Phase], Field(min_length=1)]


class Section(BaseModel):
    """A group of settings: immutable, unknown keys are errors."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, protected_namespaces=(), use_attribute_docstrings=True
    )
