"""Standard errors of measured numbers, by leaving out one sample at a time.

Works for whatever ``to_results`` measures; for a plain mean it is the textbook standard error.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from grail.evaluation.values import SampleValue, to_results

Place = tuple[str, str, str, str]
"""Domain, side, part, metric."""

Group = Sequence[SampleValue]


@dataclass(frozen=True)
class Estimate:
    """A number over ``n`` samples and its standard error (None for one sample)."""

    value: float
    error: float | None
    n: int


def estimates(values: Sequence[SampleValue]) -> dict[Place, Estimate]:
    """Return every metric of one model's values with its standard error."""
    return {
        place: found
        for group in _groups(values).values()
        for place, found in _jackknifed(_measured, group).items()
    }


def differences(one: Sequence[SampleValue], other: Sequence[SampleValue]) -> dict[Place, Estimate]:
    """Return ``one`` minus ``other`` on the samples that both have, paired by key."""
    partners = {value.key: value for value in other}
    found: dict[Place, Estimate] = {}
    for group in _groups([v for v in one if v.key in partners]).values():

        def change(members: Group) -> dict[Place, float]:
            after = _measured(members)
            before = _measured([partners[value.key] for value in members])
            return {place: after[place] - before[place] for place in after if place in before}

        found |= _jackknifed(change, group)
    return found


def _groups(values: Sequence[SampleValue]) -> Mapping[tuple[str, str, str], list[SampleValue]]:
    groups: dict[tuple[str, str, str], list[SampleValue]] = {}
    for value in values:
        groups.setdefault((value.domain, value.side, value.part), []).append(value)
    return groups


def _measured(group: Group) -> dict[Place, float]:
    return {(r.domain, r.side, r.part, r.metric): r.value for r in to_results(group)}


def _jackknifed(
    measure: Callable[[Group], dict[Place, float]], group: Group
) -> dict[Place, Estimate]:
    """Measure a group, and again without each of its members (Efron and Stein 1981)."""
    whole, n = measure(group), len(group)
    parts = [measure([*group[:i], *group[i + 1 :]]) for i in range(n)] if n > 1 else []
    return {
        place: Estimate(value, _error([part[place] for part in parts if place in part]), n)
        for place, value in whole.items()
    }


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
