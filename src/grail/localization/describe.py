"""The content of ``localization.json``: sizes of the sets, and the overlap of the top sets."""

from collections.abc import Iterable, Sequence
from typing import Any

from grail.artifacts import Mask, Scores
from grail.config.localization import Localization
from grail.localization.evidence import Evidence, importance
from grail.localization.overlap import Marks, jaccard, size
from grail.localization.select import layers, top_per_layer


def describe(evidence: Evidence, mask: Mask) -> dict[str, Any]:
    """Return set sizes and the Jaccard matrix of the top ``k_op_ur`` sets, per layer and in all.

    The sets are GRAIL's, whichever localizer made the mask. Facts that only this localizer has are
    under its name, as in ``mask.about``. The layers described are blocks (or the model), whatever
    the sets compare entries within; their matrices have six digits.
    """
    labels = {".".join(pair): pair for pair in evidence.sides}
    tops = [evidence.at_ur[pair] for pair in labels.values()]
    counts = {
        label: {"k_op_ur": size(evidence.at_ur[pair]), "k_op_rr": size(evidence.at_rr[pair])}
        for label, pair in labels.items()
    }

    def sizes(names: list[str]) -> dict[str, Any]:
        entries = sum(mask.frozen[name].numel() for name in names)
        frozen = size(mask.frozen, names)
        return {
            "entries": entries,
            "op_ur": size(evidence.overlap.op_ur, names),
            "op_rr": size(evidence.overlap.op_rr, names),
            "frozen": frozen,
            "frozen_fraction": frozen / entries,
        }

    method, shown = mask.about["localizer"], "model" if evidence.layer == "model" else "block"
    return {
        "localizer": method,
        "statistic": evidence.statistic,
        "layer": evidence.layer,
        "k_op_ur": evidence.k_op_ur,
        "k_op_rr": evidence.k_op_rr,
        "freeze": mask.about["freeze"],
        **({"from": mask.about["from"]} if "from" in mask.about else {}),
        **({method: mask.about[method]} if method in mask.about else {}),
        "model": {**sizes(list(mask.frozen)), "sets": counts},
        "layers": {
            layer: {**sizes(names), "jaccard": matrix(tops, names, digits=6)}
            for layer, names in layers(mask.frozen, shown).items()
        },
        "jaccard": {"names": list(labels), "k": evidence.k_op_ur, "values": matrix(tops)},
    }


def overlap_of_tops(a: Scores, b: Scores, how: Localization) -> float:
    """Return the Jaccard index (0-1) of the top ``k_op_ur`` sets of two scorings."""
    ranked = (importance(scores, how.statistic) for scores in (a, b))
    return jaccard(*(top_per_layer(numbers, how.k_op_ur, how.layer) for numbers in ranked))


def matrix(
    sets: Sequence[Marks], names: Iterable[str] | None = None, digits: int | None = None
) -> list[list[float]]:
    """Return the Jaccard index (0-1) of each pair of sets, over the given parameters or all."""
    names = None if names is None else list(names)
    values = [[1.0] * len(sets) for _ in sets]
    for i, a in enumerate(sets):
        for j in range(i):
            index = jaccard(a, sets[j], names)
            values[i][j] = values[j][i] = index if digits is None else round(index, digits)
    return values
