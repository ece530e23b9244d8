"""Load a causal language model, its adapter and its tokenizer, as the ``model`` section says."""

import warnings
from pathlib import Path
from typing import Any

import torch

from grail.config.run import Lora, Model
from grail.errors import InputError
from grail.model import packing
from grail.model.checkpointing import recompute_activations
from grail.model.complete import check_loaded, load_complete, repeated_weights
from grail.model.forward import Policy
from grail.model.probe import logits_of, refuse_looking_ahead, same_logits, short_row
from grail.model.quantisation import loading_options, settle
from grail.model.sources import (
    PACKAGED,
    Source,
    adapter_settings,
    find,
    has_tokenizer,
    version,
    weight_files,
)


def load_model(settings: Model, adapter: str | None, seed: int) -> Policy:
    """Load the base model and put a trainable adapter on it (or free all weights).

    ``adapter`` is a PEFT folder to start from (``teach.adapter``); None: a new adapter, whose
    values are drawn by ``seed``.

    Raises:
        InputError: if the model or the adapter cannot be found or read, if a weight of either is
            missing or has no place, or if the model reads the tokens that it must predict.
    """
    source = find(settings.name)
    start = Path(adapter) if adapter is not None else source.adapter
    what = f"teach.adapter or model.name: the adapter {start}"
    if start is not None:
        _check_readable(start, what)
    with torch.random.fork_rng():  # PEFT draws an adapter's values from the global generator
        model = _base(source, settings)
        if start is not None:
            model = _saved_adapter(model, start, what, settings.lora is not None)
        elif settings.lora is not None:
            model = new_adapter(model, settings.lora, seed)
    if settings.lora is None:
        for parameter in model.parameters():
            parameter.requires_grad_(True)
    if settings.gradient_checkpointing:
        recompute_activations(model)
    return model


def load_tokenizer(settings: Model, adapter: str | None = None) -> Any:
    """Load the tokenizer of an adapter's folder if it has one, else that of the model.

    A folder with a chat template alone gives that to the model's tokenizer. No weights are read.
    ``adapter`` is a PEFT folder (``teach.adapter``); None: that of ``model.name``, if any.
    InputError if there is no tokenizer, or it has no end token.
    """
    from transformers import AutoTokenizer

    source = find(settings.name)
    start = Path(adapter) if adapter is not None else source.adapter
    own = start is not None and has_tokenizer(start)
    try:
        tokenizer = AutoTokenizer.from_pretrained(start if own else source.unpacked())
    except Exception as error:
        raise _unreadable(str(start) if own else settings.name, error) from error
    if start is not None and not own and (file := start / "chat_template.jinja").is_file():
        tokenizer.chat_template = file.read_text(encoding="utf-8")
    if tokenizer.eos_token_id is None:
        raise InputError(f"model.name: the tokenizer of {settings.name} has no end token.")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def _base(source: Source, settings: Model) -> Policy:
    from transformers import AutoModelForCausalLM

    what = f"model.name: {settings.name}" + (f" (base {source.base})" if source.adapter else "")
    attention, dtype = settings.attention, dtype_of(settings)
    if attention == "auto":
        attention = "sdpa" if torch.cuda.is_available() else "packed"
    try:
        model = load_complete(
            AutoModelForCausalLM,
            source.unpacked(),
            what,
            dtype=dtype,
            attn_implementation="eager" if attention == "packed" else attention,
            **loading_options(settings.quantise, dtype),
        )
    except InputError:
        raise
    except Exception as error:  # transformers raises many kinds for one cause: no such model
        raise _unreadable(settings.name, error) from error
    settle(model)
    refuse_looking_ahead(model)
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


def dtype_of(settings: Model) -> torch.dtype:
    """``auto``: float32 for full weights; for a frozen base, bfloat16 if the hardware has it."""
    if settings.dtype != "auto":
        return getattr(torch, settings.dtype)
    if settings.lora is None:
        return torch.float32
    if torch.cuda.is_available():
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    capabilities = torch.cpu.get_capabilities()
    return torch.bfloat16 if capabilities.get("avx512_bf16") else torch.float32


