"""Running sums of per-sample gradients, from which the scores are made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor, nn

from grail.artifacts import Scores
from grail.errors import InputError
from grail.model.sharded import added_in_order, part


@dataclass
class Sums:
    """Running sums over samples of |g|, g and g squared, per parameter.

    Of a model in parts, each process keeps the sums of its part: what it finds for its own samples
    goes to the others parameter by parameter, when that is complete for a batch.

    Attributes:
        total_abs: Parameter name -> the sum of |g|; likewise ``total`` and ``total_sq``.
        samples: How many samples were added, here.
        like: The parameters in parts, by name.
        idle: Whether what is added now is another process's: it does not count.
    """

    total_abs: dict[str, Tensor]
    total: dict[str, Tensor]
    total_sq: dict[str, Tensor]
    samples: int = 0
    like: dict[str, Tensor] = field(default_factory=dict)
    idle: bool = False

    @classmethod
    def zeros(cls, parameters: Mapping[str, nn.Parameter]) -> Sums:
        """Start at zero, in float32 (float64 for parameters in it), on the parameters' devices."""

        def zeros() -> dict[str, Tensor]:
            return {
                n: torch.zeros_like(part(p), dtype=torch.promote_types(p.dtype, torch.float32))
                for n, p in parameters.items()
            }

        like: dict[str, Tensor] = {n: p for n, p in parameters.items() if part(p) is not p}
        return cls(zeros(), zeros(), zeros(), like=like)

    def by_statistic(self) -> tuple[dict[str, Tensor], dict[str, Tensor], dict[str, Tensor]]:
        """Return the sums of |g|, g and g squared."""
        return self.total_abs, self.total, self.total_sq

    @contextmanager
    def of(self, name: str) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Yield the three sums of a parameter, whole, to add a batch to."""
        own = [sums[name] for sums in self.by_statistic()]
        if name not in self.like:
            yield own[0], own[1], own[2]
            return
        like = self.like[name]
        whole = [torch.zeros(like.shape, dtype=s.dtype, device=s.device) for s in own]
        yield whole[0], whole[1], whole[2]
        for sums, added in zip(own, whole, strict=True):
            added_in_order(added.zero_() if self.idle else added, sums, like)

    def add(self, name: str, gradients: Float[Tensor, "N ..."]) -> None:
        """Add the gradients of N samples for one parameter."""
        with self.of(name) as sums:
            add_statistics(sums, gradients)

    def over_processes(self, samples: int) -> None:
        """Add up the sums of all processes, of a model that each of them has whole."""
        for sums in self.by_statistic() if not self.like else ():
            for value in sums.values():
                dist.all_reduce(value)
        self.samples = samples

    def scores(self) -> Scores:
        """Turn the sums into means over samples and return them, on the CPU.

        The sums are gone then: both at once would be twice the memory. Of a model in parts, the
        means are those of this process's part.
        """
        n = max(1, self.samples)
        for sums in self.by_statistic():
            for name, value in sums.items():
                sums[name] = value.div_(n).cpu()
        return Scores(*self.by_statistic(), samples=self.samples)


def add_statistics(sums: Sequence[Tensor], gradients: Float[Tensor, "N ..."]) -> None:
    """Add N samples' |g|, g and g squared to the three sums of a parameter."""
    flat = gradients.flatten(1)
    for total, values in zip(sums, (flat.abs(), flat, flat.square()), strict=True):
        total.view(-1).add_(values.sum(0))


_BYTES_PER_ENTRY = 12  # three sums in float32
_GIB = 2**30


def passes(
    parameters: Mapping[str, nn.Parameter], memory_gib: float | None
) -> list[dict[str, nn.Parameter]]:
    """Split the parameters, in their order, into groups whose running sums fit ``memory_gib``.

    None: one pass for all. InputError if the sums of one parameter alone are larger.
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
