"""Signals of generated texts: do they repeat themselves, and how much do many samples tell."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

GRAM = 4  # words


def repetition(text: str) -> float:
    """Return 1 minus the share of distinct 4-grams of words, 0-1; 0 for fewer than four words.

    0: no four words come twice; towards 1: one phrase over and over (the repetition measure of
    Welleck et al. 2020, arXiv 1908.04319, for n = 4).
    """
    words = text.split()
    grams = [tuple(words[i : i + GRAM]) for i in range(len(words) - GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def compression(text: str) -> float:
    """Return the bytes of the zlib-compressed text over its own; 1 for an empty text.

    Near 0 for text that repeats itself. Short texts do not compress: their ratio is above 1,
    because the format itself takes eight bytes or more.
    """
    raw = text.encode()
    return len(zlib.compress(raw)) / len(raw) if raw else 1.0


def leak_at_k(scores: Sequence[float], k: int) -> float:
    """Return the unbiased estimate of the largest of k sampled scores from n >= k of them.

    The mean of the maximum over all subsets of size k: with scores sorted ascending, the sum over
    i = k..n of s_(i) C(i-1, k-1) / C(n, k), because s_(i) is the largest of C(i-1, k-1) subsets
    (leak@k, arXiv 2511.04934). Binomials are whole numbers here and only their ratio is rounded:
    no n is too large.

    Raises:
        ValueError: if k is not from 1 to n.
    """
    count = len(scores)
    if not 1 <= k <= count:
        raise ValueError(f"k must be from 1 to the number of scores ({count}), got {k}")
    subsets = math.comb(count, k)
    ranked = enumerate(sorted(scores), start=1)
    return math.fsum(s * (math.comb(i - 1, k - 1) / subsets) for i, s in ranked)
