"""What a localizer may look at: the scores of all sides, their top sets, the vanilla weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Float
from torch import Tensor

from grail.artifacts import Scores
from grail.errors import InputError
from grail.localization.overlap import Marks, Overlap, overlap
from grail.localization.select import resolved, top_per_layer

SideScores = Mapping[tuple[str, str], Scores]
"""(Domain, side) -> its scores."""


@dataclass(frozen=True)
class Evidence:
    """The input of every localizer. The sets are computed when first read.

    Attributes:
        sides: The scores of both sides ("unlearn", "retain") of every domain.
        weights: Loads and returns the vanilla model's trainable tensors by name.
        seed: Seed of whatever a localizer draws.
        statistic: What the top sets rank: ``mean_abs``, ``mean_sq`` or ``z_mean``.
        layer: What they compare entries within: ``block``, ``tensor`` or ``model``; ``auto``
            becomes one of the first two (see ``resolved``).
        k_op_ur: Share of each layer (0-1) in the sets from which OP-UR is made.
        k_op_rr: The same for OP-RR.

    Raises:
        InputError: if the sides name different parameters.
    """

    sides: SideScores
    weights: Callable[[], Mapping[str, Tensor]]
    seed: int = 0
    statistic: str = "mean_abs"
    layer: str = "auto"
    k_op_ur: float = 0.10
    k_op_rr: float = 0.20

    def __post_init__(self) -> None:
        shapes = [{n: s.shape for n, s in side.mean_abs.items()} for side in self.sides.values()]
        if shapes.count(shapes[0]) != len(shapes):
            raise InputError("the scores of the sides name different parameters. Score them again.")
        object.__setattr__(self, "layer", resolved(self.layer, shapes[0]))

    @property
    def domains(self) -> list[str]:
        """The domains, sorted: no result depends on the order of the configuration."""
        return sorted({domain for domain, _ in self.sides})

    @cached_property
    def shapes(self) -> dict[str, torch.Size]:
        """The parameters' shapes by name, sorted: that fixes the flat order over the model."""
        scores = next(iter(self.sides.values())).mean_abs
        return {name: scores[name].shape for name in sorted(scores)}

    @cached_property
    def at_ur(self) -> dict[tuple[str, str], Marks]:
        """The top ``k_op_ur`` set of each side."""
        return self._top(self.k_op_ur)

    @cached_property
    def at_rr(self) -> dict[tuple[str, str], Marks]:
        """The top ``k_op_rr`` set of each side."""
        return self._top(self.k_op_rr)

    @cached_property
    def overlap(self) -> Overlap:
        """OP-UR and OP-RR (paper, Stage 2)."""
        unlearn, retain = (
            [marks for (_, side), marks in self.at_ur.items() if side == name]
            for name in ("unlearn", "retain")
        )
        retain_rr = [marks for (_, side), marks in self.at_rr.items() if side == "retain"]
        return overlap(unlearn, retain, retain_rr)

    def _top(self, k: float) -> dict[tuple[str, str], Marks]:
        return {
            pair: top_per_layer(importance(scores, self.statistic), k, self.layer)
            for pair, scores in self.sides.items()
        }


def importance(scores: Scores, statistic: str) -> Mapping[str, Float[Tensor, "..."]]:
    """Return the numbers that rank entries: ``mean_abs``, ``mean_sq`` or ``z_mean``."""
    if statistic == "z_mean":
        return {name: standardised(mean) for name, mean in scores.mean.items()}
    return {"mean_abs": scores.mean_abs, "mean_sq": scores.mean_sq}[statistic]


def standardised(mean: Float[Tensor, "..."]) -> Float[Tensor, "..."]:
    """Return |(g - mean(g)) / std(g)| over one tensor; 0 everywhere where all entries are equal.

    The authors' release ranks entries by this z-score of the signed mean gradient, the paper by the
    mean of |g|. The standard deviation is the population's, which is defined for a tensor of one
    entry. In float64, equal float32 entries deviate from their mean by exactly 0.
    """
    wide = mean.double()
    centred = wide - wide.mean()
    spread = centred.square().mean().sqrt()
    return (centred / spread).abs().float() if spread != 0 else torch.zeros_like(mean)
