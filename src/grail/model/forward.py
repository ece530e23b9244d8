"""A model's forward pass: logits where answers are predicted, and training or evaluation mode.

Shape letters, used in all signatures: B sequences, T tokens, K answer tokens of a batch (row after
row), V vocabulary, O x I a weight.
"""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from grail.data.batches import Batch

Policy = nn.Module
"""The model that is trained or evaluated: a transformers model, or a PEFT model around one."""

Index = Bool[Tensor, "B T"] | tuple[Int[Tensor, " K"], Int[Tensor, " K"]]
"""Positions in a batch: a mask, or rows and their positions."""


def trainable(model: Policy) -> dict[str, nn.Parameter]:
    """Return the parameters that training may change, by name, in the model's order."""
    return {name: p for name, p in model.named_parameters() if p.requires_grad}


def device_of(model: Policy) -> torch.device:
    """Return the device of the model's weights."""
    return next(model.parameters()).device


def precision_of(model: Policy) -> torch.dtype:
    """Return the precision of the base's weights, those that are stored in few bits left out."""
    return next(p.dtype for p in model.parameters() if p.is_floating_point())


def positions_of(config: Any) -> int | None:
    """Return the most tokens that a model of these settings has positions for, if it says so."""
    text = config.get_text_config()
    names = ("max_position_embeddings", "max_seq_len")
    return next((value for name in names if (value := getattr(text, name, None))), None)


def is_adapter(model: Policy) -> bool:
    """Tell whether only a PEFT adapter is trained."""
    return hasattr(model, "peft_config")


def without_adapter(model: Policy) -> Any:
    """Return the transformers model under an adapter, or the model itself if it has none."""
    return model.get_base_model() if is_adapter(model) else model  # type: ignore[operator]


def answer_logits(model: Policy, batch: Batch) -> Float[Tensor, "K V"]:
    """Return the logits of a padded batch that predict answer tokens, row after row."""
    return logits_at(model, batch.at, input_ids=batch.ids, attention_mask=batch.attention)


def logits_at(model: Policy, at: Index, **inputs: Any) -> Float[Tensor, "K V"]:
    """Run the model and return the logits at the positions ``at``.

    The LM head computes no others: with a vocabulary of 50 thousand, logits of the whole prompt
    would cost more than the rest of a small model. transformers' own ``logits_to_keep`` takes such
    a mask from 5.21 on, which needs Python 3.11, and two model classes do not have it; hence a
    hook. Where a model does not call its head as a module, all logits are computed and indexed.
    """
    head: nn.Module = model.get_output_embeddings()  # type: ignore[operator]
    hook = head.register_forward_pre_hook(lambda _, given: (given[0][at], *given[1:]))
    try:
        logits = model(**inputs, use_cache=False).logits
    finally:
        hook.remove()
    return logits if logits.dim() == 2 else logits[at]


def evaluating(model: Policy) -> AbstractContextManager[None]:
    """Switch dropout off inside the block."""
    return in_mode(model, training=False)


@contextmanager
def in_mode(model: Policy, training: bool) -> Iterator[None]:
    """Put all modules in training mode or not inside the block; each returns to its own mode."""
    changed = [module for module in model.modules() if module.training != training]
    try:
        for module in changed:
            module.training = training
        yield
    finally:
        for module in changed:
            module.training = not training
