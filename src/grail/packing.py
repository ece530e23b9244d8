"""Rows behind each other instead of padded: one long sequence in which every row sees only itself.

Matrix products then read each weight once for all rows and compute on no padding. It is an
attention kind of transformers like any other (``model.attention: packed``); what it needs beyond
one is the rows' lengths, and a model that keeps rows apart everywhere else: ``adopt`` tries that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

NAME = "grail_packed"

ROWS: ContextVar[tuple[tuple[int, ...], ...]] = ContextVar("rows")
"""The parts of each row of the packed sequence that is being read; unset: rows are padded."""

TRIED = (3, 9, 5)
"""Lengths of the rows that ``adopt`` reads packed and one by one."""


def packs(model: nn.Module) -> bool:
    """Tell whether a model reads packed rows (see ``adopt``)."""
    config = getattr(model, "config", None)
    return getattr(config, "_attn_implementation", None) == NAME


def adopt(model: nn.Module) -> bool:
    """Let a transformers model read packed rows, if that gives what it says about single rows.

    A model qualifies whose attention goes through transformers' interface and in which nothing else
    passes from token to token (a convolution, a recurrent state). That cannot be read off a
    model's class, so three short rows are read both ways; otherwise the model stays as it was.
    """
    config: Any = getattr(model, "config", None)
    if config is None or not getattr(model, "_supports_attention_backend", False):
        return False
    _register()
    was, training = config._attn_implementation, model.training
    model.eval()
    alone = together = None
    try:
        alone, together = _trial(model, was), _trial(model, NAME)
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        pass  # a model of another build, whose forward pass takes other arguments
    finally:
        model.train(training)
        config._attn_implementation = was
    exact = next(model.parameters()).dtype in (torch.float32, torch.float64)
    if alone is None or together is None or not _close(together, alone, 1e-3 if exact else 0.05):
        return False
    config._attn_implementation = NAME
    return True


Parts = tuple[int, ...]
"""Tokens of a row: of its beginning, then of every branch that goes on from it (a plain row: none).

