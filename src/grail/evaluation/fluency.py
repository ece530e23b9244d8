"""Measures of generated texts: repetition, compression, and the best of k samples (leak@k)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

from grail.data.words import pieces_of

_GRAM = 4  # pieces: words with the signs at them


def repetition(text: str) -> float:
    """Return 1 minus the share of distinct 4-grams of words, 0-1; 0 for fewer than four words.

    0: no 4-gram occurs twice; near 1: one phrase over and over (Welleck et al. 2020, arXiv
    1908.04319, with n = 4).
    """
    parts = pieces_of(text)
    grams = [tuple(parts[i : i + _GRAM]) for i in range(len(parts) - _GRAM + 1)]
    return 1 - len(set(grams)) / len(grams) if grams else 0.0


def compression(text: str) -> float:
    """Return the size of the zlib-compressed text over its own size in bytes; 1 for empty text.

    Near 0 for repetitive text; above 1 for short texts, because zlib adds at least eight bytes.
    """
    raw = text.encode()
    return len(zlib.compress(raw)) / len(raw) if raw else 1.0


def leak_at_k(scores: Sequence[float], k: int) -> float:
    """Return the unbiased estimate of the largest of k sampled scores from n >= k samples.

    The mean of the maximum over all subsets of size k: with scores sorted ascending, the sum over
    i = k..n of s_(i) C(i-1, k-1) / C(n, k), because s_(i) is the largest of C(i-1, k-1) subsets
    (leak@k, arXiv 2511.04934). Binomials are integers and only their ratio is rounded: any n works.

    Raises:
        ValueError: if k is not from 1 to n.
    """
    count = len(scores)
    if not 1 <= k <= count:
        raise ValueError(f"k must be from 1 to the number of scores ({count}), got {k}")
    subsets = math.comb(count, k)
    ranked = enumerate(sorted(scores), start=1)
    return math.fsum(s * (math.comb(i - 1, k - 1) / subsets) for i, s in ranked)
