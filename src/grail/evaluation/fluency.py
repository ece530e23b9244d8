"""Measures of generated texts: repetition, compression, and the best of k samples (leak@k)."""

import math
import zlib
from collections.abc import Sequence

_GRAM = 4


def repetition(text: str) -> float:
    """Return the share (0-1) of a text's 4-grams of characters that it has already had.

    About 0.1 to 0.2 for a paragraph of English, near 1 for "her her her" and "1111111"; words are
    not looked for, so that it holds in every script. 0 for fewer than four characters.
    """
    grams = [text[i : i + _GRAM] for i in range(len(text) - _GRAM + 1)]
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
