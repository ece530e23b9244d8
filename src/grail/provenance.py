"""What a run was made with: versions, source revision, identity of the base model."""

from __future__ import annotations

import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grail import __version__
from grail.files import digest
from grail.weights import Source, version

PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "numpy")


def made_with(data: Mapping[str, str]) -> dict[str, Any]:
    """Return versions, git revision (None outside a checkout) and data hashes, without any time."""
    return {
        "grail": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "git": revision(),
        "data": dict(data),
    }


def revision() -> str | None:
    """Return the git revision of grail's own source, marked if it has local changes."""
    folder = Path(__file__).resolve().parent

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if git("ls-files", "--error-unmatch", "provenance.py") == "":
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def model_identity(source: Source) -> str:
    """Return a digest that changes when the base model's files (or the adapter's) change.

    Names, sizes and times of change stand for the contents: hashing the weights of a large model at
    every start would take longer than many stages. A Hub id stands for itself.
    """
    folders = [Path(source.base), *([source.adapter] if source.adapter else [])]
    found = [
        [file.name, file.stat().st_size, file.stat().st_mtime_ns]
        for folder in folders
        if folder.is_dir()
        for file in sorted(folder.iterdir())
        if file.is_file()
    ]
    return digest([source.base, str(source.adapter), found])
