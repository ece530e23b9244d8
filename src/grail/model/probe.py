"""What a model does with tokens it must not read: later ones, and padding. Found by trying."""

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any
from weakref import WeakKeyDictionary

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.utils.rnn import pad_sequence

from grail.errors import InputError
from grail.model.forward import Policy, device_of, evaluating, is_adapter, without_adapter

_LENGTH = 8
_ORDINARY = 500
"""Ids below this are text in every vocabulary; high ones may stand for images."""

_shares: WeakKeyDictionary[nn.Module, str] = WeakKeyDictionary()


@torch.no_grad()
def logits_of(model: Policy, ids: Tensor) -> Float[Tensor, "T V"]:
    """Return the logits of one row of ids in float32, without dropout."""
    ids = ids[None].to(device_of(model))
    with evaluating(model):
        out = model(input_ids=ids, attention_mask=torch.ones_like(ids), use_cache=False)
    return out.logits[0].float()


def short_row(model: Policy, seed: int = 0) -> Tensor:
    """Return a short row of ids that every vocabulary has."""
    rows = model.get_input_embeddings().weight.shape[0]  # type: ignore[operator]
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(min(rows, _ORDINARY), (_LENGTH,), generator=generator)


def same_logits(model: Policy, a: Tensor, b: Tensor) -> bool:
    """Tell whether logits differ by rounding in the model's precision at most."""
    exact = next(model.parameters()).dtype in (torch.float32, torch.float64)
    spread = (b - b.mean(-1, keepdim=True)).norm()
    return bool((a - b).norm() <= (1e-3 if exact else 0.05) * spread)


def refuse_looking_ahead(model: Policy) -> None:
    """Refuse a model that reads the tokens it must predict: an encoder; and one without numbers."""
    ids, half = short_row(model), _LENGTH // 2
    other = torch.cat([ids[:half], short_row(model, seed=1)[half:]])
    inner = without_adapter(model)
    try:
        before, after = (logits_of(model, row)[:half] for row in (ids, other))
    except Exception as error:  # a forward pass of another kind may raise anything
        raise InputError(
            f"model.name: {type(inner).__name__} cannot read a row of text alone ({error}). Give a "
            "causal language model."
        ) from error
    if not before.isfinite().all():
        raise InputError(
            f"model.name: {type(inner).__name__} computes no numbers (NaN or infinite logits). Its "
            "weights are damaged, or beyond its precision: model.dtype: float32 has the range."
        )
    if not same_logits(model, before, after):
        raise InputError(
            f"model.name: {type(inner).__name__} reads the tokens it must predict (an encoder): "
            "its answers cannot be measured or unlearned. Give a causal language model."
        )


def shares(model: Policy, pad: int) -> str:
    """Return which prompts a model may continue in one batch without changing their answers.

    Recurrent models carry padding in their state, and others may count it as positions; some of
    them mix the rows of any batch. Their classes do not tell, so short rows are continued, without
    the adapter: what has been taught to one in bfloat16 moves logits by a tenth as a batch grows,
    and a model that shares would be taken for one that does not.

    Returns:
        "any", "equal" (prompts of one length), or "none".
    """
    inner = without_adapter(model)
    if inner not in _shares:
        rows = [short_row(inner, seed) for seed in range(2)]
        off: Any = model.disable_adapter if is_adapter(model) else nullcontext
        with off():
            stateful = getattr(inner, "_is_stateful", False)
            if not stateful and _same(inner, [rows[0], rows[1][3:]], pad):
                _shares[inner] = "any"
            else:
                _shares[inner] = "equal" if _same(inner, rows, pad) else "none"
    return _shares[inner]


def _same(model: Any, rows: Sequence[Tensor], pad: int) -> bool:
    """Tell whether rows are continued by two tokens in a batch as each is alone."""
    alone = torch.cat([_continued(model, [row], pad) for row in rows], 1)
    try:
        return same_logits(model, _continued(model, rows, pad), alone)
    except Exception:  # a batch of another kind may raise anything
        return False


def _forced(_: Tensor, scores: Tensor) -> Tensor:
    """Leave one token alone (a logits processor)."""
    only = torch.full_like(scores, -torch.inf)
    only[:, _ORDINARY % scores.shape[1]] = 0.0
    return only


@torch.no_grad()
def _continued(model: Any, rows: Sequence[Tensor], pad: int) -> Float[Tensor, "2 B V"]:
    """Return the logits of the next two tokens after each row, padded on the left.

    The first of the two is forced: rounding may exchange two that are about as probable.
    """
    from transformers import GenerationConfig

    most = {"max_new_tokens": 2, "min_new_tokens": 2, "pad_token_id": pad, "do_sample": False}
    settings = GenerationConfig(**most, output_logits=True, return_dict_in_generate=True)
    kind, device = {"batch_first": True, "padding_side": "left"}, device_of(model)
    ids = pad_sequence(list(rows), padding_value=pad, **kind).to(device)
    attention = pad_sequence([torch.ones_like(row) for row in rows], **kind).to(device)
    with evaluating(model):
        out = model.generate(
            input_ids=ids,
            attention_mask=attention,
            generation_config=settings,
            logits_processor=[_forced],
        )
    return torch.stack(out.logits).float()
