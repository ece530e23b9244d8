"""The paraphrase attack: ask in other words; mean and worst case of each row's paraphrases."""

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from grail.audit.context import AuditContext
from grail.data.encode import Encoded, Encoder, paraphrased
from grail.data.samples import grouped
from grail.evaluation.metrics import mean
from grail.evaluation.values import SampleValue
from grail.progress import Tick

_SMALL_IF_KNOWN = ("nll", "min_k", "min_k_plus_plus", "zlib")
"""Fields that are small where the answer is known; all other numbers are large there."""


def paraphrase(context: AuditContext, tick: Tick) -> list[SampleValue]:
    """Measure rows on each of their paraphrases; amounts: ``mean`` and ``worst``."""
    values = context.measure("paraphrase", _asked(context), tick)
    groups = grouped(values, lambda value: value.key).values()
    means = [replace(mean_of(group), model="mean") for group in groups]
    return means + [replace(worst_of(group), model="worst") for group in groups]


def why_not(context: AuditContext) -> str:
    """Return why no row can be asked in other words; "" if one can."""
    if not any(row.sample.paraphrases for row in context.attacked):
        return "no row carries paraphrases"
    return "" if _asked(context) else "each paraphrase alone fills data.max_tokens"


def _asked(context: AuditContext) -> list[Encoded]:
    """Return the rows in other words, but for those whose prompt alone fills data.max_tokens."""
    data = context.run.config.data
    encoder = Encoder(context.run.tokenizer, data.template, data.max_tokens, data.date)
    others = [other for row in context.attacked for other in paraphrased(row.sample)]
    return [row for row, _ in map(encoder.encode, others) if row.answer]


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
