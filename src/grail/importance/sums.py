"""Running sums of per-sample gradients, from which the scores are made."""

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
    def zeros(cls, parameters: Mapping[str, nn.Parameter]) -> Sums:
        """Start at zero, in float32, on the parameters' devices."""

        def zeros() -> dict[str, Tensor]:
            return {n: torch.zeros_like(p, dtype=torch.float32) for n, p in parameters.items()}

        return cls(zeros(), zeros(), zeros())

    def by_statistic(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Return the sums of |g|, g and g squared."""
        return self.total_abs, self.total, self.total_sq

    def add(self, name: str, gradients: Float[Tensor, "N ..."]) -> None:
        """Add the gradients of N samples for one parameter."""
        flat = gradients.flatten(1)
        statistics = (flat.abs(), flat, flat.square())
        for sums, values in zip(self.by_statistic(), statistics, strict=True):
            sums[name].view(-1).add_(values.sum(0))

    def scores(self) -> Scores:
        """Return the means over samples, on the CPU."""
        n = max(1, self.samples)
        means = [{name: (v / n).cpu() for name, v in s.items()} for s in self.by_statistic()]
        return Scores(*means, samples=self.samples)


_BYTES_PER_ENTRY = 12  # three sums in float32
_GIB = 2**30


def passes(
    parameters: Mapping[str, nn.Parameter], memory_gib: float | None
) -> list[dict[str, nn.Parameter]]:
    """Split the parameters, in their order, into groups whose running sums fit.

    Args:
        parameters: The parameters to score, by name.
        memory_gib: The most that the sums of a pass may take, in GiB; None: one pass for all.

    Raises:
        InputError: if the sums of one parameter alone are larger.
    """
    if memory_gib is None:
        return [dict(parameters)]
    groups: list[dict[str, nn.Parameter]] = []
    room = 0.0
    for name, parameter in parameters.items():
        size = parameter.numel() * _BYTES_PER_ENTRY
        if size > memory_gib * _GIB:
            raise InputError(
                f"importance.memory_gib: {memory_gib:g} is too little for the sums of {name}, "
                f"which take {size / _GIB:.4g} GiB. Give at least the need of the largest weight, "
                "or null."
            )
        if size > room or not groups:
            groups.append({})
            room = memory_gib * _GIB
        groups[-1][name] = parameter
        room -= size
    return groups
