"""Exact top entries of any number of layers, over chunks and processes, without gathering them.

Knows numbers, chunks and processes; knows nothing of parameters' names and of fractions.

Non-negative float32 numbers compare like their bit patterns, so the K-th largest is found byte by
byte: four times, the next byte of all entries that share the bytes found so far is counted, and the
counts say which byte the K-th largest has (a radix select). Only counts are ever added up, 2 KiB a
layer and pass, whoever holds the entries and however many there are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float32, Int, Int64
from torch import Tensor

from grail.errors import InputError

NO_ORDER = "scores hold NaN or infinite values: no order is defined. Score again."

Counts = Int64[Tensor, "..."]
Chunk = Float32[Tensor, "..."]
Layer = Sequence[Chunk]
"""Scores of a layer, in its flat order: chunk after chunk, each in C order."""

BYTES = (24, 16, 8, 0)
"""How far each byte of a float32 is from the lowest bit, the highest first."""
BINS = 256
BLOCK = 1 << 17
"""Entries looked at once: the temporaries of a block stay in a core's cache."""
INFINITE = 0x7F800000
"""The bits of infinity; those of finite numbers are below, those of NaN above."""
UNSIGNED = 0x7FFFFFFF
"""All bits of a float32 but its sign."""


@dataclass(frozen=True)
class Processes:
    """Those who hold the entries together.

    Every process has the same layers and chunks, and of each chunk a part that may be empty: that
    of process 0 comes first in the flat order, then that of process 1. A run of the flat order per
    process is such a division, and so is each tensor cut along its first axis.

    Attributes:
        add: Returns the sum of a tensor of counts over all processes; called by all of them in the
            same order. It must not change its argument.
        index: This process's number, from 0.
        count: How many there are.
    """

    add: Callable[[Counts], Counts]
    index: int = 0
    count: int = 1


ALONE = Processes(add=lambda counts: counts)


def distributed() -> Processes:
    """Return the processes of torch.distributed's default group.

    Raises:
        RuntimeError: if the group is not initialised.
    """
    import torch.distributed as group

    def add(counts: Counts) -> Counts:
        total = counts.clone()
        group.all_reduce(total)
        return total

    return Processes(add, group.get_rank(), group.get_world_size())


def mark_top(
    layers: Sequence[Layer], wanted: Callable[[int], int], processes: Processes = ALONE
) -> list[list[Bool[Tensor, "..."]]]:
    """Mark the largest entries of each layer; ties go to the lowest place, zeros are never taken.

    The marks depend on the entries and their flat order alone: not on how they are cut into chunks
    or spread over processes. Each process gets the marks of its own entries.

    Args:
        layers: Float32 scores. Entries below 0 count as 0.
        wanted: Entries of a layer (over all processes) -> how many of them to mark.
        processes: Who holds them.

    Raises:
        InputError: in every process, if any of them holds a score that is NaN or infinite.
        TypeError: if scores are not float32: the bits of others have another order.
    """
    if not layers:
        return []
    whole = [_together(layer) for layer in layers]
    entries, left = _to_take(whole, wanted, processes)
    found = torch.zeros_like(entries)  # per layer, the bytes of the threshold so far
    for shift in BYTES:
        counts = [
            _histogram(layer, shift, prefix)
            for layer, prefix in zip(whole, found.tolist(), strict=True)
        ]
        byte, left = descend(processes.add(torch.stack(counts)), left)
        found = found * BINS + byte
    limits = found.clamp(max=INFINITE).tolist()  # of a layer of which nothing is taken: above all
    taken = _ties(layers, limits, left, processes)
    return [
        [_marks(chunk, limit, ties) for chunk, ties in zip(layer, own, strict=True)]
        for layer, limit, own in zip(layers, limits, taken, strict=True)
    ]


def descend(
    histograms: Int64[Tensor, "L 256"], left: Int64[Tensor, " L"]
) -> tuple[Int64[Tensor, " L"], Int64[Tensor, " L"]]:
    """Return which byte the ``left``-th largest entry has, and its rank among those of that byte.

    Where nothing is left to take, the byte is 255, which no entry has first.
    """
    falling = histograms.flip(1)
    with_own = falling.cumsum(1)
    place = (with_own < left[:, None]).sum(1)  # bytes of which every entry is taken
    above = (with_own - falling).gather(1, place[:, None])[:, 0]
    return BINS - 1 - place, left - above


