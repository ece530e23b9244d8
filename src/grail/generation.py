"""Continuations of prompts, greedy or sampled; knows no side and no domain."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from grail.lora import fused
from grail.model import Policy, device_of, evaluating, is_adapter


@dataclass(frozen=True)
class Draw:
    """Sampling from the model's own distribution: nothing cut off, ``temperature`` 1 as it is."""

    temperature: float
    seed: int


@torch.no_grad()
def generate(
    model: Policy,
    prompts: Sequence[Sequence[int]],
    most: Sequence[int],
    tokenizer: Any,
    draw: Draw | None = None,
) -> list[list[int]]:
    """Continue a batch of prompts, without the end token.

    Args:
        model: The model.
        prompts: Token ids, one sequence per row; padded on the left here.
        most: The most tokens to generate, per row.
        tokenizer: Gives the padding and end tokens.
        draw: How to sample; None: greedily.
    """
    width, device = max(map(len, prompts)), device_of(model)
    pad, end = tokenizer.pad_token_id, tokenizer.eos_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts], device=device)
    attention = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    how = _settings(draw, max_new_tokens=max(most), pad_token_id=pad, eos_token_id=end)
    with evaluating(model), _without_defaults(model), fused(model), _seeded(draw):
        out = model.generate(  # type: ignore[operator]
            input_ids=ids, attention_mask=attention.to(device), generation_config=how
        )
    rows = [row[:limit] for row, limit in zip(out[:, width:].tolist(), most, strict=True)]
    return [row[: row.index(end)] if end in row else row for row in rows]


def _settings(draw: Draw | None, **limits: int) -> Any:
    from transformers import GenerationConfig

    if draw is None:
        return GenerationConfig(do_sample=False, **limits)
    return GenerationConfig(
        do_sample=True, temperature=draw.temperature, top_k=0, top_p=1.0, **limits
    )


@contextmanager
def _seeded(draw: Draw | None) -> Iterator[None]:
    """Draw from a seed of its own inside the block; the global generator goes on as it was."""
    if draw is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(draw.seed)
        yield


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
