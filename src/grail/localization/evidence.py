"""What a localizer may look at: the sides' scores, GRAIL's sets in them, the vanilla weights."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from grail.artifacts import Scores
from grail.config.localization import Localization
from grail.errors import InputError
from grail.localization.overlap import Marks, Overlap, overlap
from grail.localization.select import top_per_layer

Pair = tuple[str, str]
"""A domain and one of its sides."""
Sides = Mapping[Pair, Scores]
Weights = Callable[[], Mapping[str, Tensor]]
"""Gives the vanilla model's trainable tensors by name. It loads them: call it only if needed."""


@dataclass(frozen=True)
class Evidence:
    """What is known before anything is frozen.

    Attributes:
        sides: The scores of every side of every domain.
        at_ur: The top ``k_op_ur`` set of each side, by the configured statistic.
        at_rr: The same at ``k_op_rr``.
        found: OP-UR and OP-RR in these sets. The run's description counts them whatever the
            localizer, so they are not put off until one asks.
        weights: The vanilla model's tensors, on request.
    """

    sides: Sides
    at_ur: Mapping[Pair, Marks]
    at_rr: Mapping[Pair, Marks]
    found: Overlap
    weights: Weights

    @property
    def domains(self) -> list[str]:
        """The domains, sorted: no result depends on the order in which they were given."""
        return sorted({domain for domain, _ in self.sides})

    @property
    def shapes(self) -> dict[str, torch.Size]:
        """The parameters' shapes by name, sorted: that fixes the flat order over the model."""
        return {name: self.found.op_ur[name].shape for name in sorted(self.found.op_ur)}


def gather(sides: Sides, settings: Localization, weights: Weights) -> Evidence:
    """Find the top sets and their overlap.

    Raises:
        InputError: if the sides name different parameters, or a score is NaN or infinite.
    """
    shapes = [{n: s.shape for n, s in scores.mean_abs.items()} for scores in sides.values()]
    if shapes.count(shapes[0]) != len(shapes):
        raise InputError("the scores of the sides name different parameters. Score them again.")
    at_ur: dict[Pair, Marks] = {}
    at_rr: dict[Pair, Marks] = {}
    for pair, scores in sides.items():
        ranked = importance(scores, settings.statistic)
        at_ur[pair] = top_per_layer(ranked, settings.k_op_ur, settings.layer)
        at_rr[pair] = top_per_layer(ranked, settings.k_op_rr, settings.layer)
    found = overlap(_of(at_ur, "unlearn"), _of(at_ur, "retain"), _of(at_rr, "retain"))
    return Evidence(sides, at_ur, at_rr, found, weights)


def importance(scores: Scores, statistic: str) -> Mapping[str, Float[Tensor, "..."]]:
    """Return what the top sets are the top of: ``mean_abs``, ``mean_sq`` or ``z_mean``."""
    if statistic == "z_mean":
        return {name: standardised(mean) for name, mean in scores.mean.items()}
    return {"mean_abs": scores.mean_abs, "mean_sq": scores.mean_sq}[statistic]


def standardised(mean: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return |(g - mean(g)) / std(g)| over one tensor; 0 everywhere where all entries are equal.

    This is the authors' release, which ranks entries of the signed mean gradient (the paper: the
    mean of |g|). The population's standard deviation is meant, so that a tensor of one entry has
    one. In float64: there, equal float32 entries deviate from their mean by exactly 0.
    """
    wide = mean.double()
    centred = wide - wide.mean()
    spread = centred.square().mean().sqrt()
    return (centred / spread).abs().float() if spread != 0 else torch.zeros_like(mean)


def _of(sets: Mapping[Pair, Marks], side: str) -> list[Marks]:
    return [marks for (_, own), marks in sets.items() if own == side]
