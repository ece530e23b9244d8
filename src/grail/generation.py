"""Greedy continuations of prompts; knows no side and no domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from grail.model import Policy, device_of, evaluating, is_adapter


@torch.no_grad()
def generate(
    model: Policy, prompts: Sequence[Sequence[int]], most: Sequence[int], tokenizer: Any
) -> list[list[int]]:
    """Greedy continuations of a batch of prompts, without the end token.

    Args:
        model: The model.
        prompts: Token ids, one sequence per row; padded on the left here.
        most: The most tokens to generate, per row.
        tokenizer: Gives the padding and end tokens.
    """
    from transformers import GenerationConfig

    width, device = max(map(len, prompts)), device_of(model)
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    attention = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    greedy = GenerationConfig(
        max_new_tokens=max(most), do_sample=False, pad_token_id=pad, eos_token_id=end
    )
    with evaluating(model), _without_defaults(model):
        out = model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=attention.to(device), generation_config=greedy
        )
    rows = [row[:limit] for row, limit in zip(out[:, width:].tolist(), most, strict=True)]
    return [row[: row.index(end)] if end in row else row for row in rows]


@contextmanager
def _without_defaults(model: Policy) -> Iterator[None]:
    """Set aside what the model's authors prefer (a repetition penalty, say): it is not greedy."""
    from transformers import GenerationConfig

    inner: Any = model.get_base_model() if is_adapter(model) else model  # type: ignore[operator]
    was = inner.generation_config
    inner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        inner.generation_config = was
