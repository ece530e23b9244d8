"""Refuse what a load leaves out: every weight of the model is in the file, and the reverse."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from grail.errors import InputError

SHOWN = 5
"""An error names at most this many weights of each kind."""


def load_complete(loader: Any, place: str | Path, what: str, **options: Any) -> Any:
    """Return ``loader.from_pretrained(place, **options)`` if each weight came from its file.

    transformers draws a weight that no file has at random, and drops one that the model has no
    place for; it says so in a log that few read. Here an InputError names such weights.
    """
    options |= {"output_loading_info": True, "ignore_mismatched_sizes": True}
    model, info = loader.from_pretrained(place, **options)
    if other := _named(name for name, *_ in info["mismatched_keys"]):
        raise InputError(
            f"{what} holds {other} of another shape than its configuration says. Give the "
            "configuration that the weights were saved with."
        )
    refuse_difference(what, info["missing_keys"], info["unexpected_keys"])
    return model


def refuse_difference(what: str, missing: Iterable[str], unused: Iterable[str]) -> None:
    """Refuse weights that a model needs and ``what`` lacks, or that it has no place for."""
    lacks, more = _named(missing), _named(unused)
    parts = ([f"lacks {lacks}"] if lacks else []) + ([f"holds {more} too many"] if more else [])
    if parts:
        raise InputError(
            f"{what} {' and '.join(parts)}. It is not complete, or made for another model or by "
            "other software: give all its files, with the configuration they were saved with."
        )


def _named(names: Iterable[str]) -> str:
    found = sorted(names)
    more = ", ..." if len(found) > SHOWN else ""
    count = f"{len(found)} weight{'s' * (len(found) > 1)}"
    return f"{count} ({', '.join(found[:SHOWN])}{more})" if found else ""


def check_loaded(adapted: Any, saved: dict[str, Tensor], repeated: set[str], what: str) -> None:
    """Refuse a PEFT model whose adapter is not, weight for weight, the saved one.

    ``repeated`` are names among ``saved`` of weights that the base has too, with the same values;
    ``what`` is the adapter's name in an error.
    """
    from peft import get_peft_model_state_dict

    own = get_peft_model_state_dict(adapted, save_embedding_layers=False).keys()
    refuse_difference(what, own - saved.keys(), saved.keys() - own - repeated)


def repeated_weights(base: nn.Module, saved: dict[str, Tensor]) -> set[str]:
    """Return the names of an adapter's weights that repeat the base's own, as PEFT saves them."""
    own = base.state_dict()

    def is_own(name: str, value: Tensor) -> bool:
        weight = own.get(name.removeprefix("base_model.model.").replace(".base_layer.", "."))
        same = weight is not None and weight.shape == value.shape
        return same and bool((weight == value.to(weight)).all())

    return {name for name, value in saved.items() if is_own(name, value)}


def unread_tensors(gguf: Path, model: Any) -> set[str]:
    """Return the tensors of a GGUF file that transformers' loader for this architecture skips."""
    from gguf import GGUFReader
    from transformers import modeling_gguf_pytorch_utils as loader

    reader: Any = GGUFReader(gguf)
    names = {tensor.name for tensor in reader.tensors}
    architecture = str(reader.fields["general.architecture"].contents())
    processor = loader.TENSOR_PROCESSORS.get(architecture, loader.TensorProcessor)
    known = loader.get_gguf_hf_weights_map(model, processor(config=model.config.to_dict()))
    return {n for n in names if n not in known and n.removesuffix(".weight") not in known}


def refuse_part(gguf: Path) -> None:
    """Refuse a GGUF file that is one of several parts: the rest would be drawn at random."""
    from gguf import GGUFReader

    count = GGUFReader(gguf).get_field("split.count")
    if count is not None and int(count.contents()) > 1:
        raise InputError(
            f"model.name: {gguf.name} is one of {int(count.contents())} parts of a model. Join "
            "them first: llama-gguf-split --merge FIRST-PART WHOLE.gguf"
        )