def _saved_adapter(model: Policy, start: Path, what: str, train: bool) -> Policy:
    """Put a saved adapter on the model: to train it further, or else merged into the weights."""
    from peft import PeftModel, load_peft_weights

    base: Any = model
    tied = _is_tied(base)
    try:
        saved = load_peft_weights(str(start), device="cpu")
        repeated = repeated_weights(model, saved)
        with warnings.catch_warnings():  # check_loaded names what is missing, as an error
            warnings.filterwarnings("ignore", message="Found missing adapter keys")
            adapted: Any = PeftModel.from_pretrained(base, str(start), is_trainable=train)
    except Exception as error:  # as many kinds as in _base, for one cause: it does not fit
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:300]  # names a weight
        raise InputError(f"{what} cannot be put on the model ({reason}).") from error
    check_loaded(adapted, saved, repeated, what)
    _refuse_tied(adapted, what)
    if not train:
        return _merged(adapted, what, tied)
    config = adapted.peft_config["default"]  # may name another folder of the same base
    config.base_model_name_or_path, config.revision = base.name_or_path, None
    return adapted


def _check_readable(start: Path, what: str) -> None:
    """Refuse an adapter without weights, or with settings that PEFT ignores with a warning."""
    from peft import PEFT_TYPE_TO_CONFIG_MAPPING

    settings, kinds = adapter_settings(start), dict[Any, Any](PEFT_TYPE_TO_CONFIG_MAPPING)
    if not weight_files(start):
        raise InputError(f"{what} has no weights (adapter_model.safetensors).")
    if (kind := settings.get("peft_type")) not in kinds:
        raise InputError(f"{what} is of the kind {kind}, which the installed PEFT does not know.")
    known = kinds[kind].__dataclass_fields__
    if unread := [key for key, value in settings.items() if value and key not in known]:
        raise InputError(
            f"{what} sets {', '.join(unread)}, which the installed PEFT ({version('peft')}) would "
            "ignore. Install the one that the adapter was saved with."
        )


def _is_tied(model: Any) -> bool:
    return model.get_output_embeddings().weight is model.get_input_embeddings().weight


def _merged(adapted: Any, what: str, tied: bool) -> Policy:
    """Merge an adapter into its base, if that leaves what the model computes as it is.

    A base whose embedding and head are tied must stay so: a saved model is tied again.
    """
    advice = (
        f"{what} ({adapted.peft_config['default'].peft_type.value}) cannot be merged into the "
        "weights. Leave model.lora as it is, to train the adapter, or give a model in which it is "
        "merged."
    )
    row = short_row(adapted)
    before = logits_of(adapted, row)
    try:
        merged = adapted.merge_and_unload()
    except Exception as error:  # each kind of adapter fails in its own way
        raise InputError(f"{advice} ({_first_line(error)})") from error
    if _is_tied(merged) != tied or not same_logits(merged, logits_of(merged, row), before):
        raise InputError(f"{advice} (The merged model would compute something else.)")
    return merged


def _refuse_tied(adapted: Any, what: str) -> None:
    """Refuse an adapter on a weight that embedding and head share: merged, it changes both."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    embedding, head = adapted.get_input_embeddings(), adapted.get_output_embeddings()
    adapts = [part for part in (embedding, head) if isinstance(part, BaseTunerLayer)]
    if adapts and _is_tied(adapted):
        names = {id(module): name for name, module in adapted.named_modules()}
        raise InputError(
            f"{what} adapts {names[id(adapts[0])]}, whose weight embedding and LM head share "
            "(tie_word_embeddings): merged, it would change both. Leave it out of target_modules."
        )


def new_adapter(model: Policy, lora: Lora, seed: int) -> Policy:
    """Put a new adapter, drawn by ``seed``, on modules of a model; answers stay the same."""
    from peft import LoraConfig, get_peft_model

    settings = LoraConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )
    torch.manual_seed(seed)  # independent of what loading the base has drawn
    key = "model.lora.target_modules:"
    try:
        adapted: Any = get_peft_model(model, settings)  # type: ignore[arg-type]
    except ValueError as error:
        raise InputError(f"{key} {error}") from error
    found = [f".{name}" for name in adapted.base_model.targeted_module_names]
    listed = lora.target_modules if isinstance(lora.target_modules, list) else []
    if unknown := [each for each in listed if not any(n.endswith(f".{each}") for n in found)]:
        raise InputError(f"{key} the model has no {', '.join(unknown)} that can be adapted.")
    _refuse_tied(adapted, key)
    return adapted
