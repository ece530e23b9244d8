"""What a machine can do at most, and the least that scoring must do: bytes and operations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch.utils.flop_counter import FlopCounterMode

from grail.model.forward import Policy, trainable
from races.clock import timed

STATISTICS = 3 * 2 * 4
"""Bytes that each entry's three statistics in float32 take when read and written once."""


@dataclass(frozen=True)
class Pace:
    """Operations and bytes per second of a device, measured in one precision."""

    flops: float
    bytes: float

    def seconds(self, flops: float, moved: float) -> float:
        """Return the least time for that much work: the slower of the two."""
        return max(flops / self.flops, moved / self.bytes)


@dataclass(frozen=True)
class Work:
    """What one scoring of some rows must do at least.

    Attributes:
        flops: Operations of a forward and a backward pass.
        bytes: Per batch: weights read by both passes, and the statistics read and written.
    """

    flops: float
    bytes: float


def pace_of(device: str, dtype: torch.dtype, side: int) -> Pace:
    """Measure a square product of ``side`` and a copy of as many entries times 8."""
    a = torch.randn(side, side, device=device).to(dtype)
    source = torch.zeros(8 * side * side, device=device)
    goal = torch.empty_like(source)
    product = _fastest(lambda: a @ a)
    copy = _fastest(lambda: goal.copy_(source))
    return Pace(2 * side**3 / product, 2 * source.numel() * source.element_size() / copy)


def work_of(model: Policy, batches: int, bare_pass: Callable[[], object]) -> Work:
    """Count what scoring must do.

    Args:
        model: The model.
        batches: Batches that the rows go in.
        bare_pass: Forward and backward over them; run once, with the counter on. Its summed weight
            gradients take as many operations as those of the samples one by one.
    """
    with FlopCounterMode(display=False) as counter:
        bare_pass()
    weights = sum(p.numel() * p.element_size() for p in model.parameters())
    entries = sum(p.numel() for p in trainable(model).values())
    moved = batches * (2 * weights + STATISTICS * entries)
    return Work(float(counter.get_total_flops()), float(moved))


def _fastest(way: Callable[[], object], times: int = 5) -> float:
    way()
    return min(timed(way) for _ in range(times))
