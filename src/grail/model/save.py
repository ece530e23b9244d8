"""Save and load trained weights: an adapter in PEFT's format, or the full model."""

import json
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from torch import Tensor

from grail.errors import InputError
from grail.model.forward import Policy, is_adapter


def save_weights(model: Policy, folder: Path, state: dict[str, Tensor] | None = None) -> None:
    """Write the adapter (PEFT's format and names) or the full model into an existing folder.

    ``state`` holds an adapter's values where the model's own parameters are in parts.
    """
    if is_adapter(model):
        with _without_card(model):
            model.save_pretrained(  # type: ignore[operator]
                folder, save_embedding_layers=False, state_dict=state
            )
        _sort_lists(folder / "adapter_config.json")
    else:
        model.save_pretrained(folder)  # type: ignore[operator]


@contextmanager
def _without_card(model: Any) -> Iterator[None]:
    """Write no PEFT model card: it is an empty form and takes longer than a small adapter."""
    model.create_or_update_model_card = lambda *_: None
    try:
        yield
    finally:
        del model.create_or_update_model_card


def _sort_lists(file: Path) -> None:
    """Sort lists of names: PEFT writes sets, whose order differs between processes."""
    settings = json.loads(file.read_text(encoding="utf-8"))
    for value in settings.values():
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            value.sort()
    file.write_text(json.dumps(settings, indent=2, sort_keys=True), encoding="utf-8")


def load_weights(model: Policy, folder: Path) -> None:
    """Read the weights that ``save_weights`` wrote into a model of the same shape.

    Full weights are read by transformers: the files of some models have other names (GPT-NeoX).
    InputError if some of the weights are missing.
    """
    if is_adapter(model):
        from peft import get_peft_model_state_dict, set_peft_model_state_dict
        from safetensors.torch import load_file

        state = load_file(folder / "adapter_model.safetensors")
        missing = set(get_peft_model_state_dict(model, save_embedding_layers=False)) - set(state)
        _refuse_missing(missing, folder)
        set_peft_model_state_dict(model, state)
        return
    saved, info = type(model).from_pretrained(  # type: ignore[attr-defined]
        folder, dtype=next(model.parameters()).dtype, output_loading_info=True
    )
    _refuse_missing(info["missing_keys"], folder)
    model.load_state_dict(saved.state_dict())


def _refuse_missing(missing: Collection[str], folder: Path) -> None:
    if missing:
        raise InputError(f"{folder} lacks {len(missing)} weights, for example {min(missing)}.")