Branches see the beginning and themselves: the trials of a sample, which differ in the answer only.
"""


@dataclass(frozen=True)
class Packed:
    """Rows as one sequence.

    Attributes:
        inputs: What the model's forward pass is given.
        at: Where in the sequence the logits that were asked for stand, row after row; branches
            share the last position of their beginning.
        rows: The parts of each row.
        lengths: Tokens of each row, or of each group of rows that could have shared a beginning.
    """

    inputs: dict[str, Tensor]
    at: Int[Tensor, " K"]
    rows: tuple[Parts, ...]
    lengths: list[int]


def pack(
    ids: Int[Tensor, "B T"],
    attention: Int[Tensor, "B T"],
    at: Bool[Tensor, "B T"],
    branches: int = 1,
) -> Packed:
    """Put rows behind each other, each up to the last position that is asked for.

    Args:
        ids: Rows padded on the right.
        attention: 1 on tokens, 0 on padding.
        at: The positions that are asked for: at least one in every row.
        branches: So many rows, next to each other, become one row, in which what they begin with
            up to the first position that is asked for stands once.
    """
    device = ids.device
    ids, at = ids.cpu(), at.cpu() & attention.bool().cpu()
    tokens, positions, wanted = list[Tensor](), list[Tensor](), list[Tensor]()
    rows: list[Parts] = []
    lengths: list[int] = []
    for first in range(0, len(ids), branches):
        group = slice(first, first + branches)
        starts, ends = _spans(at[group])
        begin = starts[0] if branches > 1 and _begin_alike(ids[group], starts) else 0
        parts, place = [begin], sum(lengths)
        tokens.append(ids[first, :begin])
        positions.append(torch.arange(begin))
        for row, end in zip(range(first, first + branches), ends, strict=True):
            tokens.append(ids[row, begin:end])
            positions.append(torch.arange(begin, end))
            own = at[row].nonzero()[:, 0]
            shift = place + sum(parts) - begin
            wanted.append(torch.where(own < begin, place + own, shift + own))
            parts.append(end - begin)
        lengths.append(sum(parts))
        rows += [(begin, *parts[1:])] if begin else [(n,) for n in parts[1:]]
    inputs = {
        "input_ids": torch.cat(tokens)[None].to(device),
        "position_ids": torch.cat(positions)[None].to(device),
        "attention_mask": torch.zeros((1, 1, 1, 1), dtype=torch.long, device=device),  # as made
    }
    return Packed(inputs, torch.cat(wanted).to(device), tuple(rows), lengths)


def _spans(at: Bool[Tensor, "R T"]) -> tuple[list[int], list[int]]:
    """Return where the tokens end that lead to the first position asked for, and to the last."""
    width = at.shape[1]
    found = at.int()
    return (found.argmax(1) + 1).tolist(), (width - found.flip(1).argmax(1)).tolist()


def _begin_alike(ids: Int[Tensor, "R T"], starts: list[int]) -> bool:
    return len(set(starts)) == 1 and bool((ids[:, : starts[0]] == ids[:1, : starts[0]]).all())


@contextmanager
def reading(rows: Packed) -> Iterator[None]:
    """Keep the rows apart inside the block."""
    token = ROWS.set(rows.rows)
    try:
        yield
    finally:
        ROWS.reset(token)


def _register() -> None:
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)  # where rows are padded: generation


def attend(
    module: nn.Module,
    query: Float[Tensor, "B H T D"],
    key: Float[Tensor, "B G S D"],
    value: Float[Tensor, "B G S D"],
    attention_mask: Tensor | None,
    **kind: Any,
) -> tuple[Float[Tensor, "B T H D"], None]:
    """Plain attention, row by row where rows are packed.

    Args:
        module: The attention layer.
        query: Queries of all heads.
        key: Keys; a group of heads may share one.
        value: Values, likewise.
        attention_mask: Added to the weights where rows are padded.
        kind: As transformers passes it: scaling, dropout, softcap, sliding_window; others are not
            known here (``adopt`` finds out whether that matters).
    """
    if query.shape[2] > 1:
        # One product per head. With those that share keys in one, float32 scores agree less well
        # with the loop's; for a single new token the copy of a whole cache would cost more.
        shared = query.shape[1] // key.shape[1]
        key, value = key.repeat_interleave(shared, 1), value.repeat_interleave(shared, 1)
    packed = ROWS.get(())
    if not packed:
        out = _attend(module, query, key, value, attention_mask, kind)
    else:
        lengths, window = [sum(parts) for parts in packed], kind.get("sliding_window")
        rows = (tensor.split(lengths, 2) for tensor in (query, key, value))
        every = [
            _attend(module, q, k, v, _bias(parts, window, q.dtype, q.device), kind)
            for parts, q, k, v in zip(packed, *rows, strict=True)
        ]
        out = torch.cat(every, 2)
    return out.transpose(1, 2).contiguous(), None


def _attend(
    module: nn.Module, q: Tensor, k: Tensor, v: Tensor, bias: Tensor | None, kind: dict[str, Any]
) -> Float[Tensor, "B H T D"]:
    scaling, softcap = kind.get("scaling"), kind.get("softcap")
    heads, groups = q.shape[1], k.shape[1]
    # Heads that share keys stand below each other in one product: their keys are never copied.
    q = q.reshape(q.shape[0], groups, -1, q.shape[-1])
    weights = torch.matmul(q, k.transpose(-1, -2)).unflatten(2, (heads // groups, -1)).flatten(1, 2)
    weights = weights * (q.shape[-1] ** -0.5 if scaling is None else scaling)
    if softcap is not None:
        weights = torch.tanh(weights / softcap) * softcap
    if bias is not None:
        weights = weights + bias
    weights = weights.softmax(-1, dtype=torch.float32).to(q.dtype)
    rate = kind.get("dropout", 0.0) if module.training else 0.0
    weights = nn.functional.dropout(weights, rate)
    out = torch.matmul(weights.reshape(weights.shape[0], groups, -1, weights.shape[-1]), v)
    return out.unflatten(2, (heads // groups, -1)).flatten(1, 2)


@lru_cache(maxsize=256)
def _bias(
    parts: Parts, window: int | None, dtype: torch.dtype, device: torch.device
) -> Float[Tensor, "T T"]:
    """Return what is added to weights: 0 where a token sees another, else the lowest value."""
    part = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(parts))
    inside = torch.cat([torch.arange(n) for n in parts])
    place = inside + torch.where(part > 0, parts[0], 0)
    back = place[:, None] - place
    hidden = (back < 0) | ((part > 0) & (part != part[:, None]))
    if window is not None:
        hidden |= back >= window
    bias = torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)
    return bias.to(device)


@torch.no_grad()
def _trial(model: nn.Module, kind: str) -> Float[Tensor, "K V"]:
    """Read three rows of other tokens, one by one or (NAME) packed, and return all logits."""
    config: Any = model.config
    config._attn_implementation = kind
    device = next(model.parameters()).device
    made = torch.Generator().manual_seed(0)
    rows = [torch.randint(config.get_text_config().vocab_size, (n,), generator=made) for n in TRIED]
    if kind != NAME:
        read = [model(input_ids=row[None].to(device), use_cache=False).logits[0] for row in rows]
        return torch.cat(read).float()
    own = torch.arange(max(TRIED)) < torch.tensor(TRIED)[:, None]
    ids = torch.zeros(own.shape, dtype=torch.long).masked_scatter(own, torch.cat(rows))
    packed = pack(ids.to(device), own.long().to(device), own.to(device))
    with reading(packed):
        return model(**packed.inputs, use_cache=False).logits[0].float()


def _close(a: Tensor, b: Tensor, limit: float) -> bool:
    """Tell whether two readings differ by rounding alone."""
    return bool((a - b).norm() <= limit * (b - b.mean(-1, keepdim=True)).norm())
