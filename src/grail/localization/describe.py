"""What ``localization.json`` says: set sizes and how alike the sides' top sets are."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from grail.artifacts import Mask
from grail.config.localization import Localization
from grail.localization.evidence import Evidence
from grail.localization.overlap import Marks, jaccard, size
from grail.localization.select import layers


def describe(evidence: Evidence, mask: Mask, settings: Localization) -> dict[str, Any]:
    """Return set sizes and the Jaccard matrix of the top ``k_op_ur`` sets, per layer and in all.

    The sets are GRAIL's, whichever localizer made the mask. What only this localizer has to say
    stands under its name, as in the mask. The matrices of layers have the model's order of names
    and six digits: there are many of them.
    """
    labels = {".".join(pair): pair for pair in evidence.sides}
    tops = [evidence.at_ur[pair] for pair in labels.values()]
    at_k = {"k_op_ur": evidence.at_ur, "k_op_rr": evidence.at_rr}
    counts = {
        label: {k: size(sets[pair]) for k, sets in at_k.items()} for label, pair in labels.items()
    }

    def sizes(names: list[str]) -> dict[str, Any]:
        entries = sum(mask.frozen[name].numel() for name in names)
        frozen = size(mask.frozen, names)
        return {
            "entries": entries,
            "op_ur": size(evidence.found.op_ur, names),
            "op_rr": size(evidence.found.op_rr, names),
            "frozen": frozen,
            "frozen_fraction": frozen / entries,
        }

    def of_layer(names: list[str]) -> dict[str, Any]:
        return {**sizes(names), "jaccard": matrix(tops, names, digits=6)}

    own = {key: mask.about[key] for key in (settings.method,) if key in mask.about}
    groups = layers(mask.frozen, settings.layer)
    return {
        "localizer": settings.method,
        "statistic": settings.statistic,
        "layer": settings.layer,
        "k_op_ur": settings.k_op_ur,
        "k_op_rr": settings.k_op_rr,
        "freeze": mask.about["freeze"],
        **own,
        "model": {**sizes(list(mask.frozen)), "sets": counts},
        "layers": {layer: of_layer(names) for layer, names in groups.items()},
        "jaccard": {"names": list(labels), "k": settings.k_op_ur, "values": matrix(tops)},
    }


def matrix(
    sets: Sequence[Marks], names: Iterable[str] | None = None, digits: int | None = None
) -> list[list[float]]:
    """Return the Jaccard index of every set with every other, over the given parameters."""
    names = None if names is None else list(names)
    values = [[1.0] * len(sets) for _ in sets]
    for i, a in enumerate(sets):
        for j in range(i):
            found = jaccard(a, sets[j], names)
            values[i][j] = values[j][i] = found if digits is None else round(found, digits)
    return values
