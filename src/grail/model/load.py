"""Load a causal language model, its adapter and its tokenizer, as the ``model`` section says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from grail.config.run import Lora, Model
from grail.errors import InputError
from grail.model import packing
from grail.model.forward import Policy
from grail.model.sources import PACKAGED, Source, find


def load_model(settings: Model, adapter: str | None, seed: int) -> Policy:
    """Load the base model and put a trainable adapter on it (or free all weights).

    Args:
        settings: The ``model`` section.
        adapter: PEFT folder to start from (``vanilla.adapter``), or None for a new adapter.
        seed: Determines a new adapter's initial values.

    Raises:
        InputError: if the model or the adapter cannot be found or read.
    """
    source = find(settings.name)
    start = Path(adapter) if adapter is not None else source.adapter
    if start is not None and not (start / "adapter_config.json").is_file():
        raise InputError(f"vanilla.adapter: {start} is not a PEFT folder (adapter_config.json).")
    with torch.random.fork_rng():  # PEFT draws an adapter's values from the global generator
        model = _base(source, settings)
        if start is not None:
            model = _saved_adapter(model, start, settings.lora is not None)
        elif settings.lora is not None:
            model = _new_adapter(model, settings.lora, seed)
    if settings.lora is None:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
    return model


def load_tokenizer(settings: Model) -> Any:
    """Load the tokenizer of ``model.name``; no weights are read.

    Raises:
        InputError: if there is no tokenizer, or it has no end token.
    """
    from transformers import AutoTokenizer

    source = find(settings.name)
    try:
        tokenizer = AutoTokenizer.from_pretrained(source.unpacked())
    except Exception as error:
        raise _unreadable(settings.name, error) from error
    if tokenizer.eos_token_id is None:
        raise InputError(f"model.name: the tokenizer of {settings.name} has no end token.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _base(source: Source, settings: Model) -> Policy:
    from transformers import AutoModelForCausalLM

    attention = settings.attention
    if attention == "auto":
        attention = "sdpa" if torch.cuda.is_available() else "packed"
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.unpacked(),
            dtype=_dtype(settings),
            attn_implementation="eager" if attention == "packed" else attention,
        )
    except Exception as error:  # transformers raises many kinds for one cause: no such model
        raise _unreadable(settings.name, error) from error
    if attention == "packed" and not packing.enable(model) and settings.attention == "packed":
        raise InputError(
            f"model.attention: {settings.name} computes other logits for packed rows than for "
            "single ones. Use auto, eager or sdpa."
        )
    return model


def _unreadable(name: str, error: Exception) -> InputError:
    return InputError(
        f"model.name: '{name}' cannot be loaded ({_first_line(error)}). Give a Hub id that "
        "can be reached or is cached, a folder, a PEFT adapter, a .gguf file, or one of: "
        f"{', '.join(PACKAGED)}."
    )


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__


def _dtype(settings: Model) -> torch.dtype:
    """``auto``: float32 for full weights; for a frozen base, bfloat16 if the hardware has it."""
    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)
    if settings.lora is None:
        return torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    capabilities = torch.cpu.get_capabilities()
    return torch.bfloat16 if capabilities.get("avx512_bf16") else torch.float32


def _saved_adapter(model: Policy, start: Path, train: bool) -> Policy:
    """Put a saved adapter on the model: to train it further, or else merged into the weights."""
    from peft import PeftModel

    try:
        adapted = PeftModel.from_pretrained(model, str(start), is_trainable=train)  # type: ignore
    except Exception as error:  # as many kinds as in _base, for one cause: it does not fit
        raise InputError(
            f"vanilla.adapter or model.name: the adapter {start} cannot be put on the model "
            f"({_first_line(error)})."
        ) from error
    return adapted if train else adapted.merge_and_unload()  # type: ignore[operator]


def _new_adapter(model: Policy, lora: Lora, seed: int) -> Policy:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)  # independent of what loading the base has drawn
    try:
        return get_peft_model(model, settings)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"model.lora.target_modules: {error}") from error
