"""Membership inference: AUCs between unlearn rows and rows that no model was trained on."""

from collections.abc import Callable, Collection, Sequence

from grail.evaluation.memorization import auc, auc_error
from grail.evaluation.values import SampleValue
from grail.results import Result

SCORES: dict[str, Callable[[SampleValue], float]] = {
    "AUC-loss": lambda value: value.nll,
    "AUC-zlib": lambda value: value.zlib,
    "AUC-min-k": lambda value: value.min_k,
    "AUC-min-k++": lambda value: value.min_k_plus_plus,
}
"""Metric -> the score, higher for unseen rows."""


def membership_results(values: Sequence[SampleValue], unseen: Collection[str]) -> list[Result]:
    """Return the AUCs of every model and domain that has unlearn train rows and unseen rows.

    Each score gives an AUC between the unlearn train rows (members) and the unseen unlearn rows of
    the same domain, and its standard error under the same name with "-error"; both in percent, with
    the size of both groups as ``n``. A domain without unseen rows has no AUC. ``unseen`` are the
    keys of the unlearn rows that no model was trained on.
    """
    groups: dict[tuple[str, str], tuple[list[SampleValue], list[SampleValue]]] = {}
    for value in values:
        if value.side == "unlearn":
            members, others = groups.setdefault((value.model, value.domain), ([], []))
            if value.part == "train":
                members.append(value)
            elif value.key in unseen:
                others.append(value)
    results: list[Result] = []
    for (model, domain), (members, others) in groups.items():
        for metric, score in SCORES.items() if members and others else ():
            area = auc([score(value) for value in members], [score(value) for value in others])
            error = auc_error(area, len(members), len(others))
            for name, number in ((metric, area), (f"{metric}-error", error)):
                row = (model, domain, "unlearn", "train", name, 100.0 * number)
                results.append(Result(*row, len(members) + len(others)))
    return results
