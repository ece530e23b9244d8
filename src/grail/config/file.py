"""The YAML file around a configuration: read, override with ``key=value``, write back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from grail.config.run import Config, parse_config
from grail.errors import InputError
from grail.files import dump_yaml, parse_yaml, write_text

EMBEDDED, HUB = "embedded", "hub:"
TASK_FILE = ".jsonl"


def load_config(path: Path, overrides: list[str], output: str | None = None) -> Config:
    """Read a YAML file (or the ``config.yaml`` of a run directory), apply overrides, check.

    Data files, ``vanilla.adapter`` and ``model.name``, where they are relative paths, are looked up
    beside the YAML file. ``output`` is relative to the current folder;
    that of a run directory is the directory itself, wherever it lies now.

    Raises:
        InputError: if the file cannot be read or holds something that is not allowed.
    """
    file, raw = read(path)
    if is_comparison(raw):
        raise InputError(f"{file} is a comparison, not one run. Use: grail compare {file}")
    if raw.pop("made_with", None) is not None:
        _check_preset(overrides, raw.get("preset"))
    if path.is_dir():  # the run may have been moved since
        raw["output"] = str(path)
    for override in overrides:
        put(raw, override)
    if output is not None:
        raw["output"] = output
    raw.setdefault("output", f"runs/{file.stem}")
    return absolute(parse_config(raw), file.resolve().parent)


def is_comparison(raw: dict[str, Any]) -> bool:
    """Tell whether settings as read are those of a comparison."""
    return {"base", "methods"} <= raw.keys()


def _check_preset(overrides: list[str], given: Any) -> None:
    """Refuse another preset on top of a run's own file, where no value is left for it to fill."""
    for override in overrides:
        key, _, name = override.partition("=")
        if key.strip() == "preset" and name.strip() != given:
            raise InputError(
                f"--set {override}: this file is a run's own and gives every value, and values "
                "that are given win over a preset's. Start from the YAML file that the run was "
                "made from, or set the keys one by one."
            )


def write(path: Path, config: Config, made_with: dict[str, Any]) -> None:
    """Write the resolved configuration: complete, and replayable as it is."""
    values = config.model_dump(mode="json", exclude={"made_with"})
    values["made_with"] = made_with
    write_text(path, dump_yaml(values))


def read(path: Path) -> tuple[Path, dict[str, Any]]:
    """Return the file that is meant, and what it holds, unchecked.

    Raises:
        InputError: if it cannot be read or is not a mapping.
    """
    file = path
    try:
        file = path / "config.yaml" if path.is_dir() else path
        raw = parse_yaml(file.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(
            f"{file} does not exist. Give a YAML file, or a run directory with its config.yaml."
        ) from error
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" line {mark.line + 1}" if mark else ""
        reason = getattr(error, "problem", None) or "syntax error"
        raise InputError(f"{file}{where}: not valid YAML ({reason}).") from error
    except (OSError, ValueError) as error:  # ValueError: not UTF-8, or a date such as 2024-99-99
        raise InputError(f"{file} cannot be read ({error}).") from error
    if not isinstance(raw, dict):
        raise InputError(f"{file}: expected sections such as 'domains:', got {type(raw).__name__}.")
    return file, raw


def put(raw: dict[str, Any], text: str) -> None:
    """Put one ``a.b=value`` into ``raw``; the value is read as YAML."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise InputError(f"--set needs KEY=VALUE, got '{text}'. Example: --set seed=1")
    *sections, last = key.strip().split(".")
    place: Any = raw
    for section in sections:
        if place.get(section) is None:
            place[section] = {}
        place = place[section]
        if not isinstance(place, dict):
            raise InputError(f"--set {text}: '{section}' is a value, not a section.")
    try:
        place[last] = parse_yaml(value)
    except (yaml.YAMLError, ValueError) as error:
        raise InputError(f"--set {text}: '{value}' is not a valid YAML value.") from error


def absolute(config: Config, folder: Path) -> Config:
    """Resolve relative paths beside ``folder``, so that they hold wherever the file will lie.

    Of ``evaluation.general_tasks`` an entry with a slash or ending in .jsonl is a path.
    """

    def resolve(source: str | None) -> str | None:
        if source is None or source == EMBEDDED or source.startswith(HUB):
            return source
        if Path(source).is_absolute():
            return source
        return str((folder / source).resolve())

    values = config.model_dump()
    for sides in values["domains"].values():
        for part in sides.values():
            part.update({name: resolve(source) for name, source in part.items()})
    values["general"]["train"] = resolve(values["general"]["train"])
    values["vanilla"]["adapter"] = resolve(values["vanilla"]["adapter"])
    tasks = values["evaluation"]["general_tasks"]
    values["evaluation"]["general_tasks"] = [
        resolve(task) if "/" in task or task.endswith(TASK_FILE) else task for task in tasks
    ]
    if (folder / values["model"]["name"]).exists():
        values["model"]["name"] = resolve(values["model"]["name"])
    return parse_config(values)
