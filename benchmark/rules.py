"""Other rules for GRAIL's sets, as localizers of one's own: ``localization.method: rules:NAME``.

``size_stable``: the paper's sets for two domains, of about the same size for more. ``discovered``:
the size of each set comes from the scores (false discovery rate), not from a share that is given.
The folder of this file must be in PYTHONPATH.
"""

from __future__ import annotations

import math
from dataclasses import replace

import torch
from torch import Tensor

from grail.artifacts import Mask, Scores
from grail.localization.evidence import Evidence
from grail.localization.overlap import Marks, overlap, size
from grail.localization.select import top

RATE = 0.1
"""Wished share of false discoveries among all (q of Benjamini and Hochberg)."""
LEAST, MOST = 0.01, 0.30
"""Limits of a discovered share of a tensor."""


def needed(domains: int, k: float) -> int:
    """Return the least number m of sets for which chance gives no larger an OP-RR than the paper's.

    m of N independent sets of share k share P(Binomial(N, k) >= m) of the entries; the paper's two
    share k squared.
    """

    def chance(m: int) -> float:
        sizes = range(m, domains + 1)
        return math.fsum(math.comb(domains, n) * k**n * (1 - k) ** (domains - n) for n in sizes)

    return next(m for m in range(min(2, domains), domains + 2) if chance(m) <= k**2 + 1e-12)


def share(domains: int, k: float) -> float:
    """Return the share of each set for which N sets have the union that two have at ``k``."""
    return 1 - (1 - k) ** (2 / domains)


def paper(evidence: Evidence) -> Mask:
    """Freeze OP-UR and OP-RR as grail does: what any two retain sides share is in OP-RR."""
    return _frozen(evidence, 2)


def size_stable(evidence: Evidence) -> Mask:
    """Freeze OP-UR from smaller sets, and OP-RR from entries that enough retain sides share."""
    number = len(evidence.domains)
    smaller = replace(evidence, k_op_ur=share(number, evidence.k_op_ur))
    return _frozen(smaller, needed(number, evidence.k_op_rr))


def _frozen(evidence: Evidence, enough: int) -> Mask:
    retain = [marks for (_, side), marks in evidence.at_rr.items() if side == "retain"]
    shared = {
        name: torch.stack([marks[name] for marks in retain]).sum(0) >= enough
        for name in evidence.shapes
    }
    frozen = {name: bits | shared[name] for name, bits in evidence.overlap.op_ur.items()}
    about = {"k_op_ur": evidence.k_op_ur, "sides": enough, "retain": percent(shared)}
    return Mask(frozen, about=about)


def percent(marks: Marks) -> float:
    """Return the percent of the entries that are marked."""
    return 100 * size(marks) / sum(bits.numel() for bits in marks.values())


def discovered(evidence: Evidence) -> Mask:
    """Freeze the paper's sets, each of the entries whose mean gradient is told from zero."""
    sides: dict[str, list[Marks]] = {"unlearn": [], "retain": []}
    for (_, side), scores in evidence.sides.items():
        sides[side].append({name: discoveries(scores, name) for name in evidence.shapes})
    found = overlap(sides["unlearn"], sides["retain"], sides["retain"])
    return Mask({name: found.op_ur[name] | found.op_rr[name] for name in evidence.shapes})


def discoveries(scores: Scores, name: str) -> Tensor:
    """Return the entries of a tensor that are discovered at ``RATE`` (Benjamini and Hochberg).

    G / sqrt(S2), with G the sum of the samples' gradients and S2 that of their squares, is about
    standard normal where gradients are symmetric around zero.
    """
    squares = scores.mean_sq[name].double().flatten()
    mean = scores.mean[name].double().flatten().abs()
    z = torch.where(squares > 0, math.sqrt(scores.samples) * mean / squares.sqrt(), 0.0)
    p = torch.special.erfc(z / math.sqrt(2)).sort().values
    ranks = torch.arange(1, len(p) + 1, dtype=p.dtype)
    passed = (p <= RATE * ranks / len(p)).nonzero()
    count = int(passed[-1]) + 1 if len(passed) else 0
    count = min(max(count, math.ceil(LEAST * len(p))), math.floor(MOST * len(p)))
    return top(z, count).reshape(scores.mean[name].shape)
