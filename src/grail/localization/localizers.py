"""LOCALIZERS: name -> function from the evidence to a Mask; knows no model, data or objective."""

from collections.abc import Callable
from dataclasses import replace
from inspect import getfile
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from grail.artifacts import Mask
from grail.config.functions import imported
from grail.config.localization import Localization
from grail.errors import InputError, did_you_mean
from grail.files import file_digest
from grail.localization.damage_budget import damage_budget
from grail.localization.describe import describe
from grail.localization.evidence import Evidence, SideScores
from grail.localization.memflex import check_thresholds, memflex
from grail.localization.reused import FROM, check_folder, reused, seal_of_mask

Localizer = Callable[[Evidence], Mask]
"""Your own localizer: a function that returns a Mask for the evidence.

In the YAML file ``localization.method: package.module:function`` names it; the module must be
importable (installed, or in PYTHONPATH). In Python, pass it to ``localize``. It may read

- ``evidence.sides[domain, side].mean_abs`` (also ``mean``, ``mean_sq``): scores by parameter name;
- ``evidence.at_ur``, ``at_rr``, ``overlap``: GRAIL's sets at the ``localization`` section's k;
- ``evidence.weights()``: the vanilla model's trainable tensors; ``evidence.seed``: for its draws.

The Mask's ``frozen`` maps every name in ``evidence.shapes`` to a bool tensor of that shape, True
where an entry must not move; ``unlearn`` and ``retain``, both or neither, are such maps for the
gradients of one side. ``about`` is added to the mask's file and must be JSON.
"""


def make_mask(
    sides: SideScores,
    settings: Localization,
    seed: int,
    weights: Callable[[], Any],
    localizer: Localizer | None = None,
) -> tuple[Mask, dict[str, Any]]:
    """Return the mask, and the content of ``localization.json``.

    ``weights`` returns the vanilla model's trainable tensors by name, and is called only if needed;
    ``localizer`` is a function to use instead of ``settings.method``.

    Raises:
        InputError: if a setting, a score or the mask of the user's own localizer cannot be used.
    """
    check_method(settings)
    evidence = Evidence(
        *(sides, weights, seed),
        *(settings.statistic, settings.layer, settings.k_op_ur, settings.k_op_rr),
    )
    method = settings.method
    if localizer is not None:
        method = f"{localizer.__module__}:{getattr(localizer, '__name__', 'localizer')}"
    elif settings.reused is not None:
        method, localizer = FROM, reused(settings.reused)
    elif method not in LOCALIZERS:
        localizer = imported(method, "localization.method")
    if localizer is None:
        mask = LOCALIZERS[method](evidence, settings)
    else:
        mask = localizer(evidence)
        _check_mask(mask, evidence, method)
    about = {
        "localizer": method,
        "statistic": settings.statistic,
        "k": {"k_op_ur": settings.k_op_ur, "k_op_rr": settings.k_op_rr},
        "layer": evidence.layer,
        "freeze": "by_side" if mask.by_side else "static",
        "counts": mask.counts(),
    }
    mask = replace(mask, about={**about, **mask.about})
    return mask, describe(evidence, mask)


def code_of(settings: Localization) -> dict[str, str]:
    """Return {"code": SHA-256} of a user's localizer or of a reused mask, {} for LOCALIZERS.

    A mask is made again when what made it has changed.
    """
    if settings.reused is not None:
        return {"code": seal_of_mask(settings.reused)}
    if ":" not in settings.method:
        return {}
    return {"code": file_digest(Path(getfile(imported(settings.method, "localization.method"))))}


def check_method(settings: Localization) -> None:
    """Raise InputError for an unknown ``localization.method`` or settings that contradict it."""
    method = settings.method
    if settings.reused is not None:
        check_folder(settings.reused)
    if ":" in method:
        imported(method, "localization.method")
    elif method not in LOCALIZERS:
        raise InputError(
            f"localization.method: '{method}' is unknown.{did_you_mean(method, LOCALIZERS)} "
            f"Allowed: {', '.join(LOCALIZERS)}, or your own function as package.module:function."
        )
    if method != "grail" and settings.freeze == "by_side":
        raise InputError(
            f"localization.freeze: by_side has no meaning for method: {method}. Use freeze: "
            "static, or method: grail."
        )
    if method == "memflex":
        check_thresholds(settings.memflex.thresholds, settings.memflex.magnitude)


