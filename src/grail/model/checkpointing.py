"""Gradient checkpointing: less memory in training for a second forward pass."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

from grail.errors import InputError
from grail.model.forward import Policy
from grail.model.fused_lora import fused, is_fused

Contexts = tuple[AbstractContextManager[None], AbstractContextManager[None]]


def recompute_activations(model: Policy) -> None:
    """Let the layers of a model keep their inputs alone in training mode.

    The backward pass computes the rest of a layer again, by the same operations: gradients are
    equal to the bit. In evaluation mode, and so while scoring, nothing changes. InputError if
    transformers cannot do it for this class of model.
    """

    def contexts() -> Contexts:
        return nullcontext(), fused(model) if is_fused(model) else nullcontext()

    names = ("activation_checkpointing_enable", "gradient_checkpointing_enable")  # new and old
    enable: Any = next(getattr(model, name) for name in names if hasattr(model, name))
    try:
        enable({"use_reentrant": False, "context_fn": contexts})
    except ValueError as error:
        raise InputError(
            f"model.gradient_checkpointing: {error} Set it to false, and a smaller "
            "unlearning.batch_size or a larger unlearning.accumulation instead."
        ) from error
