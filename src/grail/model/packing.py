"""Sequence packing: rows are concatenated into one sequence with block-diagonal attention.

Matrix products then read each weight once for all rows, and no padding is computed. transformers
builds the mask itself where positions start again at 0 and no mask is given. Rows with the same
prompt, such as the trials of a sample, can share it: they get a mask from here.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from grail.data.batches import collate
from grail.data.encode import Encoded
from grail.data.samples import Sample
from grail.model.forward import answer_logits, device_of, evaluating, logits_at

PACK_TOKENS = 256
"""Tokens of a packed sequence, where rows may be split: the mask grows with their square."""


@dataclass(frozen=True)
class Packed:
    """Rows as one sequence.

    Attributes:
        inputs: Arguments of the model's forward pass.
        at: The positions that predict answer tokens, row after row; branches share their first.
        lengths: Tokens of each row, or of each group of branches.
    """

    inputs: dict[str, Tensor]
    at: Int[Tensor, " K"]
    lengths: list[int]


def packs(model: nn.Module) -> bool:
    """Tell whether a model reads packed rows (see ``enable``)."""
    return getattr(model, "packs_rows", False)


def packed_logits(model: nn.Module, packed: Packed) -> Float[Tensor, "K V"]:
    """Return the logits that predict answer tokens, row after row, as ``answer_logits`` does."""
    return logits_at(model, (torch.zeros_like(packed.at), packed.at), **packed.inputs)


def pack(model: nn.Module, rows: Sequence[Encoded], branches: int = 1) -> Packed:
    """Concatenate rows, each without its last token, which predicts nothing.

    Args:
        model: The model that will read them.
        rows: Encoded samples.
        branches: This many neighbouring rows share their prompt, if they have the same one and fit
            the model's attention window (which the mask does not contain).
    """
    window = _window(model)
    segments: list[tuple[Encoded, range, int, int]] = []  # row, positions, group, branch
    at, lengths = list[int](), list[int]()
    for first in range(0, len(rows), branches):
        group, length, before = rows[first : first + branches], 0, sum(lengths)
        same = branches > 1 and len({row.ids[: row.start] for row in group}) == 1
        shared = group[0].start if same and max(len(row.ids) for row in group) <= window else 0
        segments.append((group[0], range(shared), first, 0))
        length = shared
        for branch, row in enumerate(group, start=1):
            own = range(shared, len(row.ids) - 1)
            segments.append((row, own, first, branch))
            answer = range(row.start - 1, len(row.ids) - 1)
            at += [before + (t if t < shared else length + t - shared) for t in answer]
            length += len(own)
        lengths.append(length)
    ids = [row.ids[t] for row, positions, *_ in segments for t in positions]
    positions = torch.tensor([t for _, positions, *_ in segments for t in positions])
    inputs = {"input_ids": torch.tensor([ids]), "position_ids": positions[None]}
    if any(len(positions) for _, positions, _, branch in segments if branch == 0):
        sizes = torch.tensor([len(positions) for _, positions, *_ in segments])
        group, branch = torch.tensor([s[2:] for s in segments]).repeat_interleave(sizes, 0).T
        dtype = next(model.parameters()).dtype
        inputs["attention_mask"] = _mask(group, branch, positions, dtype)
    device = device_of(model)
    inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
    return Packed(inputs, torch.tensor(at, device=device), lengths)


def _mask(
    group: Int[Tensor, " T"], branch: Int[Tensor, " T"], position: Int[Tensor, " T"], dtype: Any
) -> Float[Tensor, "1 1 T T"]:
    """Return 0 where a token sees another, else the lowest value: to be added to the weights.

    A token sees the tokens up to it of its own branch and of what its group shares (branch 0).
    """
    seen = (group[:, None] == group) & (position[:, None] >= position)
    seen &= (branch == 0) | (branch[:, None] == branch)
    mask = torch.zeros(seen.shape, dtype=dtype).masked_fill(~seen, torch.finfo(dtype).min)
    return mask[None, None]


def _window(model: Any) -> float:
    """Return how many tokens the layers with the narrowest attention window see."""
    text = model.config.get_text_config()
    sizes = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")]
    return min((size for size in sizes if size), default=math.inf)


@torch.no_grad()
def enable(model: nn.Module) -> bool:
    """Let a model read packed rows, if it then computes what it does for single rows.

    It does not where tokens pass anything on outside of masked attention (a convolution, a
    recurrent state), or where positions are not read from ``position_ids``. A class does not tell,
    so four short rows are read both ways, two of them with a shared prompt.
    """
    device, generator = device_of(model), torch.Generator().manual_seed(0)
    words = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    ids = torch.randint(words, (4, 9), generator=generator).tolist()
    ids[1][:3] = ids[0][:3]
    samples = [Sample("", "", "", i, "", "") for i in range(4)]
    lengths = (5, 8, 3, 9)
    rows = [Encoded(s, tuple(t[:n]), 2) for s, t, n in zip(samples, ids, lengths, strict=True)]
    exact = next(model.parameters()).dtype in (torch.float32, torch.float64)
    try:
        with evaluating(model):
            single = [answer_logits(model, collate([row], 0, device)) for row in rows]
            packed = [packed_logits(model, pack(model, rows, branches)) for branches in (1, 2)]
    except (RuntimeError, TypeError, ValueError, AttributeError, IndexError):
        return False  # a forward pass that takes other arguments
    wanted = torch.cat(single).float()
    most = (1e-3 if exact else 0.05) * (wanted - wanted.mean(-1, keepdim=True)).norm()
    close = all(bool((logits.float() - wanted).norm() <= most) for logits in packed)
    model.packs_rows = close  # type: ignore[assignment]
    return close
