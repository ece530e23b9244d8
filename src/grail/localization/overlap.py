"""OP-UR, OP-RR and the Jaccard index over N domains: set operations on boolean tensors."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_

import torch
from jaxtyping import Bool
from torch import Tensor

Marks = Mapping[str, Bool[Tensor, "..."]]
"""Parameter name -> which of its entries are in the set."""


@dataclass(frozen=True)
class Overlap:
    """The two sets of entries that GRAIL freezes (paper, Stage 2)."""

    op_ur: dict[str, Bool[Tensor, "..."]]
    op_rr: dict[str, Bool[Tensor, "..."]]


def overlap(
    unlearn: Sequence[Marks], retain_ur: Sequence[Marks], retain_rr: Sequence[Marks]
) -> Overlap:
    """Return OP-UR and OP-RR.

    Args:
        unlearn: Top ``k_op_ur`` sets of the unlearn sides, one per domain.
        retain_ur: Top ``k_op_ur`` sets of the retain sides.
        retain_rr: Top ``k_op_rr`` sets of the retain sides.

    OP-UR: important for some unlearn side and for some retain side. OP-RR: important for the retain
    sides of at least two domains (empty for one domain; for two, the paper's intersection).
    """
    names = list(unlearn[0])
    op_ur = {name: _union(unlearn, name) & _union(retain_ur, name) for name in names}
    op_rr = {name: _in_two(retain_rr, name) for name in names}
    return Overlap(op_ur, op_rr)


def jaccard(a: Marks, b: Marks, names: Iterable[str] | None = None) -> float:
    """Return |a and b| / |a or b| over the given parameters; 1 for two empty sets."""
    names = list(a) if names is None else list(names)
    both = sum(int((a[name] & b[name]).sum()) for name in names)
    either = sum(int((a[name] | b[name]).sum()) for name in names)
    return both / either if either else 1.0


def size(marks: Marks, names: Iterable[str] | None = None) -> int:
    """Return how many entries are in the set (in the given parameters)."""
    return sum(int(marks[name].sum()) for name in (marks if names is None else names))


def _union(sets: Sequence[Marks], name: str) -> Bool[Tensor, "..."]:
    return reduce(or_, (marks[name] for marks in sets))


def _in_two(sets: Sequence[Marks], name: str) -> Bool[Tensor, "..."]:
    once, twice = (torch.zeros_like(sets[0][name]) for _ in range(2))
    for marks in sets:  # counts in int64 would leave gaps of eight bytes an entry between the sets
        twice |= once & marks[name]
        once |= marks[name]
    return twice
