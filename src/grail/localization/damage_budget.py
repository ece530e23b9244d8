"""Damage budget: free the entries that unlearn most for the least damage, up to a share of it."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from functools import reduce

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grail.artifacts import Mask
from grail.config.localization import Localization
from grail.localization.evidence import Evidence
from grail.localization.select import check_finite

Flat = Float[Tensor, " n"]
"""One number per entry of the model, in flat order."""


def damage_budget(evidence: Evidence, settings: Localization, seed: int) -> Mask:
    """Freeze what damages the retain sides most for what it does to the unlearn sides.

    To first order, moving an entry damages a retain side by its score there, and serves unlearning
    by its score on the unlearn side. Scores (mean of |g|) are taken as shares of their side's sum
    over the whole model, so that no domain counts more for having larger gradients; the damage of
    an entry is that to the domain it damages most, its benefit the mean over domains. The one
    number ``localization.budget`` thereby decides how much of each layer is frozen.
    """
    del seed
    shapes = evidence.shapes

    def shares(side: str) -> Iterator[Flat]:  # one at a time: each is as large as the model
        return (_share(evidence.sides[d, side].mean_abs, shapes) for d in evidence.domains)

    damage = reduce(torch.maximum, shares("retain"))
    benefit = reduce(torch.add, shares("unlearn")) / len(evidence.domains)
    free, limit = within(damage, benefit, settings.budget)
    parts = (~free).split([shape.numel() for shape in shapes.values()])
    frozen = {
        name: part.reshape(shape) for (name, shape), part in zip(shapes.items(), parts, strict=True)
    }
    facts = {"budget": settings.budget, "lambda": None if math.isinf(limit) else limit}
    return Mask(frozen, about={"statistic": "mean_abs", "damage_budget": facts})


def within(damage: Flat, benefit: Flat, budget: float) -> tuple[Bool[Tensor, " n"], float]:
    """Return which entries stay free, and the largest damage per benefit among them (lambda).

    Entries are freed in the order of damage / benefit, ties in flat order, for as long as the sum
    of their damage is at most ``budget`` times that of all entries: the exact solution, up to one
    entry, of "most benefit within the budget". Entry j is then frozen iff damage_j > lambda *
    benefit_j, except that of entries at lambda itself the last ones may be frozen too. An entry
    that does no damage is free, whatever its benefit; one that only does damage comes last. Lambda
    is infinite where nothing is frozen, or only some of those last.
    """
    ratio = torch.where(damage > 0, damage / benefit, 0.0)
    order = ratio.argsort(stable=True)
    spent = damage[order].cumsum(0)
    count = int((spent <= budget * spent[-1]).sum())
    free = torch.zeros_like(damage, dtype=torch.bool)
    free[order[:count]] = True
    if count == len(damage):
        return free, math.inf
    return free, float(ratio[order[count - 1]]) if count else 0.0


def _share(scores: Mapping[str, Float[Tensor, "..."]], names: Iterable[str]) -> Flat:
    """Return scores in flat order as shares of their sum; zeros stay zeros."""
    flat = torch.cat([scores[name].flatten() for name in names]).double()
    check_finite(flat)
    total = flat.sum()
    return flat / total if total > 0 else flat
