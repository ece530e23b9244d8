"""A model's forward pass: logits where answers are predicted, and training or evaluation mode.

Shape letters, used in all signatures: B sequences, T tokens, K answer tokens of a batch (row after
row), V vocabulary, O x I a weight.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from grail.model import packing

Policy = nn.Module
"""The model being measured or trained: a transformers model, or a PEFT model around one."""


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


def is_adapter(model: Policy) -> bool:
    """Tell whether only a PEFT adapter is trained."""
    return hasattr(model, "peft_config")
