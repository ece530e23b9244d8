"""Differences between two methods with percentile intervals: a paired bootstrap, in numpy alone.

Knows nothing of files, models or methods: arrays of per-sample accuracies in, numbers out.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

Accuracies = Mapping[tuple[str, str], np.ndarray]
"""(domain, side) -> accuracies in 0-1; in front of further axes, one line per seed."""

DRAWS = 10_000
LEVEL = 95.0
ENTRIES = 4_000_000
"""Drawn accuracies held at a time (32 MB)."""


@dataclass(frozen=True)
class Interval:
    """A difference in percentage points, and where 95 % of its bootstrap draws lie.

    Attributes:
        mean: The difference.
        low: The 2.5th percentile of the draws.
        high: The 97.5th.
        by_seed: The difference of each seed. With few seeds the draws lie too close together.
    """

    mean: float
    low: float
    high: float
    by_seed: list[float]


def differences(
    one: Accuracies, other: Accuracies, draws: int = DRAWS, seed: int = 0
) -> dict[str, Interval]:
    """Return {"Avg", "HS"}: ``one`` minus ``other``, in percentage points.

    Both take arrays of (seeds, samples), paired line by line and column by column. A draw takes
    seeds, and samples of every (domain, side), with replacement: the same ones for both methods,
    and the same samples for every seed. Drawing samples anew for each seed would count the n rows,
    which all s seeds measured, as s n rows, and understate what depends on the choice of rows by
    the root of s. With one seed only samples are drawn.
    """
    generator = np.random.default_rng(seed)
    seeds = next(iter(one.values())).shape[0]
    widest = max(values.shape[1] for values in one.values())
    step = max(1, ENTRIES // (seeds * widest))
    drawn = [
        _draw(one, other, min(step, draws - first), seeds, generator)
        for first in range(0, draws, step)
    ]
    by_seed = avg_and_hs(_means(one)) - avg_and_hs(_means(other))
    tails = [(100 - LEVEL) / 2, (100 + LEVEL) / 2]
    low, high = np.percentile(np.concatenate(drawn), tails, axis=0)
    mean = by_seed.mean(axis=0)
    return {
        name: Interval(float(mean[i]), float(low[i]), float(high[i]), by_seed[:, i].tolist())
        for i, name in enumerate(("Avg", "HS"))
    }


def avg_and_hs(accuracy: Accuracies) -> np.ndarray:
    """Return (Avg, HS) in percent as a new last axis, from mean accuracies: as ``results`` does."""
    domains = [d for d, side in accuracy if side == "unlearn" and (d, "retain") in accuracy]
    us = np.stack([100 - 100 * accuracy[d, "unlearn"] for d in domains], axis=-1)
    rs = np.stack([100 * accuracy[d, "retain"] for d in domains], axis=-1)
    both = us + rs
    harmonic = np.divide(2 * us * rs, both, out=np.zeros_like(both), where=both > 0)
    return np.stack([both.mean(axis=-1) / 2, harmonic.mean(axis=-1)], axis=-1)


def _means(values: Accuracies) -> Accuracies:
    return {place: samples.mean(axis=-1) for place, samples in values.items()}


def _draw(
    one: Accuracies, other: Accuracies, count: int, seeds: int, generator: np.random.Generator
) -> np.ndarray:
    """Return ``count`` differences in (Avg, HS)."""
    lines = generator.integers(seeds, size=(count, seeds))[..., None]
    first: dict[tuple[str, str], np.ndarray] = {}
    second: dict[tuple[str, str], np.ndarray] = {}
    for place, values in one.items():
        columns = generator.integers(values.shape[1], size=(count, 1, values.shape[1]))
        first[place] = values[lines, columns].mean(axis=-1)
        second[place] = other[place][lines, columns].mean(axis=-1)
    return (avg_and_hs(first) - avg_and_hs(second)).mean(axis=1)
