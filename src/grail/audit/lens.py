"""The logit lens: what each block of a model would answer, if it were the last.

The output of a block goes through the final norm and the LM head (nostalgebraist 2020); an answer
that stands there but not at the end is hidden, not gone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import median
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor, nn

from grail.data.batches import Batch, by_tokens, collate
from grail.data.encode import Encoded
from grail.errors import InputError
from grail.model.forward import Policy, answer_logits, device_of, evaluating, is_adapter
from grail.progress import Tick, silent

BATCH_TOKENS = 512


@dataclass(frozen=True)
class Anatomy:
    """The parts of a model that the lens needs, in the order of a forward pass."""

    blocks: tuple[nn.Module, ...]
    norm: nn.Module
    head: nn.Module


def anatomy(model: Policy) -> Anatomy:
    """Find blocks, final norm and LM head, whatever their names are.

    The blocks are the one list of as many modules as the model's configuration has layers; the
    final norm is the one norm that stands beside this list.

    Raises:
        InputError: if the model is not built so.
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
    beside = inner.get_submodule(name.rpartition(".")[0]).children()
    norms = [module for module in beside if "norm" in type(module).__name__.lower()]
    if len(norms) != 1:
        raise InputError(
            f"no lens for {inner.config.model_type}: {len(norms)} norms stand beside its blocks, "
            "and one is needed."
        )
    return Anatomy(tuple(blocks), norms[0], inner.get_output_embeddings())


@dataclass(frozen=True)
class Sight:
    """What the lens sees in one row: ``hits[b, t]``, whether block b has answer token t on top."""

    row: Encoded
    hits: Bool[Tensor, "blocks K"]


@torch.no_grad()
def look(model: Policy, rows: Sequence[Encoded], pad: int, tick: Tick = silent) -> Iterator[Sight]:
    """Yield what the lens sees in each row.

    Raises:
        InputError: if the model's parts cannot be told apart.
    """
    parts, done = anatomy(model), 0
    for group in by_tokens(rows, BATCH_TOKENS):
        batch = collate(group, pad, device_of(model))
        hits = _hits(model, parts, batch)
        for row, own in zip(group, hits.split(batch.lengths, dim=1), strict=True):
            yield Sight(row, own.cpu())
        done += len(group)
        tick(done, len(rows), "rows read through every block")


def _hits(model: Policy, parts: Anatomy, batch: Batch) -> Bool[Tensor, "blocks K"]:
    states: list[Tensor] = []

    def keep(_: nn.Module, __: Any, output: Any) -> None:
        whole = output if isinstance(output, Tensor) else output[0]
        states.append(whole[batch.at])

    with evaluating(model), _hooked(parts.blocks, keep):
        answer_logits(model, batch)
    goal = batch.targets[batch.at]
    return torch.stack([parts.head(parts.norm(own)).argmax(-1) == goal for own in states])


@contextmanager
def _hooked(modules: Sequence[nn.Module], hook: Callable[..., None]) -> Iterator[None]:
    handles = [module.register_forward_hook(hook) for module in modules]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def summary(sights: Sequence[Sight]) -> dict[str, Any]:
    """Return {"share", "ever", "first", "n"} of some rows, each row counting the same.

    ``share``: percent of answer tokens on top, per block. ``ever``: percent that are on top in any
    block. ``first``: the median, over tokens that are ever on top, of the first such block (from
    1); None where there is no such token.
    """
    shares = torch.stack([sight.hits.float().mean(dim=1) for sight in sights]).mean(dim=0)
    ever = [float(sight.hits.any(dim=0).float().mean()) for sight in sights]
    firsts = [
        int(column.int().argmax()) + 1
        for sight in sights
        for column in sight.hits.T
        if bool(column.any())
    ]
    return {
        "share": [100.0 * float(share) for share in shares],
        "ever": 100.0 * sum(ever) / len(ever),
        "first": float(median(firsts)) if firsts else None,
        "n": len(sights),
    }
