"""Time what does not go through the model, on a part of its tensors: sets, steps, hashes."""

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from grail.artifacts import Mask, Scores
from grail.config.localization import Localization
from grail.config.run import Config
from grail.localization.evidence import Evidence
from grail.localization.localizers import LOCALIZERS, make_mask
from grail.localization.survivors import survivors
from grail.model.forward import Policy, trainable
from grail.run.trainings import loop_settings
from grail.training.freezing import Freezing
from grail.training.optimizer import (
    OPTIMIZERS,
    gradient_norm,
    masters_of,
    take_gradients,
    trains_vector,
    write_back,
)

CHOSEN, STEPPED = 1 << 20, 1 << 23
"""Entries, at most, of which sets are chosen, and which an optimiser moves: the copies, gradients
and moments of so many are no longer in a processor's caches."""
HASHED = 1 << 25
"""Bytes that are hashed."""
TIMES = 2
"""How often each piece is timed; an optimiser's first step, which makes its moments, comes on top.
"""

Timed = Callable[..., tuple[float, Any]]
"""Calls a function and returns the seconds it took, and what it returned."""
Pieces = Iterator[tuple[float, float]]
"""Entries or bytes of each piece, and its seconds."""


def choosing(model: Policy, config: Config, timed: Timed) -> Pieces:
    """Yield Stage 2 on random scores: entries of one side of one domain, and seconds.

    A localizer of the user's own, and a mask that is taken from another run, count as grail's sets,
    which are described in any case. memflex selects all tensors.
    """
    for seed, sides in _scores(model, config):
        weights = _mean(sides)
        yield (
            _entries(weights),
            timed(make_mask, sides, _known(config.localization), seed, lambda w=weights: w)[0],
        )


def surviving(model: Policy, config: Config, timed: Timed) -> Pieces:
    """Yield the choice of what a reset leaves alone, on random scores: entries, and seconds."""
    how = config.unlearning.reset
    for seed, sides in _scores(model, config) if how else ():
        weights = _mean(sides)
        evidence = Evidence(sides, lambda w=weights: w, seed)
        mask = Mask({name: torch.zeros_like(w, dtype=torch.bool) for name, w in weights.items()})
        yield _entries(weights), timed(survivors, evidence, mask, how)[0]


def stepping(model: Policy, config: Config, timed: Timed) -> Pieces:
    """Yield steps of Stage 3's optimiser, with a mask that freezes nothing: entries, and seconds.

    That is all that a step does but the passes: gradients are taken, masked and clipped. Copies of
    the model's tensors are moved.
    """
    settings = loop_settings(config.unlearning, 0)
    free = {n: nn.Parameter(p.detach().clone()) for n, p in _first(model, STEPPED).items()}
    mask = Mask({name: torch.zeros(p.shape, dtype=torch.bool) for name, p in free.items()})
    freezing = Freezing(free, mask, partial(trains_vector, settings.optimizer))
    masters = masters_of(free, freezing.vectors)
    optimizer = OPTIMIZERS[settings.optimizer](list(masters.values()), settings)

    def step() -> None:
        taken = take_gradients(free, masters, freezing.vectors)
        for name, gradient in freezing.masked(taken, "").items():
            masters[name].grad = gradient
        norm = gradient_norm(masters, freezing.vectors)
        limit = settings.max_grad_norm or math.inf
        nn.utils.clip_grads_with_norm_(masters.values(), limit, norm)
        optimizer.step()
        write_back(masters, free, freezing.vectors)
        optimizer.zero_grad(set_to_none=True)

    for _ in range(1 + TIMES):
        for parameter in free.values():
            parameter.grad = torch.full_like(parameter, 1e-3)
        yield _entries(free), timed(step)[0]


def hashing(timed: Timed) -> Pieces:
    """Yield SHA-256 of bytes in memory: bytes, and seconds."""
    content = bytes(HASHED)
    for _ in range(TIMES):
        yield HASHED, timed(hashlib.sha256, content)[0]


def _scores(model: Policy, config: Config) -> Iterator[tuple[int, dict[tuple[str, str], Scores]]]:
    """Yield a seed and the scores of all sides on a part of the model's tensors, at random."""
    shapes = {name: p.shape for name, p in _first(model, CHOSEN).items()}
    for seed in range(TIMES):
        generator = torch.Generator().manual_seed(seed)
        sides = dict[tuple[str, str], Scores]()
        for pair in ((d, side) for d in config.domains for side in ("unlearn", "retain")):
            mean = {name: torch.randn(s, generator=generator) for name, s in shapes.items()}
            sizes = {name: value.abs() for name, value in mean.items()}
            squares = {name: value.square() for name, value in mean.items()}
            sides[pair] = Scores(sizes, mean, squares, samples=1)
        yield seed, sides


def _known(settings: Localization) -> Localization:
    """Return settings that can be timed without scores of the model: see ``choosing``."""
    everything = {"thresholds": "quantile", "cosine": 1.0, "magnitude": 0.0}
    found = settings.model_copy(
        update={"memflex": settings.memflex.model_copy(update=everything), "reused": None}
    )
    own = settings.method not in LOCALIZERS or settings.reused is not None
    return found.model_copy(update={"method": "grail"}) if own else found


def _first(model: Policy, most: int) -> dict[str, Tensor]:
    """Return the first trainable tensors, in the model's order, up to so many entries.

    The last one is cut after some of its rows; of a row that is longer, one remains.
    """
    found, left = dict[str, Tensor](), most
    for name, parameter in trainable(model).items():
        if left <= 0:
            break
        row = parameter[:1].numel() if parameter.dim() else 1
        found[name] = parameter[: max(1, left // max(1, row))] if parameter.dim() else parameter
        left -= found[name].numel()
    return found


def _mean(sides: Mapping[tuple[str, str], Scores]) -> dict[str, Tensor]:
    """Return tensors of the scores' shapes, which stand for weights."""
    return dict(next(iter(sides.values())).mean)


def _entries(tensors: Mapping[str, Tensor]) -> int:
    return sum(tensor.numel() for tensor in tensors.values())
