"""Rows behind each other instead of padded: one long sequence in which every row sees only itself.

Matrix products then read each weight once for all rows and compute on no padding. It is an
attention kind of transformers like any other (``model.attention: packed``); what it needs beyond
one is the rows' lengths, and a model that keeps rows apart everywhere else: ``adopt`` tries that.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

NAME = "grail_packed"

Parts = tuple[int, ...]
"""Tokens of a row: of its beginning, then of every branch that goes on from it (a plain row: none).

Branches see the beginning and themselves: the trials of a sample, which differ in the answer only.
"""


@dataclass
class Reading:
    """A packed sequence that is being read.

    Attributes:
        rows: The parts of each row.
        biases: What is added to the weights of rows of these parts, made once for all layers.
        windows: The windows that layers have asked for.
    """

    rows: tuple[Parts, ...]
    biases: dict[Any, Tensor] = field(default_factory=dict)
    windows: set[int | None] = field(default_factory=set)


READING: ContextVar[Reading | None] = ContextVar("reading", default=None)
"""What is being read; None: rows are padded."""

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
    model's class, so three short rows are read both ways; otherwise the model stays as it was. Nor
    does one qualify that has windows and does not tell its attention of them: short rows, on which
    they do not show, would be read rightly and long ones not.
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
def reading(rows: Packed) -> Iterator[Reading]:
    """Keep the rows apart inside the block."""
    token = READING.set(Reading(rows.rows))
    try:
        yield READING.get()  # type: ignore[misc]
    finally:
        READING.reset(token)


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
    packed = READING.get()
    if packed is None:
        out = _attend(module, query, key, value, attention_mask, kind)
    else:
        window = kind.get("sliding_window")
        packed.windows.add(window)
        rows = (t.split([sum(parts) for parts in packed.rows], 2) for t in (query, key, value))
        every = [
            _attend(module, q, k, v, _bias(packed.biases, parts, window, q), kind)
            for parts, q, k, v in zip(packed.rows, *rows, strict=True)
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


def _bias(
    known: dict[Any, Tensor], parts: Parts, window: int | None, like: Tensor
) -> Float[Tensor, "T T"]:
    """Return what is added to weights: 0 where a token sees another, else the lowest value."""
    key = (parts, window, like.dtype, like.device)
    if key not in known:
        known[key] = _hiding(parts, window, like.dtype).to(like.device)
    return known[key]


def _hiding(parts: Parts, window: int | None, dtype: torch.dtype) -> Float[Tensor, "T T"]:
    part = torch.repeat_interleave(torch.arange(len(parts)), torch.tensor(parts))
    inside = torch.cat([torch.arange(n) for n in parts])
    place = inside + torch.where(part > 0, parts[0], 0)
    back = place[:, None] - place
    hidden = (back < 0) | ((part > 0) & (part != part[:, None]))
    if window is not None:
        hidden |= back >= window
    return torch.zeros(hidden.shape, dtype=dtype).masked_fill(hidden, torch.finfo(dtype).min)


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
    with reading(packed) as seen:
        found = model(**packed.inputs, use_cache=False).logits[0].float()
    if _windows(config) and seen.windows <= {None}:
        raise ValueError("windows that live in the mask alone, which packed rows do without")
    return found


def _windows(config: Any) -> bool:
    """Tell whether a model sees no further back than so many tokens, in any of its layers."""
    text = config.get_text_config()
    kinds = getattr(text, "layer_types", None)
    if kinds:
        return any(kind in ("sliding_attention", "chunked_attention") for kind in kinds)
    return bool(getattr(text, "sliding_window", None))


def _close(a: Tensor, b: Tensor, limit: float) -> bool:
    """Tell whether two readings differ by rounding alone."""
    return bool((a - b).norm() <= limit * (b - b.mean(-1, keepdim=True)).norm())
