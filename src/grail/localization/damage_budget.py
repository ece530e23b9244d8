"""Damage budget: free the entries that unlearn most for the least damage, up to a share of it."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import reduce

import torch
from torch import Tensor

from grail.artifacts import Mask
from grail.localization.evidence import Evidence
from grail.localization.select import check_finite

_Part = tuple[Tensor, Tensor]
"""Damage, and damage per benefit, of each entry of one tensor, flat, in float64."""

_SHIFT = 48
"""A non-negative float64 without its lowest 48 bits is a bin of 6 % relative width."""


def damage_budget(evidence: Evidence, budget: float) -> Mask:
    """Free the entries with the least damage per benefit; they do ``budget`` (0-1) of all damage.

    To first order, moving an entry damages a retain side by its score there, and serves unlearning
    by its score on the unlearn side. Scores (mean of |g|) are shares of their side's sum over the
    model, so that a domain with larger gradients counts no more than others. An entry's damage is
    its largest share among the retain sides, its benefit the mean share over the unlearn sides.
    ``budget`` alone decides how much of each layer is frozen. InputError if a score is not finite.
    """
    free, limit = free_entries(lambda: damage_per_benefit(evidence), budget)
    frozen = {
        name: ~marks.reshape(shape)
        for (name, shape), marks in zip(evidence.shapes.items(), free, strict=True)
    }
    facts = {"budget": budget, "lambda": None if math.isinf(limit) else limit}
    return Mask(frozen, about={"statistic": "mean_abs", "damage_budget": facts})


def damage_per_benefit(evidence: Evidence) -> Iterator[_Part]:
    """Yield each tensor's damage, and damage per benefit, flat, in the order of ``shapes``."""
    totals = {}
    for pair, scores in evidence.sides.items():
        for name in evidence.shapes:
            check_finite(scores.mean_abs[name])
        total = math.fsum(float(scores.mean_abs[n].double().sum()) for n in evidence.shapes)
        totals[pair] = total or 1.0  # a side of zeros has shares of zero

    def shares(name: str, side: str) -> Iterator[Tensor]:
        for pair in ((domain, side) for domain in evidence.domains):
            yield evidence.sides[pair].mean_abs[name].flatten().double() / totals[pair]

    for name in evidence.shapes:
        damage = reduce(torch.maximum, shares(name, "retain"))
        benefit = reduce(torch.add, shares(name, "unlearn")) / len(evidence.domains)
        yield damage, torch.where(damage > 0, damage / benefit, 0.0)


def free_entries(parts: Callable[[], Iterable[_Part]], budget: float) -> tuple[list[Tensor], float]:
    """Return which entries of each part stay free, and their largest damage / benefit (lambda).

    Entries are freed in the order of damage / benefit, ties in flat order, as long as the sum of
    their damage is at most ``budget`` times the total: the exact solution, up to one entry, of
    "most benefit within the budget". The ratio is 0 for entries that do no damage and infinite for
    those that do only damage; lambda is infinite, too, if nothing is frozen.

    ``parts`` is called three times, so that one tensor at a time is in memory: to find the bin of
    ratios in which the budget runs out, to sort the entries of that bin, and to mark.
    """
    spent = torch.zeros(1 << (63 - _SHIFT), dtype=torch.float64)
    for damage, ratio in parts():
        spent += (ratio.view(torch.int64) >> _SHIFT).bincount(damage, len(spent))
    spent = spent.cumsum(0)
    allowed = budget * float(spent[-1])
    last = int((spent <= allowed).sum())  # the first bin that does not fit as a whole
    if last == len(spent):
        return [torch.ones_like(damage, dtype=torch.bool) for damage, _ in parts()], math.inf
    left = allowed - (float(spent[last - 1]) if last else 0.0)
    limit, ties = _first_frozen(parts(), last, left)
    free, largest = [], 0.0
    for _, ratio in parts():
        marks = ratio < limit
        tied = (ratio == limit).nonzero().flatten()[:ties]
        marks[tied] = True
        ties -= len(tied)
        free.append(marks)
        if marks.any():
            largest = max(largest, float(ratio[marks].max()))
    return free, largest


def _first_frozen(parts: Iterable[_Part], number: int, allowed: float) -> tuple[float, int]:
    """Return the ratio of the first frozen entry, which is in the given bin, and its free ties."""
    ratios, damages = list[Tensor](), list[Tensor]()
    for damage, ratio in parts:
        inside = ratio.view(torch.int64) >> _SHIFT == number
        ratios.append(ratio[inside])
        damages.append(damage[inside])
    ratio, order = torch.cat(ratios).sort(stable=True)
    spent = torch.cat(damages)[order].cumsum(0)
    count = min(int((spent <= allowed).sum()), len(ratio) - 1)
    return float(ratio[count]), count - int((ratio < ratio[count]).sum())
