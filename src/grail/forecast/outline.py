"""A model's shapes without its weights, for a model that is not on this machine or does not fit."""

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
"""A model is loaded if twice the size of its files fits into the machine's memory."""


def at_hand(name: str) -> bool:
    """Tell whether the weights are on this machine and fit into its memory; downloads nothing."""
    base = Path(find(name).base)
    if not base.exists():
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            base = Path(snapshot_download(str(find(name).base), local_files_only=True))
        except (LocalEntryNotFoundError, ValueError):  # a name that no Hub id can have
            return False
    files = [base] if base.is_file() else [*base.glob("*.safetensors"), *base.glob("*.bin")]
    return bool(files) and ROOM * sum(file.stat().st_size for file in files) <= _memory()


def outline(config: Config) -> Policy:
    """Return the configured model on the device ``meta``: shapes alone.

    With ``dtype: auto``, all weights are float32, and those under an adapter bfloat16.

    Raises:
        InputError: if the model's own settings cannot be read.
    """
    from transformers import AutoConfig, AutoModelForCausalLM

    settings, source = config.model, find(config.model.name)
    automatic = "float32" if settings.lora is None else "bfloat16"
    dtype = automatic if settings.dtype == "auto" else settings.dtype
    try:
        architecture = AutoConfig.from_pretrained(source.unpacked())
    except (OSError, ValueError) as error:
        raise InputError(
            f"model.name: the settings of '{settings.name}' cannot be read "
            f"({str(error).splitlines()[0]}). Give a folder, or a Hub id that can be reached."
        ) from error
    with torch.device("meta"):
        model: Any = AutoModelForCausalLM.from_config(architecture, dtype=getattr(torch, dtype))
        if settings.lora is None:
            return model
        from peft import LoraConfig, get_peft_model

        lora, start = settings.lora, config.adapter or source.adapter
        adapter: Any = LoraConfig(
            r=lora.r, target_modules=lora.target_modules, task_type="CAUSAL_LM"
        )
        if start is not None:
            adapter = LoraConfig.from_pretrained(str(start))
        return get_peft_model(model, adapter)


def _memory() -> int:
    """Return the bytes of this machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
