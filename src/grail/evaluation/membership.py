"""Can the unlearn rows be told from rows that no model has seen? AUCs as Result rows."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from grail.evaluation.evaluate import SampleValue
from grail.evaluation.memorization import auc, auc_error
from grail.results import Result

SCORES: dict[str, Callable[[SampleValue], float]] = {
    "AUC-loss": lambda value: value.nll,
    "AUC-zlib": lambda value: value.zlib,
    "AUC-min-k": lambda value: value.min_k,
    "AUC-min-k++": lambda value: value.min_k_plus_plus,
}
"""Metric -> the score, higher for what was not seen."""


def to_results(values: Sequence[SampleValue], unseen: Collection[str]) -> list[Result]:
    """Return the AUCs of every model and domain that has unlearn rows and unseen ones.

    Args:
        values: What was measured.
        unseen: Keys of the unlearn rows that no model has been trained on.

    For each score an AUC between the unlearn train rows (members) and the unseen rows of the same
    domain, and its standard error under the same name with "-error"; percent, ``n`` counts both
    groups. A domain without unseen rows has none: nothing that was trained on stands in.
    """
    groups: dict[tuple[str, str], tuple[list[SampleValue], list[SampleValue]]] = {}
    for value in values:
        if value.side == "unlearn":
            members, others = groups.setdefault((value.model, value.domain), ([], []))
            if value.part == "train":
                members.append(value)
            elif value.key in unseen:
                others.append(value)
    return [
        row
        for place, (members, others) in groups.items()
        if members and others
        for row in _areas(place, members, others)
    ]


def _areas(
    place: tuple[str, str], members: Sequence[SampleValue], others: Sequence[SampleValue]
) -> list[Result]:
    rows: list[Result] = []
    count = len(members) + len(others)
    for metric, score in SCORES.items():
        area = auc([score(value) for value in members], [score(value) for value in others])
        error = auc_error(area, len(members), len(others))
        for name, number in ((metric, area), (f"{metric}-error", error)):
            rows.append(Result(*place, "unlearn", "train", name, 100.0 * number, count))
    return rows
