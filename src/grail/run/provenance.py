"""What a run was made with: versions, source revision, identity of the base model."""

import hashlib
import platform
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grail import __version__
from grail.errors import InputError
from grail.files import digest
from grail.model.sources import adapter_settings, files_read, find, version, weight_files

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


def software() -> dict[str, Any]:
    """Return which grail this is, version and git revision: equal ones write the same words."""
    return {"grail": __version__, "git": revision()}


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


def model_identity(name: str, adapter: str | None = None) -> str:
    """Return a digest that changes when what is read of a model changes: base and adapter.

    That is weights, settings, tokenizer and chat templates, and nothing else in their folders.
    Small files are read whole; of a large one its size and 64 samples spread over it, because
    training moves nearly every weight and reading all of a large model at every start would take
    longer than many stages. A Hub id stands for itself. ``adapter`` is ``teach.adapter``, if any.
    """
    source = find(name)
    start = Path(adapter) if adapter else source.adapter
    places = [Path(source.base), *([start] if start else [])]
    found = [
        [str(file.relative_to(place)), _sampled(file)]
        for place in places
        for file in files_read(place)
    ]
    return digest([found or source.base])


def other_base(name: str, adapter: str) -> str | None:
    """Return the base that an adapter names, if it is not, or may not be, that of ``model.name``.

    Raises:
        InputError: if it lies on this machine and its weights are others.
    """
    named = adapter_settings(Path(adapter)).get("base_model_name_or_path")
    base = find(name).base
    if not named or named in (name, base) or Path(named).resolve() == Path(base).resolve():
        return None
    if not Path(named).exists():
        return named
    base = find(name).unpacked()  # the base of grail's own adapters, where a GGUF file is given
    one, other = ([_sampled(f) for f in weight_files(Path(place))] for place in (named, base))
    if one != other:
        raise InputError(
            f"teach.adapter: {adapter} was trained on {named}, whose weights are not those of "
            f"model.name ({name}). Give {named} as model.name; if the adapter is meant for "
            f"{name}, write that into its adapter_config.json (base_model_name_or_path)."
        )
    return None


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
