"""Differences between two methods with percentile intervals: a paired bootstrap, in numpy alone.

Knows nothing of files, models or methods: arrays of per-sample accuracies in, numbers out.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Values = Mapping[tuple[str, str], np.ndarray]
"""(domain, side) -> accuracies in 0-1, one line per seed, one column per sample."""

DRAWS = 10_000
LEVEL = 95.0
CELLS = 4_000_000
"""Drawn places held at a time (32 MB)."""


@dataclass(frozen=True)
class Interval:
    """A difference in percentage points, and where 95 % of the draws of it lie.

    Attributes:
        mean: The difference.
        low: The 2.5th percentile of the draws.
        high: The 97.5th.
        by_seed: The difference of each seed: with few of them the draws lie too close together.
    """

    mean: float
    low: float
    high: float
    by_seed: list[float]


def differences(
    one: Values, other: Values, draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Return {"Avg", "HS"}: ``one`` minus ``other``, in percentage points.

    Every draw takes seeds and samples of every (domain, side), both with replacement: the same for
    both methods, whose lines and columns are paired, and the same samples for every seed taken.
    The seeds have measured the same rows: samples drawn for each seed anew would count n rows with
    s seeds as s n rows, and what lies in the choice of rows would seem smaller by the root of s.
    With one seed only samples are drawn.
    """
    generator = np.random.default_rng(seed)
    seeds = next(iter(one.values())).shape[0]
    widest = max(values.shape[1] for values in one.values())
    step = max(1, CELLS // (seeds * widest))
    drawn = [
        _draw(one, other, min(step, draws - first), seeds, generator)
        for first in range(0, draws, step)
    ]
    each = successes(one) - successes(other)
    centre = each.mean(axis=0)
    tails = [(100 - LEVEL) / 2, (100 + LEVEL) / 2]
    low, high = np.percentile(np.concatenate(drawn), tails, axis=0)
    return {
        name: Interval(float(centre[i]), float(low[i]), float(high[i]), each[:, i].tolist())
        for i, name in enumerate(("Avg", "HS"))
    }


def successes(values: Values) -> np.ndarray:
    """Return Avg and HS (last axis) of every seed, in percent."""
    return _summary({place: found.mean(axis=-1) for place, found in values.items()})


def _draw(
    one: Values, other: Values, count: int, seeds: int, generator: np.random.Generator
) -> np.ndarray:
    """Return ``count`` differences in (Avg, HS)."""
    lines = generator.integers(seeds, size=(count, seeds))
    first: dict[tuple[str, str], np.ndarray] = {}
    second: dict[tuple[str, str], np.ndarray] = {}
    for place, values in one.items():
        columns = generator.integers(values.shape[1], size=(count, 1, values.shape[1]))
        first[place] = values[lines[..., None], columns].mean(axis=-1)
        second[place] = other[place][lines[..., None], columns].mean(axis=-1)
    return (_summary(first) - _summary(second)).mean(axis=1)


def _summary(accuracy: Mapping[tuple[str, str], np.ndarray]) -> np.ndarray:
    """Return (Avg, HS) in percent from mean accuracies: the definitions of ``results``."""
    domains = [d for d, side in accuracy if side == "unlearn" and (d, "retain") in accuracy]
    us = np.stack([100 - 100 * accuracy[d, "unlearn"] for d in domains], axis=-1)
    rs = np.stack([100 * accuracy[d, "retain"] for d in domains], axis=-1)
    both = us + rs
    harmonic = np.divide(2 * us * rs, both, out=np.zeros_like(both), where=both > 0)
    return np.stack([both.mean(axis=-1) / 2, harmonic.mean(axis=-1)], axis=-1)
