"""Running sums of per-sample gradients: what the scores are made of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from grail.artifacts import Scores
from grail.errors import InputError


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


BYTES = 12
"""Running sums per entry: of |g|, g and g squared, in float32."""

GIB = 2**30


def passes(
    parameters: Mapping[str, nn.Parameter], memory_gib: float | None
) -> list[dict[str, nn.Parameter]]:
    """Split the parameters, in their order, into groups whose running sums fit.

    Args:
        parameters: What is scored, by name.
        memory_gib: The most that the sums of a pass may take, in GiB; None: one pass for all.

    Raises:
        InputError: if the sums of one parameter alone are larger.
    """
    if memory_gib is None:
        return [dict(parameters)]
    groups: list[dict[str, nn.Parameter]] = []
    room = 0.0
    for name, parameter in parameters.items():
        size = parameter.numel() * BYTES
        if size > memory_gib * GIB:
            raise InputError(
                f"importance.memory_gib: {memory_gib:g} is too little for the sums of {name}, "
                f"which take {size / GIB:.4g} GiB. Give at least the need of the largest weight, "
                "or null."
            )
        if size > room or not groups:
            groups.append({})
            room = memory_gib * GIB
        groups[-1][name] = parameter
        room -= size
    return groups
