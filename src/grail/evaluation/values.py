"""SampleValue: the numbers of one row; and their averages as the rows of ``results.json``."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from grail.data.heldout import HELD_OUT
from grail.data.samples import CHECK, grouped
from grail.errors import reading
from grail.evaluation import memorization, metrics
from grail.results import Result


@dataclass(frozen=True)
class SampleValue:
    """The numbers measured on one sample (a line of ``samples.jsonl``).

    Attributes:
        model: "vanilla", "unlearned", "calibrated" or "guess".
        key: The sample's key.
        domain: Its domain.
        side: Its side.
        part: Its part.
        row: Its position in the source, from 0.
        accuracy: Teacher-forced token accuracy over the completion, 0-1.
        nll: Mean token NLL over the completion, nats.
        tokens: Completion tokens, end token included.
        extraction: Extraction strength, 0-1 (this and the next three: ``memorization``).
        min_k: Min-K%, nats.
        min_k_plus_plus: Min-K%++, in standard deviations.
        zlib: Summed NLL per compressed byte of the completion, nats.
        rouge_l: ROUGE-L of the greedy generation, percent; None without a generation.
        repetition: Its share of repeated 4-grams of characters, 0-1; None likewise.
        compression: Its compressed over its raw bytes; None likewise.
        prompt: Only with ``evaluation.show_text``, as the next two.
        completion: The true completion.
        generation: The greedy generation.
    """

    model: str
    key: str
    domain: str
    side: str
    part: str
    row: int
    accuracy: float
    nll: float
    tokens: int
    extraction: float
    min_k: float
    min_k_plus_plus: float
    zlib: float
    rouge_l: float | None = None
    repetition: float | None = None
    compression: float | None = None
    prompt: str | None = None
    completion: str | None = None
    generation: str | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the line; values that are None are left out."""
        return {name: value for name, value in vars(self).items() if value is not None}


_Kind = TypeVar("_Kind")


def values_in(path: Path, content: Mapping[str, Any], some: bool = True) -> list[SampleValue]:
    """Return the values that a file of measurements holds; ``content`` is the object in it.

    Under its right digest somebody may have put anything: an InputError names ``path`` if they are
    none, or cannot be averaged. ``some``: there must be any (an attack may find no row to measure).
    """
    values = kept_in(path, content, "values", SampleValue, some)
    with reading(path):
        to_results(values)
    return values


def kept_in(
    path: Path, content: Mapping[str, Any], key: str, kind: type[_Kind], some: bool = True
) -> list[_Kind]:
    """Return the list under a key as objects of a dataclass, all fields of their type.

    An InputError names ``path``, if it is missing or empty, or has another shape.
    """
    types = TypeAdapter(kind)
    with reading(path):
        found = [kind(**item) for item in content[key]]
        for item in content[key]:
            types.validate_json(json.dumps(item), strict=True)
        if some and not found:
            raise ValueError(f"no {key}")
    return found


WORD_FOR_WORD = 99.999
"""ROUGE-L recall from which on all words of the true answer stand in the given one, in order."""


def to_results(values: Sequence[SampleValue]) -> list[Result]:
    """Average values per model, domain, side and part, in order of first appearance.

    Held-out rows serve for comparison only and are left out.
    """
    kept = (value for value in values if value.part != HELD_OUT)
    groups = grouped(kept, lambda value: (value.model, value.domain, value.side, value.part))
    return [
        Result(*group, metric, number, len(members))
        for group, members in groups.items()
        for metric, number in _averages(group[2], members).items()
    ]


def _averages(side: str, values: Sequence[SampleValue]) -> dict[str, float]:
    accuracies, nlls = [v.accuracy for v in values], [v.nll for v in values]
    rouges = [v.rouge_l for v in values if v.rouge_l is not None]
    success = {
        "unlearn": {"US": metrics.unlearn_success(accuracies)},
        "retain": {"RS": metrics.retain_success(accuracies)},
        CHECK: {"RS": metrics.retain_success(accuracies)},
    }.get(side, {})
    averages = {**success, "NLL": metrics.mean(nlls), "PPL": metrics.perplexity(nlls)}
    if rouges:
        averages["ROUGE-L"] = metrics.mean(rouges)
    if rouges and side == "unlearn":
        averages["Verbatim"] = 100.0 * metrics.mean([rouge >= WORD_FOR_WORD for rouge in rouges])
    if success:
        averages["ES"] = 100.0 * metrics.mean([v.extraction for v in values])
        averages["Prob"] = 100.0 * metrics.mean([memorization.probability(nll) for nll in nlls])
    for name in ("repetition", "compression"):
        shares = [share for v in values if (share := getattr(v, name)) is not None]
        if shares:
            averages[name.capitalize()] = 100.0 * metrics.mean(shares)
    return averages
