"""Sequence packing: rows are concatenated into one sequence with block-diagonal attention.

Matrix products then read each weight once for all rows, and no padding is computed. Attention is
computed block by block: transformers' dense mask for packed rows would add 17 % to a training step
(SmolLM2-135M, 16 rows, CPU). It is the model's own eager attention under a new name.
"""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from grail.data.batches import collate
from grail.data.encode import Encoded
from grail.data.samples import Sample
from grail.model.forward import answer_logits, device_of, evaluating, logits_at, precision_of
from grail.model.probe import same_logits

NAME = "grail_packed"
"""Name of the attention implementation."""


@dataclass(frozen=True)
class Packed:
    """Rows as one sequence.

    Attributes:
        inputs: Arguments of the model's forward pass.
        at: The positions that predict answer tokens, row after row; branches share their first.
        lengths: Tokens of each block: a row, or a group of branches.
    """

    inputs: dict[str, Any]
    at: Int[Tensor, " K"]
    lengths: list[int]


def packs(model: nn.Module, rows: Sequence[Encoded] = ()) -> bool:
    """Tell whether a model reads packed rows (see ``enable``) and can read these.

    Blocks have no sliding windows: rows longer than a model's window are padded instead.
    """
    config: Any = getattr(model, "config", None)
    if getattr(config, "_attn_implementation", None) != NAME:
        return False
    text = config.get_text_config()
    windows = [getattr(text, name, None) for name in ("sliding_window", "attention_chunk_size")]
    narrowest = min((window for window in windows if window), default=math.inf)
    return all(len(row.ids) <= narrowest for row in rows)


def packed_logits(model: nn.Module, packed: Packed) -> Float[Tensor, "K V"]:
    """Return the logits that predict answer tokens, row after row, as ``answer_logits`` does."""
    return logits_at(model, (torch.zeros_like(packed.at), packed.at), **packed.inputs)


def pack(model: nn.Module, rows: Sequence[Encoded], branches: int = 1) -> Packed:
    """Concatenate rows, each without its last token, which predicts nothing.

    ``branches`` neighbouring rows form a block, and share their prompt if all have the same one
    (the trials of a sample).
    """
    dtype, device = precision_of(model), device_of(model)
    ids, positions, at, masks = list[int](), list[int](), list[int](), list[Tensor]()
    for first in range(0, len(rows), branches):
        group, block = rows[first : first + branches], len(ids)
        same = branches > 1 and len({row.ids[: row.start] for row in group}) == 1
        shared = group[0].start if same else 0
        spans = [range(shared)]
        ids += group[0].ids[:shared]
        for row in group:
            spans.append(range(shared, len(row.ids) - 1))
            branch, answer = len(ids) - shared, range(row.start - 1, len(row.ids) - 1)
            at += [t + (block if t < shared else branch) for t in answer]
            ids += row.ids[shared:-1]
        positions += chain(*spans)
        masks.append(_mask(spans, dtype).to(device))
    inputs = {
        "input_ids": torch.tensor([ids], device=device),
        "position_ids": torch.tensor([positions], device=device),
        "attention_mask": torch.zeros((1, 1, 1, 1), dtype=dtype, device=device),  # 4-D: used as is
        "block_masks": masks,
    }
    return Packed(inputs, torch.tensor(at, device=device), [mask.shape[-1] for mask in masks])


def _mask(spans: Sequence[range], dtype: torch.dtype) -> Float[Tensor, "1 1 T T"]:
    """Return what is added to a block's attention weights: 0 where a token sees another.

    A token sees the tokens up to it of its own span and of the first, which all others share.
    """
    position = torch.tensor(list(chain(*spans)))
    span = torch.tensor([number for number, span in enumerate(spans) for _ in span])
    sees = (position[:, None] >= position) & ((span == 0) | (span[:, None] == span))
    return torch.zeros(sees.shape, dtype=dtype).masked_fill(~sees, torch.finfo(dtype).min)[
        None, None
    ]


def attend(
    module: nn.Module,
    query: Float[Tensor, "B H T D"],
    key: Float[Tensor, "B G S D"],
    value: Float[Tensor, "B G S D"],
    attention_mask: Tensor | None,
    block_masks: Sequence[Tensor] | None = None,
    **settings: Any,
) -> tuple[Float[Tensor, "B T H D"], Any]:
    """Compute a model's own eager attention, within each block where rows are packed.

    The signature and ``settings`` (scaling, dropout, soft cap, sinks) are transformers';
    ``block_masks`` has passed through the model from ``Packed.inputs``.
    """
    eager = sys.modules[type(module).__module__].eager_attention_forward
    if block_masks is None:
        return eager(module, query, key, value, attention_mask, **settings)
    sizes = [mask.shape[-1] for mask in block_masks]
    blocks = zip(*(x.split(sizes, 2) for x in (query, key, value)), block_masks, strict=True)
    return torch.cat([eager(module, *block, **settings)[0] for block in blocks], 1), None


@torch.no_grad()
def enable(model: nn.Module) -> bool:
    """Let a transformers model read packed rows, if it then computes what it does on single rows.

    It does not if its attention has another interface, or if tokens are mixed elsewhere (in a
    convolution or a recurrent state). A model's class does not tell, so four short rows are read
    both ways, two of them with a shared prompt.
    """
    from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS, eager_mask
    from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

    ALL_ATTENTION_FUNCTIONS.register(NAME, attend)
    ALL_MASK_ATTENTION_FUNCTIONS.register(NAME, eager_mask)  # for padded rows: generation
    config: Any = model.config
    implementation, rows = config._attn_implementation, _test_rows(config.get_text_config())
    try:
        with evaluating(model):
            batches = [collate([row], 0, device_of(model)) for row in rows]
            single = torch.cat([answer_logits(model, batch) for batch in batches]).float()
            config._attn_implementation = NAME
            packed = [packed_logits(model, pack(model, rows, branches)) for branches in (1, 2)]
            equal = all(same_logits(model, logits.float(), single) for logits in packed)
    except Exception:  # a forward pass of another kind may raise anything
        equal = False
    config._attn_implementation = NAME if equal else implementation
    return equal


def _test_rows(config: Any) -> list[Encoded]:
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(config.vocab_size, (4, 9), generator=generator)
    ids[1, :3] = ids[0, :3]
    sample = Sample("", "", "", 0, "", "")
    lengths = zip(ids.tolist(), (5, 8, 4, 9), strict=True)
    return [Encoded(sample, tuple(row[:length]), start=3) for row, length in lengths]
