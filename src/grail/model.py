"""A causal language model and the few things done with it; knows no side, no domain, no mask.

Shape letters, used in all signatures: B sequences, T tokens, K answer tokens of a batch (row after
row), V vocabulary, O x I a weight.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from grail import packing
from grail.config import Lora, Model
from grail.errors import InputError
from grail.weights import PACKAGED, Source, find

Policy = nn.Module
"""The model being measured or trained: a transformers model, or a PEFT model around one."""


def load(settings: Model, adapter: str | None, seed: int) -> Policy:
    """Load the base model and put a trainable adapter on it (or free all weights).

    Args:
        settings: The ``model`` section.
        adapter: PEFT folder to start from (``vanilla.adapter``), or None for a fresh adapter.
        seed: Fixes the fresh adapter's initial values.

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
            model = _given_adapter(model, start, settings.lora is not None)
        elif settings.lora is not None:
            model = _fresh_adapter(model, settings.lora, seed)
    if settings.lora is None:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
    return model


def load_tokenizer(settings: Model) -> Any:
    """Load the tokenizer that belongs to ``model.name``; no weights are read.

    Raises:
        InputError: if there is none, or it has no end token.
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


def trainable(model: Policy) -> dict[str, nn.Parameter]:
    """Return the parameters that training may change, by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def device_of(model: Policy) -> torch.device:
    """Return where the model's weights lie."""
    return next(model.parameters()).device


def answer_logits(
    model: Policy, ids: Int[Tensor, "B T"], attention: Int[Tensor, "B T"], at: Bool[Tensor, "B T"]
) -> Float[Tensor, "K V"]:
    """Return the logits at the positions ``at`` only, row after row.

    The LM head reads nothing else: with a vocabulary of 50 thousand, logits of the whole prompt
    would cost more than the rest of a small model. What follows the head in a model's own forward
    (soft caps, scales) works entry by entry, so it is applied as it stands.
    """
    return _logits(model, at, {"input_ids": ids, "attention_mask": attention})


def packed_logits(model: Policy, rows: packing.Packed) -> Float[Tensor, "K V"]:
    """Return what ``answer_logits`` does, from a model that packs: padding is not computed."""
    with packing.reading(rows):
        return _logits(model, rows.at, rows.inputs)


def _logits(model: Policy, at: Tensor, inputs: dict[str, Tensor]) -> Float[Tensor, "K V"]:
    """Run the model; ``at`` marks positions of a padded batch, or counts those of packed rows."""
    head = model.get_output_embeddings()  # type: ignore[operator]
    hook = head.register_forward_pre_hook(partial(_only, at))
    try:
        return model(**inputs, use_cache=False).logits
    finally:
        hook.remove()


def _only(at: Tensor, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    states = inputs[0] if at.dtype == torch.bool else inputs[0][0]
    return (states[at], *inputs[1:])


def evaluating(model: Policy) -> AbstractContextManager[None]:
    """Switch dropout off inside the block."""
    return in_mode(model, training=False)


@contextmanager
def in_mode(model: Policy, training: bool) -> Iterator[None]:
    """Let the model be in training mode or not inside the block, then each module as it was."""
    others = [module for module in model.modules() if module.training != training]
    try:
        for module in others:
            module.training = training
        yield
    finally:
        for module in others:
            module.training = not training


def save_weights(model: Policy, folder: Path) -> None:
    """Write the adapter (PEFT's format and names) or the full model into an existing folder."""
    if is_adapter(model):
        with _without_card(model):
            model.save_pretrained(folder, save_embedding_layers=False)  # type: ignore[operator]
        _sort_lists(folder / "adapter_config.json")
    else:
        model.save_pretrained(folder)  # type: ignore[operator]


@contextmanager
def _without_card(model: Any) -> Iterator[None]:
    """Let PEFT write no model card: an empty form, which takes longer than a small adapter."""
    model.create_or_update_model_card = lambda *_: None
    try:
        yield
    finally:
        del model.create_or_update_model_card


def _sort_lists(file: Path) -> None:
    """Put lists of names in order: PEFT writes sets, in another order in every process."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    for value in settings.values():
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            value.sort()
    file.write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")


def load_weights(model: Policy, folder: Path) -> None:
    """Put the weights that ``save_weights`` wrote back into a model of the same shape.

    Full weights are read by transformers: on disk some models' weights have other names (GPT-NeoX).

    Raises:
        InputError: if some of the weights are not there.
    """
    if is_adapter(model):
        from peft import get_peft_model_state_dict, set_peft_model_state_dict
        from safetensors.torch import load_file

        state = load_file(folder / "adapter_model.safetensors")
        missing = set(get_peft_model_state_dict(model, save_embedding_layers=False)) - set(state)
        _refuse_missing(missing, folder)
        set_peft_model_state_dict(model, state)
        return
    saved, found = type(model).from_pretrained(  # type: ignore[attr-defined]
        folder, dtype=next(model.parameters()).dtype, output_loading_info=True
    )
    _refuse_missing(found["missing_keys"], folder)
    model.load_state_dict(saved.state_dict())


def _refuse_missing(missing: Collection[str], folder: Path) -> None:
    if missing:
        raise InputError(f"{folder} lacks {len(missing)} weights, for example {min(missing)}.")


def is_adapter(model: Policy) -> bool:
    """Tell whether only a PEFT adapter is trained."""
    return hasattr(model, "peft_config")


def _base(source: Source, settings: Model) -> Policy:
    from transformers import AutoModelForCausalLM

    kind = _attention(settings)
    try:
        model = AutoModelForCausalLM.from_pretrained(
            source.unpacked(),
            dtype=_dtype(settings),
            attn_implementation="eager" if kind == "packed" else kind,
        )
    except Exception as error:  # transformers raises many kinds for one cause: no such model
        raise _unreadable(settings.name, error) from error
    if kind == "packed" and not packing.adopt(model) and settings.attention == "packed":
        raise InputError(
            f"model.attention: packed does not give what {settings.name} says about single rows. "
            "Use auto, eager or sdpa."
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
    """``auto``: float32 for full weights; for a frozen base, bfloat16 where there is hardware."""
    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)
    if settings.lora is None:
        return torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    capable = torch.cpu.get_capabilities()
    return torch.bfloat16 if capable.get("avx512_bf16") else torch.float32


def _attention(settings: Model) -> str:
    """``auto``: on a CPU rows behind each other, with plain attention, if the model can do that.

    A GPU reads padded rows faster than it starts a kernel for each of them.
    """
    if settings.attention != "auto":
        return settings.attention
    return "sdpa" if torch.cuda.is_available() else "packed"


def _given_adapter(model: Policy, start: Path, train: bool) -> Policy:
    """Put an adapter on the model: to be trained further, or merged where all weights are."""
    from peft import PeftModel

    try:
        found = PeftModel.from_pretrained(model, str(start), is_trainable=train)  # type: ignore
    except Exception as error:  # as many kinds as in _base, for one cause: it does not fit
        raise InputError(
            f"vanilla.adapter or model.name: the adapter {start} cannot be put on the model "
            f"({_first_line(error)})."
        ) from error
    return found if train else found.merge_and_unload()  # type: ignore[operator]


def _fresh_adapter(model: Policy, lora: Lora, seed: int) -> Policy:
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)  # whatever loading the base has drawn
    try:
        return get_peft_model(model, settings)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"model.lora.target_modules: {error}") from error
