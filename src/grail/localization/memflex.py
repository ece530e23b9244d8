"""MemFlex: train the tensors whose unlearn gradient is large and unlike the retain gradient."""

import math
from collections.abc import Iterable, Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from grail.artifacts import Mask
from grail.errors import InputError
from grail.localization.evidence import Evidence
from grail.localization.select import check_finite

PerTensor = Float[Tensor, " n"]
"""One number per tensor of the model, in the order of sorted names."""


def memflex(evidence: Evidence, thresholds: str, below: float, above: float) -> Mask:
    """Freeze every tensor that is not selected; train the selected tensors as a whole.

    A tensor is selected by the signed mean gradients of its two sides: their cosine is low, and the
    mean of the unlearn side's absolute entries is high (``selected``). Quantiles give each domain
    limits of its own; what is selected in any domain is trained. Absolute limits, which the authors
    published for their two data sets in one, are for the gradients of all domains' rows together.

    Raises:
        InputError: if no tensor is selected, with the range of cosines and magnitudes.
    """
    names = list(evidence.shapes)
    trained = torch.zeros(len(names), dtype=torch.bool)
    numbers: list[tuple[PerTensor, PerTensor]] = []
    domains = evidence.domains
    for group in [[d] for d in domains] if thresholds == "quantile" else [domains]:
        unlearn, retain = (_merged(evidence, group, side) for side in ("unlearn", "retain"))
        cosines = _row(cosine(unlearn[name], retain[name]) for name in names)
        magnitudes = _row(unlearn[name].double().abs().mean() for name in names)
        trained |= selected(cosines, magnitudes, thresholds, below, above)
        numbers.append((cosines, magnitudes))
    if not trained.any():
        raise InputError(_nothing(numbers, thresholds, below, above))
    frozen = {
        name: torch.full(shape, not train)
        for (name, shape), train in zip(evidence.shapes.items(), trained.tolist(), strict=True)
    }
    limits = {"thresholds": thresholds, "cosine": below, "magnitude": above}
    counts = {"tensors": len(names), "trained": int(trained.sum())}
    return Mask(frozen, about={"statistic": "mean", "memflex": limits | counts})


def _merged(evidence: Evidence, domains: Sequence[str], side: str) -> dict[str, Tensor]:
    """Return the signed mean gradients over the rows of one side of some domains, in float64."""
    scores = [evidence.sides[domain, side] for domain in domains]
    rows = torch.tensor([part.samples for part in scores]).double()
    return {
        name: torch.tensordot(rows, torch.stack([part.mean[name].double() for part in scores]), 1)
        / rows.sum()
        for name in evidence.shapes
    }


def check_thresholds(thresholds: str, above: float) -> None:
    """Raise InputError for a quantile of magnitudes that no tensor can be above."""
    if thresholds == "quantile" and above >= 1:
        raise InputError(
            f"localization.memflex.magnitude: {above:g} as a quantile leaves no tensor above it. "
            "Give 0 or more and less than 1, or set localization.memflex.thresholds: absolute."
        )


def selected(
    cosines: PerTensor, magnitudes: PerTensor, thresholds: str, below: float, above: float
) -> Bool[Tensor, " n"]:
    """Return which tensors have a cosine under ``below`` and a magnitude over ``above``.

    Args:
        cosines: Cosine of the two sides' gradients, -1 to 1.
        magnitudes: Mean absolute gradient of the unlearn side.
        thresholds: "absolute", or "quantile" for limits that are quantiles of the given tensors.
        below: Limit of the cosines.
        above: Limit of the magnitudes.

    Both comparisons are strict: a tensor at a limit is not selected. With the largest cosine or the
    smallest magnitude as limit they would leave out one tensor where the user asks to leave out
    none; therefore quantile 1 of the cosines and quantile 0 of the magnitudes are no limits.
    """
    if thresholds == "quantile":
        below = math.inf if below == 1 else quantile(cosines, below)
        above = -math.inf if above == 0 else quantile(magnitudes, above)
    return (cosines < below) & (magnitudes > above)


def quantile(values: PerTensor, q: float) -> float:
    """Return a quantile, interpolated linearly between the two nearest values.

    The position is safe from the rounding of q (0.55 of 21 values is the 12th exactly): a strict
    comparison with a limit that is one bit larger would select one tensor more.
    """
    position = round(q * (len(values) - 1), 9)
    low = math.floor(position)
    ordered = values.sort().values.tolist()
    if position == low:
        return ordered[low]
    return ordered[low] + (position - low) * (ordered[low + 1] - ordered[low])


def cosine(a: Float[Tensor, "..."], b: Float[Tensor, "..."]) -> Float[Tensor, ""]:
    """Return the cosine of two tensors in float64; 0 if one of them is zero."""
    a, b = a.double().flatten(), b.double().flatten()
    norms = a.norm() * b.norm()
    return a @ b / norms if norms != 0 else a.new_zeros(())


def _row(values: Iterable[Float[Tensor, ""]]) -> PerTensor:
    row = torch.stack(list(values))
    check_finite(row)
    return row


def _nothing(
    numbers: list[tuple[PerTensor, PerTensor]], thresholds: str, below: float, above: float
) -> str:
    cosines, magnitudes = (torch.cat(rows) for rows in zip(*numbers, strict=True))
    unit = "quantile " if thresholds == "quantile" else ""
    return (
        "localization.method: memflex selects no tensor, so everything would be frozen: in no "
        f"domain does a tensor have a cosine below {unit}{below:g} and a magnitude above "
        f"{unit}{above:g}. Seen: cosines from {cosines.min():.3g} to {cosines.max():.3g}, "
        f"magnitudes from {magnitudes.min():.3g} to {magnitudes.max():.3g}. Raise "
        "localization.memflex.cosine or lower localization.memflex.magnitude"
        + ("." if unit else ", or set localization.memflex.thresholds: quantile.")
    )
