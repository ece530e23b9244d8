"""The paraphrase attack: ask in other words; mean and worst case of each row's paraphrases."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from grail.audit.context import AuditContext, piece
from grail.data.encode import Encoder
from grail.evaluation.metrics import mean
from grail.evaluation.values import SampleValue
from grail.progress import Tick

_SMALL_IF_KNOWN = ("nll", "min_k", "min_k_plus_plus", "zlib")
"""Fields that are small where the answer is known; all other numbers are large there."""


def paraphrase(context: AuditContext, tick: Tick) -> list[SampleValue]:
    """Measure rows that have paraphrases on each of these; amounts: ``mean`` and ``worst``.

    The n-th paraphrases of all rows are one pass.
    """
    data = context.run.config.data
    encoder = Encoder(context.run.tokenizer, data.template, data.max_tokens)
    asked = [sample for row in context.rows if (sample := context.samples[row.key]).paraphrases]
    passes = max(len(sample.paraphrases) for sample in asked)
    values: dict[str, list[SampleValue]] = {sample.key: [] for sample in asked}
    for number in range(passes):
        samples = {
            sample.key: replace(sample, prompt=sample.paraphrases[number])
            for sample in asked
            if number < len(sample.paraphrases)
        }
        rows = [encoder.encode(sample)[0] for sample in samples.values()]
        rows = [row for row in rows if row.answer]  # else the prompt alone fills max_tokens
        for value in context.measure("paraphrase", rows, piece(tick, number, passes), samples):
            values[value.key].append(value)
    groups = [group for group in values.values() if group]
    means = [replace(mean_of(group), model="mean") for group in groups]
    return means + [replace(worst_of(group), model="worst") for group in groups]


def why_not(context: AuditContext) -> str:
    """Return why no row can be asked in other words; "" if one can."""
    asked = any(context.samples[row.key].paraphrases for row in context.rows)
    return "" if asked else "no row carries paraphrases"


def mean_of(values: Sequence[SampleValue]) -> SampleValue:
    """Return one value with the mean of every measured number."""
    return _combined(values, lambda _, numbers: mean(numbers))


def worst_of(values: Sequence[SampleValue]) -> SampleValue:
    """Return one value with the worst of every measured number, each number for itself.

    Worst is what speaks most for knowledge on the unlearn side, and least on all others.
    """
    unlearn = values[0].side == "unlearn"

    def worst(name: str, numbers: Sequence[float]) -> float:
        return max(numbers) if unlearn != (name in _SMALL_IF_KNOWN) else min(numbers)

    return _combined(values, worst)


def _combined(
    values: Sequence[SampleValue], combine: Callable[[str, Sequence[float]], float]
) -> SampleValue:
    """Combine the fields that hold a float in all of the values; the others are the first's."""
    combined: dict[str, Any] = {}
    for field in fields(SampleValue):
        numbers = [getattr(value, field.name) for value in values]
        if all(isinstance(number, float) for number in numbers):
            combined[field.name] = combine(field.name, numbers)
    return replace(values[0], **combined)
