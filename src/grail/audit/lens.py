"""The logit lens: what each block of a model would answer, if it were the last.

The output of a block goes through the final norm and the LM head (nostalgebraist 2020). An answer
that a block gives and the model does not is hidden, not gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from grail.data.batches import Batch, by_tokens, collate
from grail.data.encode import Encoded
from grail.errors import InputError
from grail.model.forward import Policy, answer_logits, device_of, evaluating, is_adapter
from grail.progress import Tick, silent

_BATCH_TOKENS = 512


class ModelParts(NamedTuple):
    """The parts of a model that the lens needs, in the order of a forward pass."""

    blocks: Sequence[nn.Module]
    norm: nn.Module
    head: nn.Module


def model_parts(model: Policy) -> ModelParts:
    """Find blocks, final norm and LM head without knowing their names.

    The blocks are the one list of as many modules as the configuration has layers; the final norm
    is the one norm in the module that holds this list.

    Raises:
        InputError: if there is not exactly one such list, or one such norm.
    """
    inner: Any = model.get_base_model() if is_adapter(model) else model  # type: ignore[operator]
    count = getattr(inner.config.get_text_config(), "num_hidden_layers", None)
    lists = [
        (name, module)
        for name, module in inner.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    ]
    if len(lists) != 1:
        raise InputError(
            f"no lens for {inner.config.model_type}: it has {len(lists)} lists of {count} blocks, "
            "and one is needed."
        )
    name, blocks = lists[0]
    siblings = inner.get_submodule(name.rpartition(".")[0]).children()
    norms = [module for module in siblings if "norm" in type(module).__name__.lower()]
    if len(norms) != 1:
        raise InputError(
            f"no lens for {inner.config.model_type}: it has {len(norms)} norms next to its blocks, "
            "and one is needed."
        )
    return ModelParts(tuple(blocks), norms[0], inner.get_output_embeddings())


@torch.no_grad()
def hits_by_block(
    model: Policy, rows: Sequence[Encoded], pad: int, tick: Tick = silent
) -> Iterator[tuple[Encoded, Bool[Tensor, "blocks K"]]]:
    """Yield each row with ``hits[b, t]``: whether block b ranks answer token t first.

    Raises:
        InputError: if the model's parts cannot be identified.
    """
    parts, done = model_parts(model), 0
    for group in by_tokens(rows, _BATCH_TOKENS):
        batch = collate(group, pad, device_of(model))
        hits = _hits(model, parts, batch).cpu().split(batch.lengths, dim=1)
        yield from zip(group, hits, strict=True)
        done += len(group)
        tick(done, len(rows), "rows read through every block")


def _hits(model: Policy, parts: ModelParts, batch: Batch) -> Bool[Tensor, "blocks K"]:
    states: list[Tensor] = []

    def store(_: nn.Module, __: Any, output: Any) -> None:
        hidden = output if isinstance(output, Tensor) else output[0]
        states.append(hidden[batch.at])

    with evaluating(model), _hooked(parts.blocks, store):
        answer_logits(model, batch)
    targets = batch.targets[batch.at]
    return torch.stack([parts.head(parts.norm(state)).argmax(-1) == targets for state in states])


@contextmanager
def _hooked(modules: Sequence[nn.Module], hook: Callable[..., None]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def lens_summary(hits: Sequence[Bool[Tensor, "blocks _"]]) -> dict[str, Any]:
    """Return {"share", "n"} of some rows' hits: percent of answer tokens ranked first, per block.

    Each row counts the same.
    """
    shares = torch.stack([row.float().mean(dim=1) for row in hits]).mean(dim=0)
    return {"share": [100.0 * float(share) for share in shares], "n": len(hits)}
