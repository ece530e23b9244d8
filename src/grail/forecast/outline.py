"""A model's outline: its parameters' shapes without their values, where these cannot be had."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import torch

from grail.config.run import Config
from grail.errors import InputError
from grail.model.forward import Policy
from grail.model.sources import find

ROOM = 2
"""A model is loaded where its files fit so many times into the machine's memory."""


def at_hand(name: str) -> bool:
    """Tell whether the weights lie on this machine and fit into its memory; downloads nothing."""
    base = find(name).base
    place = Path(base)
    if not place.exists():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            place = Path(snapshot_download(base, local_files_only=True))
        except (LocalEntryNotFoundError, ValueError):  # a name that no Hub id can have
            return False
    files = [place] if place.is_file() else [*place.glob("*.safetensors"), *place.glob("*.bin")]
    size = sum(file.stat().st_size for file in files)
    return bool(files) and ROOM * size <= _memory()


def outline(config: Config) -> Policy:
    """Return the model that the configuration asks for, on the device ``meta``: shapes alone.

    Its precision is the configured one; for ``auto``, float32 for all weights and bfloat16 under an
    adapter.

    Raises:
        InputError: if the model's own settings cannot be read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    settings, source = config.model, find(config.model.name)
    wide = settings.lora is None
    name = settings.dtype if settings.dtype != "auto" else "float32" if wide else "bfloat16"
    try:
        about = AutoConfig.from_pretrained(source.unpacked())
    except (OSError, ValueError) as error:
        raise InputError(
            f"model.name: the settings of '{settings.name}' cannot be read "
            f"({str(error).splitlines()[0]}). Give a folder, or a Hub id that can be reached."
        ) from error
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(about, dtype=getattr(torch, name))
        return model if wide else _with_adapter(model, config)


def _with_adapter(model: Any, config: Config) -> Policy:
    from peft import LoraConfig, get_peft_model

    given = config.vanilla.adapter or find(config.model.name).adapter
    if given is not None:
        found: Any = LoraConfig.from_pretrained(str(given))
    else:
        lora = config.model.lora
        if lora is None:
            return model
        found = LoraConfig(r=lora.r, target_modules=lora.target_modules, task_type="CAUSAL_LM")
    return get_peft_model(model, found)


def _memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