def _check_mask(mask: object, evidence: Evidence, method: str) -> None:
    """Refuse the result of a user's localizer that cannot be a mask of this model."""
    if not isinstance(mask, Mask):
        raise InputError(f"{method} must return a grail.artifacts.Mask, not {type(mask).__name__}.")
    if (mask.unlearn is None) != (mask.retain is None):
        raise InputError(f"{method}: the mask has entries for one side only. Give both or neither.")
    for marks in (mask.frozen, mask.unlearn or mask.frozen, mask.retain or mask.frozen):
        if names := marks.keys() ^ evidence.shapes.keys():
            raise InputError(
                f"{method}: the mask must have exactly the parameters that were scored; "
                f"{len(names)} are missing or unknown (first: {min(names)})."
            )
        for name, shape in evidence.shapes.items():
            if marks[name].shape != shape or marks[name].dtype != torch.bool:
                raise InputError(
                    f"{method}: the mask of {name} must be a bool tensor of shape {tuple(shape)}, "
                    f"not {marks[name].dtype} of shape {tuple(marks[name].shape)}."
                )


def _grail(evidence: Evidence, keep_op_ur: bool, keep_op_rr: bool, by_side: bool) -> Mask:
    """Freeze OP-UR and OP-RR (paper), or let each side skip one of the two (release).

    An ablation leaves out one of the sets.
    """
    ur = {name: bits & keep_op_ur for name, bits in evidence.overlap.op_ur.items()}
    rr = {name: bits & keep_op_rr for name, bits in evidence.overlap.op_rr.items()}
    if by_side:  # entries in both sets are moved by neither side: these are frozen
        return Mask({name: ur[name] & rr[name] for name in ur}, unlearn=ur, retain=rr)
    return Mask({name: ur[name] | rr[name] for name in ur})


def _random(evidence: Evidence, like: Mask) -> Mask:
    """Freeze as many entries per tensor as ``like``, drawn at random: a control."""
    generator = torch.Generator().manual_seed(evidence.seed)

    def drawn(name: str) -> Tensor:
        return torch.randperm(evidence.shapes[name].numel(), generator=generator)

    return _first(like, drawn)


def _magnitude(evidence: Evidence, like: Mask) -> Mask:
    """Freeze as many entries per tensor as ``like``, the largest weights: a control.

    It needs no gradient. Ties go to the lowest flat index.
    """
    weights = evidence.weights()
    if {n: w.shape for n, w in weights.items()} != evidence.shapes:
        raise InputError(
            "the vanilla model's trainable tensors are not those that were scored. Score again."
        )

    def largest(name: str) -> Tensor:
        return weights[name].flatten().float().abs().argsort(descending=True, stable=True)

    return _first(like, largest)


def _first(like: Mask, order: Callable[[str], Tensor]) -> Mask:
    """Freeze as many entries per tensor as ``like``: the first ones of ``order(name)``."""
    frozen: dict[str, Tensor] = {}
    for name, bits in sorted(like.frozen.items()):
        flat = torch.zeros(bits.numel(), dtype=torch.bool)
        flat[order(name)[: int(bits.sum())]] = True
        frozen[name] = flat.reshape(bits.shape)
    return Mask(frozen)


def _paper(evidence: Evidence, settings: Localization) -> Mask:
    by_side = settings.freeze == "by_side"
    return _grail(evidence, settings.keep_op_ur, settings.keep_op_rr, by_side)


LOCALIZERS: dict[str, Callable[[Evidence, Localization], Mask]] = {
    "none": lambda evidence, _: Mask(
        {name: torch.zeros(shape, dtype=torch.bool) for name, shape in evidence.shapes.items()}
    ),
    "grail": _paper,
    "random": lambda evidence, settings: _random(evidence, _paper(evidence, settings)),
    "magnitude": lambda evidence, settings: _magnitude(evidence, _paper(evidence, settings)),
    "memflex": lambda evidence, settings: memflex(
        evidence,
        settings.memflex.thresholds,
        settings.memflex.cosine,
        settings.memflex.magnitude,
    ),
    "damage_budget": lambda evidence, settings: damage_budget(evidence, settings.budget),
}
"""Name in ``localization.method`` -> how it is called with its numbers from the section."""
