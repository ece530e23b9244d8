"""What a run was made with: versions, source revision, identity of the base model."""

from __future__ import annotations

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grail import __version__
from grail.files import digest
from grail.model.sources import find, version

BLOCKS, BLOCK = 64, 1 << 16
PACKAGES = ("torch", "transformers", "peft", "accelerate", "safetensors", "numpy")


def made_with(model: str, data: Mapping[str, str]) -> dict[str, Any]:
    """Return versions, git revision (None outside a checkout), identity of the model, data hashes.

    No time is among them: equal runs say the same.
    """
    return versions() | {"model": model, "data": dict(data)}


def versions() -> dict[str, Any]:
    """Return the versions of grail, Python and what grail computes with, and the git revision."""
    return {
        "grail": __version__,
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "git": revision(),
    }


def revision() -> str | None:
    """Return the git revision of grail's own source, marked if it has local changes."""
    folder = Path(__file__).resolve().parents[1]

    def git(*words: str) -> str:
        command = ["git", "-C", str(folder), *words]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        if git("ls-files", "--error-unmatch", "run/provenance.py") == "":
            return None
        return git("rev-parse", "HEAD") + ("+changes" if git("status", "--porcelain", ".") else "")
    except (OSError, subprocess.CalledProcessError):
        return None


def model_identity(name: str) -> str:
    """Return a digest that changes when the contents of ``model.name`` change: base and adapter.

    Small files are read whole; of a large one its size and 64 samples spread over it, because
    training moves nearly every weight and reading all of a large model at every start would take
    longer than many stages. A Hub id stands for itself.

    Raises:
        InputError: if there is no such model.
    """
    source = find(name)
    places = [Path(source.base), *([source.adapter] if source.adapter else [])]
    found = [
        [file.name, _sampled(file)]
        for place in places
        for file in (sorted(place.rglob("*")) if place.is_dir() else [place])
        if file.is_file()
    ]
    return digest([found or source.base])


def _sampled(file: Path) -> str:
    """Return the digest of a file's size and of 64 blocks of it (all of it, if it is small)."""
    size, sha = file.stat().st_size, hashlib.sha256()
    sha.update(str(size).encode())
    with file.open("rb") as stream:
        if size <= BLOCKS * BLOCK:
            sha.update(stream.read())
        else:
            for number in range(BLOCKS):
                stream.seek((size - BLOCK) * number // (BLOCKS - 1))
                sha.update(stream.read(BLOCK))
    return sha.hexdigest()
