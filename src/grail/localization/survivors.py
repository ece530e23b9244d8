"""Survivors: the entries that keep their values when the others are reset ahead of training."""

from collections.abc import Iterator

import torch
from torch import Tensor

from grail.artifacts import Mask
from grail.config.unlearning import Reset
from grail.localization.damage_budget import damage_per_benefit
from grail.localization.evidence import Evidence


def survivors(evidence: Evidence, mask: Mask, settings: Reset) -> Mask:
    """Return the entries that a reset leaves alone; ``frozen`` is True where an entry survives.

    The best ``1 - share`` of each tensor's entries survive, in the order that ``keep`` names, ties
    in flat order, and all that ``mask`` freezes. Tensors are not compared with one another: A and B
    of an adapter have gradients of other sizes, which say nothing about the model.
    """
    about = {"localizer": f"reset.{settings.keep}", "share": settings.share}
    if settings.keep == "frozen":
        return Mask(dict(mask.frozen), about=about)
    marks: dict[str, Tensor] = {}
    for name, values in _ranked(evidence, settings.keep):
        count = round((1 - settings.share) * values.numel())
        best = torch.zeros(values.numel(), dtype=torch.bool)
        best[values.argsort(descending=True, stable=True)[:count]] = True
        marks[name] = best.reshape(evidence.shapes[name]) | mask.frozen[name]
    return Mask(marks, about=about)


def _ranked(evidence: Evidence, keep: str) -> Iterator[tuple[str, Tensor]]:
    """Yield each tensor's name and the numbers (flat) by which its entries survive."""
    if keep == "damage":
        for name, (_, ratio) in zip(evidence.shapes, damage_per_benefit(evidence), strict=True):
            yield name, ratio
    elif keep == "magnitude":
        weights = evidence.weights()
        for name in evidence.shapes:
            yield name, weights[name].flatten().float().abs()
    else:
        generator = torch.Generator().manual_seed(evidence.seed)
        for name, shape in evidence.shapes.items():
            yield name, torch.rand(shape.numel(), generator=generator)
