"""Continuations of prompts, greedy or sampled; knows no side and no domain."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch

from grail.data.encode import Encoded
from grail.model.forward import Policy, device_of, evaluating, is_adapter
from grail.model.fused_lora import fused


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


def groups_of(rows: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    """Return the batches in which prompts are continued, as places in ``rows``."""
    return _batches(rows, [0] * len(rows), range(len(rows)), batch_size)


def _batches(
    rows: Sequence[Encoded], known: Sequence[int], places: Sequence[int], batch_size: int
) -> list[list[int]]:
    def likeness(place: int) -> tuple[int, int, str]:
        row, begun = rows[place], known[place]
        return len(row.answer) - begun, row.start + begun, row.key

    order = sorted(places, key=likeness)
    return [order[i : i + batch_size] for i in range(0, len(order), batch_size)]


def most_new(row: Encoded, limit: int) -> int:
    """Return how many tokens may be made: half as many again as the true ones, within a limit."""
    return min(limit, len(row.answer) + len(row.answer) // 2 + 4)


@dataclass(frozen=True)
class Writer:
    """Lets a model continue prompts.

    Attributes:
        model: The model.
        tokenizer: Its tokenizer.
        limit: The most tokens of a text.
        batch_size: Prompts that are continued at once.
    """

    model: Policy
    tokenizer: Any
    limit: int
    batch_size: int

    def continued(
        self,
        rows: Sequence[Encoded],
        say: Callable[[int], None],
        draw: Draw | None = None,
        known: Mapping[str, int] | None = None,
    ) -> list[str]:
        """Continue the rows' prompts, and return the texts in the order of ``rows``.

        Args:
            rows: The rows; one may stand there several times.
            say: Is told how many are done.
            draw: How to sample, each batch from a seed of its own; None: greedily.
            known: Key -> with how many tokens of the answer the greedy text is known to begin: the
                first that a teacher-forced pass found most probable, each after those before it.
                They are read, not made again; a row that is known to its end needs no step at all.
        """
        heads = [self._head(row, (known or {}).get(row.key, 0)) for row in rows]
        written = [list(head) for head in heads]
        open_ = [i for i, row in enumerate(rows) if not self._ended(heads[i], row)]
        done = len(rows) - len(open_)
        if done:
            say(done)
        for places in _batches(rows, list(map(len, heads)), open_, self.batch_size):
            prompts = [(*rows[i].ids[: rows[i].start], *heads[i]) for i in places]
            most = [most_new(rows[i], self.limit) - len(heads[i]) for i in places]
            how = None if draw is None else replace(draw, seed=draw.seed + done)
            made = generate(self.model, prompts, most, self.tokenizer, how)
            for i, ids in zip(places, made, strict=True):
                written[i] += ids
            done += len(places)
            say(done)
        return [self.tokenizer.decode(ids, skip_special_tokens=True) for ids in written]

    def _head(self, row: Encoded, known: int) -> tuple[int, ...]:
        """Return what is known of a text, up to the end token and within the limit."""
        head, end = row.answer[: min(known, most_new(row, self.limit))], self._end
        return head[: head.index(end) + 1] if end in head else head

    def _ended(self, head: Sequence[int], row: Encoded) -> bool:
        return self._end in head or len(head) == most_new(row, self.limit)

    @property
    def _end(self) -> int:
        return self.tokenizer.eos_token_id