def _to_take(
    layers: Sequence[Layer], wanted: Callable[[int], int], processes: Processes
) -> tuple[Int64[Tensor, " L"], Int64[Tensor, " L"]]:
    """Return the size of each layer, and how many entries are taken: at most those above 0."""
    sizes, positive, refused = processes.add(torch.tensor([_facts(layer) for layer in layers])).T
    if refused.any():
        raise InputError(NO_ORDER)
    asked = torch.tensor([max(0, wanted(size)) for size in sizes.tolist()])
    return sizes, torch.minimum(asked, positive)


def _facts(layer: Layer) -> tuple[int, int, int]:
    """Return how many entries there are, how many above 0, and how many without an order."""
    sizes, positive, refused = 0, 0, 0
    for bits in _blocks(layer):
        sizes += bits.numel()
        positive += int((bits > 0).sum())
        refused += int(((bits & UNSIGNED) >= INFINITE).sum())
    return sizes, positive, refused


def _histogram(layer: Layer, shift: int, prefix: int) -> Int64[Tensor, " 256"]:
    """Count the byte at ``shift`` of the entries whose higher bytes are ``prefix``.

    Zeros are counted at the lowest byte, where they are last and are never reached: no more is
    taken than there are entries above 0. Of the first byte only the half without a sign counts.
    """
    counts = torch.zeros(BINS, dtype=torch.int64)
    for bits in _blocks(layer):
        own = bits if shift == BYTES[0] else bits[bits >> (shift + 8) == prefix]
        counts += torch.bincount((own >> shift) & (BINS - 1), minlength=BINS).cpu()
    if shift == BYTES[0]:
        counts[BINS // 2 :] = 0
    return counts


def _ties(
    layers: Sequence[Layer], limits: Sequence[int], left: Counts, processes: Processes
) -> list[list[int]]:
    """Return how many of the entries at the limit are taken in each chunk of this process."""
    own = [
        [sum(int((bits == limit).sum()) for bits in _blocks([chunk])) for chunk in layer]
        for layer, limit in zip(layers, limits, strict=True)
    ]
    flat = [count for counts in own for count in counts]
    everyone = torch.zeros(processes.count, len(flat), dtype=torch.int64)
    everyone[processes.index] = torch.tensor(flat, dtype=torch.int64)
    found = processes.add(everyone).split([len(counts) for counts in own], dim=1)
    return [
        _shares(counts, need, processes.index)
        for counts, need in zip(found, left.tolist(), strict=True)
    ]


def _shares(ties: Int64[Tensor, "W C"], need: int, index: int) -> list[int]:
    """Share ``need`` out to the ties of one layer, in flat order: chunks, in each the processes."""
    ordered = ties.T.flatten()
    before = (ordered.cumsum(0) - ordered).reshape(ties.T.shape)[:, index]
    return torch.minimum((need - before).clamp(min=0), ties[index]).tolist()


def _marks(chunk: Chunk, limit: int, ties: int) -> Bool[Tensor, "..."]:
    """Mark what is above the limit, and the first ``ties`` entries at it."""
    marks = torch.empty(chunk.numel(), dtype=torch.bool, device=chunk.device)
    for number, bits in enumerate(_blocks([chunk])):
        out = marks[number * BLOCK :][:BLOCK]
        torch.gt(bits, limit, out=out)
        if ties:
            tied = (bits == limit).nonzero()[:ties, 0]
            out[tied] = True
            ties -= len(tied)
    return marks.reshape(chunk.shape)


def _together(layer: Layer) -> Layer:
    """Return a layer that fits into a block as one chunk, to be counted in one go."""
    small = sum(chunk.numel() for chunk in layer) <= BLOCK
    alike = len({(chunk.device, chunk.dtype) for chunk in layer}) == 1
    return (
        [torch.cat([chunk.detach().reshape(-1) for chunk in layer])] if small and alike else layer
    )


def _blocks(layer: Layer) -> Iterator[Int[Tensor, " n"]]:
    """Yield the bits of all entries, a block at a time; nothing is copied."""
    for chunk in layer:
        if chunk.dtype != torch.float32:
            raise TypeError(f"the top of {chunk.dtype} numbers: only float32 can be ranked")
        if chunk.numel():
            yield from chunk.detach().reshape(-1).view(torch.int32).split(BLOCK)
