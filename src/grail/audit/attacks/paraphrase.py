"""One row asked in several ways: its mean and its worst case, for whatever was measured of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields, replace
from typing import Any

from grail.evaluation.metrics import mean
from grail.evaluation.values import SampleValue

KNOWN_IF_SMALL = ("nll", "min_k", "min_k_plus_plus", "zlib")
"""Fields that are small where the answer is known; all other numbers are large there."""


def mean_of(values: Sequence[SampleValue]) -> SampleValue:
    """Return one value with the mean of every measured number."""
    return _combined(values, lambda _, numbers: mean(numbers))


def worst_of(values: Sequence[SampleValue]) -> SampleValue:
    """Return one value with the worst of every measured number, each for itself.

    Worst is what speaks most for knowledge on the unlearn side, and least on all others.
    """
    unlearn = values[0].side == "unlearn"

    def worst(name: str, numbers: Sequence[float]) -> float:
        return max(numbers) if unlearn != (name in KNOWN_IF_SMALL) else min(numbers)

    return _combined(values, worst)


def _combined(
    values: Sequence[SampleValue], combine: Callable[[str, Sequence[float]], float]
) -> SampleValue:
    """Combine the fields that hold a float in all of the values; the others are the first's."""
    found: dict[str, Any] = {}
    for field in fields(SampleValue):
        numbers = [getattr(value, field.name) for value in values]
        if all(isinstance(number, float) for number in numbers):
            found[field.name] = combine(field.name, numbers)
    return replace(values[0], **found)
