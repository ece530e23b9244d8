"""The YAML file around a configuration: read, override with ``key=value``, write back."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from grail.config.merge import Sections, flatten, merge, with_overrides
from grail.config.run import Config, parse_config
from grail.config.teach import upgraded
from grail.errors import InputError
from grail.files import dump_yaml, parse_yaml, write_text

COMPARISON = ".comparison"
"""Folder in the output of a comparison that marks it as one: how its base was made."""


def load_config(
    path: Path, overrides: Sequence[str] | Mapping[str, Any] = (), output: str | None = None
) -> Config:
    """Read a YAML file (or the ``config.yaml`` of a run directory), apply overrides, check.

    Relative paths of data and model start from the file's folder (of a link: from the link's own; a
    model may be beside the link's target). ``overrides`` are ``KEY=VALUE`` texts, or settings,
    nested or with dotted keys. ``output`` is the run directory, relative to the current folder;
    None: that of the file; of a run directory, the directory itself, wherever it is now.

    Raises:
        InputError: if the file cannot be read or a setting is not allowed.
    """
    path = Path(os.path.expanduser(path))
    file, raw = read(path)
    if is_comparison(raw):
        raise InputError(f"{file} is a comparison, not one run. Use: grail compare {file}")
    if raw.pop("made_with", None) is not None:
        raw = upgraded(raw)
        _check_complete(raw, overrides)
    if path.is_dir():
        raw["output"] = str(path)
    sections = {"output": f"runs/{file.stem}"} | with_overrides(merge(raw), overrides)
    if output is not None:
        sections["output"] = output
    return parse_config(with_shared_model(sections, file), file.absolute().parent)


def with_shared_model(sections: Sections, file: Path) -> Sections:
    """Take a model beside the target of a linked settings file, if none is beside the link."""
    name = dict(flatten(sections)).get("model.name")
    if not file.is_symlink() or not isinstance(name, str):
        return sections
    shared = file.resolve().parent / name
    if (file.parent / name).exists() or not shared.exists():
        return sections
    return merge(sections, {"model.name": str(shared)})


def is_comparison(raw: Sections) -> bool:
    """Tell whether settings as read are those of a comparison."""
    return {"base", "methods"} <= raw.keys()


def _check_complete(raw: Sections, overrides: Sequence[str] | Mapping[str, Any]) -> None:
    """Refuse overrides of a run's own file that need defaults: it gives every value already."""
    reason = "this file is a run's own and gives every value"
    start = "start from the YAML file that the run was made from"
    after_of = with_overrides(raw, overrides)
    changes, before, after = (
        dict(flatten(sections)) for sections in (with_overrides({}, overrides), raw, after_of)
    )
    if after.get("preset") != before.get("preset"):
        raise InputError(
            f"--set preset={after['preset']}: {reason}, and values that are given win over a "
            f"preset's. Set the keys one by one, or {start}."
        )
    switched = (before.get("model.lora", {}) is None) != (after.get("model.lora", {}) is None)
    rates = [f"{name}.learning_rate" for name in ("teach", "unlearning") if after_of.get(name)]
    if switched and not set(rates) <= changes.keys():
        raise InputError(
            f"--set model.lora: {reason}, also the learning rates; those of an adapter are about "
            f"100 times those of all weights. Set {' and '.join(rates)} too, or {start}."
        )


def write(path: Path, config: Config, made_with: dict[str, Any]) -> None:
    """Write the resolved configuration: complete, and replayable as it is."""
    values = config.model_dump(mode="json", exclude={"made_with"})
    values["made_with"] = made_with
    write_text(path, dump_yaml(values))


def read(path: Path) -> tuple[Path, Sections]:
    """Return the settings file (of a run directory: ``config.yaml``) and its content, a mapping."""
    path = file = Path(os.path.expanduser(path))
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


def run_settings(run: Path) -> Sections:
    """Return the raw content of a run directory's ``config.yaml``; {} if absent or damaged."""
    try:
        return read(run / "config.yaml")[1]
    except InputError:
        return {}
