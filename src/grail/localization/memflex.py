"""MemFlex: train the tensors whose unlearn gradient is large and unlike the retain gradient."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grail.artifacts import Mask
from grail.config.localization import Localization, Memflex
from grail.errors import InputError
from grail.localization.evidence import Evidence
from grail.localization.select import check_finite

Values = Float[Tensor, " n"]
"""One number per tensor of the model, in the order of sorted names."""


def memflex(evidence: Evidence, settings: Localization, seed: int) -> Mask:
    """Freeze every tensor that is selected in no domain, and no part of the others.

    A tensor is selected in a domain by the signed mean gradients of its two sides: their cosine is
    low, and the mean of the unlearn side's absolute entries is high (``selected``). Over domains
    the selections are united, as the paper's authors ran MemFlex on several.

    Raises:
        InputError: if no tensor is selected, saying what was seen.
    """
    del seed
    names = list(evidence.shapes)
    trained = torch.zeros(len(names), dtype=torch.bool)
    seen: list[tuple[Values, Values]] = []
    for domain in evidence.domains:
        unlearn, retain = (evidence.sides[domain, side].mean for side in ("unlearn", "retain"))
        cosines = _row(cosine(unlearn[name], retain[name]) for name in names)
        magnitudes = _row(unlearn[name].double().abs().mean() for name in names)
        trained |= selected(cosines, magnitudes, settings.memflex)
        seen.append((cosines, magnitudes))
    if not trained.any():
        raise InputError(_nothing(seen, settings.memflex))
    frozen = {
        name: torch.full(shape, not keep)
        for (name, shape), keep in zip(evidence.shapes.items(), trained.tolist(), strict=True)
    }
    numbers = {"tensors": len(names), "trained": int(trained.sum())}
    return Mask(
        frozen, about={"statistic": "mean", "memflex": settings.memflex.model_dump() | numbers}
    )


def check_thresholds(rule: Memflex) -> None:
    """Refuse a quantile that no tensor can be above.

    Raises:
        InputError: naming the setting.
    """
    if rule.thresholds == "quantile" and rule.magnitude >= 1:
        raise InputError(
            f"localization.memflex.magnitude: {rule.magnitude:g} as a quantile leaves no tensor "
            "above it. Give 0 or more and less than 1, or set localization.memflex.thresholds: "
            "absolute."
        )


def selected(cosines: Values, magnitudes: Values, rule: Memflex) -> Bool[Tensor, " n"]:
    """Return which tensors have a cosine below the one limit and a magnitude above the other.

    Both comparisons are strict, so a tensor at a limit is not selected. Quantiles are those of the
    given tensors, interpolated linearly (the default of NumPy and torch). A strict comparison with
    the largest cosine or the smallest magnitude would leave out one tensor where the user asks to
    leave out none, therefore the quantile 1 of cosines and the quantile 0 of magnitudes are no
    limit at all.
    """
    if rule.thresholds == "absolute":
        return (cosines < rule.cosine) & (magnitudes > rule.magnitude)
    below = math.inf if rule.cosine == 1 else quantile(cosines, rule.cosine)
    above = -math.inf if rule.magnitude == 0 else quantile(magnitudes, rule.magnitude)
    return (cosines < below) & (magnitudes > above)


def quantile(values: Values, q: float) -> float:
    """Return a quantile, interpolated linearly between the two nearest values.

    The position is safe from the rounding of q (0.55 of 21 values is the 12th, not a bit above
    it): with strict comparisons that bit would select one tensor more.
    """
    position = round(q * (len(values) - 1), 9)
    low = math.floor(position)
    ordered = values.sort().values.tolist()
    if position == low:
        return ordered[low]
    return ordered[low] + (position - low) * (ordered[low + 1] - ordered[low])


def cosine(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the cosine of two tensors; 0 if one of them is zero: nothing is shared then."""
    a, b = a.double().flatten(), b.double().flatten()
    norms = a.norm() * b.norm()
    return a @ b / norms if norms != 0 else a.new_zeros(())


def _row(values: Iterable[Float[Tensor, ""]]) -> Values:
    row = torch.stack(list(values))
    check_finite(row)
    return row


def _nothing(seen: list[tuple[Values, Values]], rule: Memflex) -> str:
    cosines, magnitudes = (torch.cat(rows) for rows in zip(*seen, strict=True))
    unit = "quantile " if rule.thresholds == "quantile" else ""
    return (
        "localization.method: memflex selects no tensor, so that everything would be frozen: in "
        f"no domain has one a cosine below {unit}{rule.cosine:g} and a magnitude above "
        f"{unit}{rule.magnitude:g}. Seen: cosines from {cosines.min():.3g} to {cosines.max():.3g}, "
        f"magnitudes from {magnitudes.min():.3g} to {magnitudes.max():.3g}. Raise "
        "localization.memflex.cosine or lower localization.memflex.magnitude"
        + ("." if unit else ", or set localization.memflex.thresholds: quantile.")
    )
