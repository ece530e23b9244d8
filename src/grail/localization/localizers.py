"""LOCALIZERS: name -> from scores to a Mask; knows no model, no data, no objective."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from grail.artifacts import Mask, Scores
from grail.config import Localization
from grail.errors import InputError, did_you_mean
from grail.localization.overlap import Marks, Overlap, jaccard, overlap, size
from grail.localization.select import layers, top_per_layer

Sides = Mapping[tuple[str, str], Scores]
"""(domain, side) -> its scores."""


def localize(sides: Sides, settings: Localization, seed: int) -> tuple[Mask, dict[str, Any]]:
    """Return the mask, and what ``localization.json`` says about it.

    Raises:
        InputError: if ``localization.method`` is unknown, or scores name different parameters.
    """
    check_method(settings)
    shapes = [{n: s.shape for n, s in scores.mean_abs.items()} for scores in sides.values()]
    if shapes.count(shapes[0]) != len(shapes):
        raise InputError("the scores of the sides name different parameters. Score them again.")
    at_ur = _top(sides, settings.k_op_ur, settings.layer)
    at_rr = _top(sides, settings.k_op_rr, settings.layer)
    found = overlap(_of(at_ur, "unlearn"), _of(at_ur, "retain"), _of(at_rr, "retain"))
    mask = LOCALIZERS[settings.method](found, settings, seed)
    sets = {_label(key): (at_ur[key], at_rr[key]) for key in sides}
    return mask, _describe(sets, found, mask, settings)


def check_method(settings: Localization) -> None:
    """Refuse an unknown ``localization.method``, and a combination that has no meaning."""
    method = settings.method
    if method not in LOCALIZERS:
        raise InputError(
            f"localization.method: '{method}' is unknown.{did_you_mean(method, LOCALIZERS)} "
            f"Allowed: {', '.join(LOCALIZERS)}."
        )
    if method == "random" and settings.freeze == "by_side":
        raise InputError(
            "localization.freeze: by_side has no meaning for method: random. Use freeze: static."
        )


def _none(found: Overlap, settings: Localization, seed: int) -> Mask:
    """Freeze nothing."""
    del seed
    return _mask({name: torch.zeros_like(bits) for name, bits in found.op_ur.items()}, settings)


def _grail(found: Overlap, settings: Localization, seed: int) -> Mask:
    """Freeze OP-UR and OP-RR (paper), or let each side skip its own of the two (release)."""
    del seed
    ur, rr = _kept(found, settings)
    if settings.freeze == "by_side":
        # Entries in both are moved by neither side, so they are the ones that are frozen.
        return _mask({name: ur[name] & rr[name] for name in ur}, settings, unlearn=ur, retain=rr)
    return _mask({name: ur[name] | rr[name] for name in ur}, settings)


def _random(found: Overlap, settings: Localization, seed: int) -> Mask:
    """Freeze as many entries per tensor as ``grail`` would, drawn at random: the control."""
    model = _grail(found, settings, seed)
    generator = torch.Generator().manual_seed(seed)
    drawn = {name: _draw(model.frozen[name], generator) for name in sorted(model.frozen)}
    return _mask(drawn, settings)


def _draw(like: Tensor, generator: torch.Generator) -> Tensor:
    order = torch.randperm(like.numel(), generator=generator)
    flat = torch.zeros(like.numel(), dtype=torch.bool)
    flat[order[: int(like.sum())]] = True
    return flat.reshape(like.shape)


def _mask(
    frozen: dict[str, Tensor],
    settings: Localization,
    unlearn: dict[str, Tensor] | None = None,
    retain: dict[str, Tensor] | None = None,
) -> Mask:
    mask = Mask(frozen, unlearn, retain)
    about = {
        "localizer": settings.method,
        "k": {"k_op_ur": settings.k_op_ur, "k_op_rr": settings.k_op_rr},
        "layer": settings.layer,
        "freeze": "by_side" if mask.by_side else "static",
        "counts": mask.counts(),
    }
    return Mask(frozen, unlearn, retain, about)


def _kept(found: Overlap, settings: Localization) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return OP-UR and OP-RR, emptied where an ablation leaves one out."""

    def keep(marks: dict[str, Tensor], wanted: bool) -> dict[str, Tensor]:
        return marks if wanted else {name: torch.zeros_like(bits) for name, bits in marks.items()}

    return keep(found.op_ur, settings.keep_op_ur), keep(found.op_rr, settings.keep_op_rr)


def _top(sides: Sides, k: float, layer: str) -> dict[tuple[str, str], Marks]:
    return {key: top_per_layer(scores.mean_abs, k, layer) for key, scores in sides.items()}


def _of(sets: Mapping[tuple[str, str], Marks], side: str) -> list[Marks]:
    return [marks for (_, own), marks in sets.items() if own == side]


def _label(key: tuple[str, str]) -> str:
    return f"{key[0]}.{key[1]}"


def _describe(
    sets: Mapping[str, tuple[Marks, Marks]], found: Overlap, mask: Mask, settings: Localization
) -> dict[str, Any]:
    """Return set sizes per layer and over the model, and the Jaccard matrix of the top-k sets.

    ``sets`` maps "DOMAIN.SIDE" to its top sets at ``k_op_ur`` and at ``k_op_rr``.
    """

    def sizes(names: list[str]) -> dict[str, Any]:
        entries = sum(mask.frozen[name].numel() for name in names)
        frozen = size(mask.frozen, names)
        return {
            "entries": entries,
            "op_ur": size(found.op_ur, names),
            "op_rr": size(found.op_rr, names),
            "frozen": frozen,
            "frozen_fraction": frozen / entries,
        }

    counts = {n: {"k_op_ur": size(ur), "k_op_rr": size(rr)} for n, (ur, rr) in sets.items()}
    matrix = [[jaccard(sets[a][0], sets[b][0]) for b in sets] for a in sets]
    groups = layers(mask.frozen, settings.layer)
    return {
        "localizer": settings.method,
        "layer": settings.layer,
        "k_op_ur": settings.k_op_ur,
        "k_op_rr": settings.k_op_rr,
        "freeze": mask.about["freeze"],
        "model": {**sizes(list(mask.frozen)), "sets": counts},
        "layers": {layer: sizes(names) for layer, names in groups.items()},
        "jaccard": {"names": list(sets), "k": settings.k_op_ur, "values": matrix},
    }


Localizer = Callable[[Overlap, Localization, int], Mask]
LOCALIZERS: dict[str, Localizer] = {"none": _none, "grail": _grail, "random": _random}
