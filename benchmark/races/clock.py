"""Seconds of several ways, taken in turn; knows nothing of what they do."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import torch

Way = Callable[[], object]
"""One way to do the work, from start to finish."""

Seconds = Mapping[str, Sequence[float]]
"""Way -> its time in every round."""


def race(ways: Mapping[str, Way], repeats: int) -> dict[str, list[float]]:
    """Run all ways in turn (a b a b ...) and return the seconds of each, round by round.

    In turn, because the pace of a machine drifts: what is compared must have been measured side by
    side. Whoever calls has warmed the ways up.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(repeats):
        for name, way in ways.items():
            seconds[name].append(timed(way))
    return seconds


def timed(way: Way) -> float:
    """Return the seconds that a way takes, with all that it left to an accelerator."""
    began = now()
    way()
    return now() - began


def now() -> float:
    """Return the time once an accelerator has done all that it was given."""
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
    return time.perf_counter()


def ratio(seconds: Seconds, slow: str, fast: str) -> float:
    """Return how many times as long ``slow`` took as ``fast``: the median over rounds."""
    pairs = zip(seconds[slow], seconds[fast], strict=True)
    return statistics.median(a / b for a, b in pairs)


def medians(seconds: Seconds) -> dict[str, float]:
    """Return the median over rounds of every way."""
    return {name: statistics.median(times) for name, times in seconds.items()}
