"""Running sums of per-sample gradients: what the scores are made of."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grail.artifacts import Scores


@dataclass
class Sums:
    """Running sums over samples of |g|, g and g squared, per parameter."""

    total_abs: dict[str, Tensor]
    total: dict[str, Tensor]
    total_sq: dict[str, Tensor]
    samples: int = 0

    @classmethod
    def zeros(cls, parameters: dict[str, nn.Parameter]) -> Sums:
        """Start at zero, in float32, beside the parameters."""

        def like() -> dict[str, Tensor]:
            return {n: torch.zeros_like(p, dtype=torch.float32) for n, p in parameters.items()}

        return cls(like(), like(), like())

    def add(self, name: str, gradients: Float[Tensor, "N ..."]) -> None:
        """Add the gradients of N samples for one parameter."""
        flat = gradients.flatten(1)
        for sums, values in (
            (self.total_abs, flat.abs()),
            (self.total, flat),
            (self.total_sq, flat.square()),
        ):
            sums[name].view(-1).add_(values.sum(0))

    def scores(self) -> Scores:
        """Divide by the number of samples."""
        n = max(1, self.samples)

        def mean(sums: dict[str, Tensor]) -> dict[str, Tensor]:
            return {name: (value / n).cpu() for name, value in sums.items()}

        return Scores(mean(self.total_abs), mean(self.total), mean(self.total_sq), self.samples)
