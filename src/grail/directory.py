"""What lies in a run directory: which of it still holds, and which is of other settings.

Knows names of files; knows nothing of how their contents are made.
"""

from __future__ import annotations

import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import yaml

from grail.artifacts import STAMP
from grail.config import Config

RESULTS = ("results.json", "samples.jsonl", "report.md", "report.html")
SIDE_MASKS = ("mask.unlearn.safetensors", "mask.retain.safetensors")


def has_settings(folder: Path, config: Config, about: dict[str, Any]) -> bool:
    """Tell whether ``config.yaml`` already says this: the same settings, data and versions."""
    try:
        found = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return False
    return found == config.model_dump(mode="json", exclude={"made_with"}) | {"made_with": about}


def outdate(folder: Path) -> None:
    """Drop the results, which are not those of what is being made now.

    They come back from ``evaluation/`` in no time where nothing that they depend on has changed.
    """
    for name in RESULTS:
        (folder / name).unlink(missing_ok=True)


def keep_scores(folder: Path, names: Collection[str]) -> None:
    """Drop the scores of domains that are no longer asked for: ``scores/`` is taken as a whole."""
    for file in (folder / "scores").glob("*.safetensors"):
        if file.stem not in names:
            file.unlink()


def has_mask(folder: Path, by_side: bool) -> bool:
    """Tell whether all files that belong to a mask are there."""
    names = ("localization.json", "mask.safetensors", *(SIDE_MASKS if by_side else ()))
    return all((folder / name).is_file() for name in names)


def drop_mask(folder: Path) -> None:
    """Drop a mask with its side files and the results; first the file that vouches for it."""
    for name in ("mask.safetensors", *SIDE_MASKS, "localization.json"):
        (folder / name).unlink(missing_ok=True)
    outdate(folder)


def stamp(folder: Path) -> dict[str, Any]:
    """Return what a model's folder says about how it was made."""
    return json.loads((folder / STAMP).read_text(encoding="utf-8"))
