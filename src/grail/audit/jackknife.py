"""Standard errors of measured numbers, by leaving out one sample at a time.

Works for whatever ``to_results`` measures; for a plain mean it is the textbook standard error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from grail.data.samples import grouped
from grail.evaluation.values import SampleValue, to_results

MetricKey = tuple[str, str, str, str]
"""Domain, side, part, metric."""


@dataclass(frozen=True)
class Estimate:
    """A number over ``n`` samples and its standard error (None for one sample)."""

    value: float
    error: float | None
    n: int


def estimates(
    values: Sequence[SampleValue], minus: Sequence[SampleValue] | None = None
) -> dict[MetricKey, Estimate]:
    """Return every metric of one model's values with its standard error.

    With ``minus``, values to subtract that are paired by key, the metrics are differences, on the
    samples that both have.
    """
    partners = None if minus is None else {value.key: value for value in minus}
    kept = (value for value in values if partners is None or value.key in partners)
    groups = grouped(kept, lambda value: (value.domain, value.side, value.part))

    def measure(group: Sequence[SampleValue]) -> dict[MetricKey, float]:
        after = _metrics(group)
        if partners is None:
            return after
        before = _metrics([partners[value.key] for value in group])
        return {key: after[key] - before[key] for key in after if key in before}

    numbers: dict[MetricKey, Estimate] = {}
    for group in groups.values():  # Efron and Stein 1981
        n = len(group)
        without = [measure([*group[:i], *group[i + 1 :]]) for i in range(n)] if n > 1 else []
        for key, value in measure(group).items():
            error = _error([metrics[key] for metrics in without if key in metrics])
            numbers[key] = Estimate(value, error, n)
    return numbers


def gaps(values: Sequence[SampleValue], others: Sequence[SampleValue]) -> dict[MetricKey, Estimate]:
    """Return every metric of one model's values minus that of another's.

    Paired where a group has samples of both, as ``estimates``; between two groups of samples
    otherwise (rows and held-out rows), whose errors add up as independent ones.
    """
    paired, other = estimates(values, minus=others), estimates(others)
    apart = {
        key: Estimate(own.value - other[key].value, _both(own.error, other[key].error), own.n)
        for key, own in estimates(values).items()
        if key in other
    }
    return apart | paired


def _both(one: float | None, other: float | None) -> float | None:
    return None if one is None or other is None else math.hypot(one, other)


def _metrics(group: Sequence[SampleValue]) -> dict[MetricKey, float]:
    return {(r.domain, r.side, r.part, r.metric): r.value for r in to_results(group)}


def _error(without: Sequence[float]) -> float | None:
    """Return the root of (n-1)/n times the squared deviations of the leave-one-out values."""
    n = len(without)
    if n < 2:
        return None
    largest = max(map(abs, without)) or 1.0  # the square of a broken model's PPL has no float
    scaled = [value / largest for value in without]
    centre = math.fsum(scaled) / n
    squares = math.fsum((value - centre) ** 2 for value in scaled)
    return largest * math.sqrt((n - 1) / n * squares)
