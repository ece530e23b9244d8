"""LOCALIZERS: name -> from the evidence to a Mask; knows no model, no data, no objective."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool
from torch import Tensor

from grail.artifacts import Mask
from grail.config.localization import Localization
from grail.errors import InputError, did_you_mean
from grail.localization.damage_budget import damage_budget
from grail.localization.describe import describe
from grail.localization.evidence import Evidence, Sides, Weights, gather
from grail.localization.memflex import check_thresholds, memflex

Localizer = Callable[[Evidence, Localization, int], Mask]
"""The seed comes last. What a mask says about itself is added to (``localize``), not replaced."""


def localize(
    sides: Sides, settings: Localization, seed: int, weights: Weights
) -> tuple[Mask, dict[str, Any]]:
    """Return the mask, and what ``localization.json`` says about it.

    Args:
        sides: The scores of every side of every domain.
        settings: Which localizer, and its numbers.
        seed: That of whatever the localizer draws.
        weights: Gives the vanilla model's trainable tensors; called by ``magnitude`` only.

    Raises:
        InputError: if a setting or a score cannot be used.
    """
    check_method(settings)
    evidence = gather(sides, settings, weights)
    made = LOCALIZERS[settings.method](evidence, settings, seed)
    about = {
        "localizer": settings.method,
        "statistic": settings.statistic,
        "k": {"k_op_ur": settings.k_op_ur, "k_op_rr": settings.k_op_rr},
        "layer": settings.layer,
        "freeze": "by_side" if made.by_side else "static",
        "counts": made.counts(),
    }
    mask = replace(made, about={**about, **made.about})
    return mask, describe(evidence, mask, settings)


def check_method(settings: Localization) -> None:
    """Refuse an unknown ``localization.method``, and settings that have no meaning for it.

    Raises:
        InputError: naming the setting.
    """
    method = settings.method
    if method not in LOCALIZERS:
        raise InputError(
            f"localization.method: '{method}' is unknown.{did_you_mean(method, LOCALIZERS)} "
            f"Allowed: {', '.join(LOCALIZERS)}."
        )
    if method != "grail" and settings.freeze == "by_side":
        raise InputError(
            f"localization.freeze: by_side has no meaning for method: {method}, which knows no two "
            "sets to tell apart. Use freeze: static, or method: grail."
        )
    if method == "memflex":
        check_thresholds(settings.memflex)


def _none(evidence: Evidence, settings: Localization, seed: int) -> Mask:
    """Freeze nothing."""
    del settings, seed
    return Mask({name: torch.zeros_like(bits) for name, bits in evidence.found.op_ur.items()})


def _grail(evidence: Evidence, settings: Localization, seed: int) -> Mask:
    """Freeze OP-UR and OP-RR (paper), or let each side skip its own of the two (release)."""
    del seed
    ur = _kept(evidence.found.op_ur, settings.keep_op_ur)
    rr = _kept(evidence.found.op_rr, settings.keep_op_rr)
    if settings.freeze == "by_side":
        # Entries in both are moved by neither side, so they are the ones that are frozen.
        return Mask({name: ur[name] & rr[name] for name in ur}, unlearn=ur, retain=rr)
    return Mask({name: ur[name] | rr[name] for name in ur})


def _random(evidence: Evidence, settings: Localization, seed: int) -> Mask:
    """Freeze as many entries per tensor as ``grail`` would, drawn at random: a control."""
    like = _grail(evidence, settings, seed).frozen
    generator = torch.Generator().manual_seed(seed)

    def drawn(bits: Tensor) -> Tensor:
        return _first(torch.randperm(bits.numel(), generator=generator), bits)

    return Mask({name: drawn(like[name]) for name in evidence.shapes})


def _magnitude(evidence: Evidence, settings: Localization, seed: int) -> Mask:
    """Freeze as many entries per tensor as ``grail`` would, the largest weights: a control.

    It needs no gradient. Ties go to the lowest flat index.
    """
    like = _grail(evidence, settings, seed).frozen
    weights = evidence.weights()
    if {n: w.shape for n, w in weights.items()} != {n: bits.shape for n, bits in like.items()}:
        raise InputError(
            "the vanilla model's trainable tensors are not those that were scored. Score again."
        )

    def largest(name: str) -> Tensor:
        sizes = weights[name].flatten().float().abs()
        return _first(sizes.argsort(descending=True, stable=True), like[name])

    return Mask({name: largest(name) for name in evidence.shapes})


def _first(order: Tensor, like: Bool[Tensor, "..."]) -> Bool[Tensor, "..."]:
    """Mark as many entries as are marked in ``like``: those that ``order`` names first."""
    flat = torch.zeros(like.numel(), dtype=torch.bool)
    flat[order[: int(like.sum())]] = True
    return flat.reshape(like.shape)


def _kept(marks: dict[str, Tensor], wanted: bool) -> dict[str, Tensor]:
    """Return a set as it is, or emptied where an ablation leaves it out."""
    return marks if wanted else {name: torch.zeros_like(bits) for name, bits in marks.items()}


LOCALIZERS: dict[str, Localizer] = {
    "none": _none,
    "grail": _grail,
    "random": _random,
    "magnitude": _magnitude,
    "memflex": memflex,
    "damage_budget": damage_budget,
}
