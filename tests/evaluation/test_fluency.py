"""Repetition and compression by hand; leak@k against all subsets."""

import math
import statistics
import zlib
from itertools import combinations, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grail.evaluation.fluency import compression, leak_at_k, repetition


@pytest.mark.parametrize(
    ("text", "grams", "distinct"),
    [
        ("", 0, 0),
        ("ab", 0, 0),
        ("abcdefg", 4, 4),
        ("her her her her", 12, 4),
        ("1111111", 4, 1),
        ("The84444444", 8, 5),
        ("啊啊啊啊啊啊", 3, 1),
        ("😀😡" * 8, 13, 2),
    ],
)
def test_repetition_counts_characters_in_every_script(text, grams, distinct):
    assert repetition(text) == pytest.approx(1 - distinct / grams if grams else 0.0)


def test_compression_by_hand():
    assert compression("") == 1.0
    assert compression("ab") == len(zlib.compress(b"ab")) / 2 > 1
    assert compression("é") == len(zlib.compress("é".encode())) / 2
    assert compression("over and over " * 40) < 0.1


SCORES = st.lists(st.floats(0, 100), min_size=1, max_size=7)


@given(SCORES)
def test_leak_at_k_is_the_mean_over_all_subsets_and_grows_with_k(scores):
    found = [leak_at_k(scores, k) for k in range(1, len(scores) + 1)]
    for k, value in enumerate(found, start=1):
        largest = [max(chosen) for chosen in combinations(scores, k)]
        assert value == pytest.approx(statistics.fmean(largest), rel=1e-12, abs=1e-12)
    assert all(later >= one - 1e-9 for one, later in pairwise(found))
    assert leak_at_k(scores[::-1], 1) == found[0]


@pytest.mark.parametrize("k", [1, 7, 300, 599, 600])
def test_leak_at_k_of_many_samples_is_exact(k):
    """Of the numbers 1 to n the largest of k is k (n + 1) / (k + 1) on average."""
    scores = [float(i) for i in range(600, 0, -1)]
    assert leak_at_k(scores, k) == pytest.approx(k * 601 / (k + 1), rel=1e-14)
    assert math.isfinite(leak_at_k([1.0] * 3000, 1500))


@pytest.mark.parametrize("k", [0, -1, 3])
def test_k_is_from_one_to_the_number_of_scores(k):
    with pytest.raises(ValueError, match=rf"number of scores \(2\), got {k}"):
        leak_at_k([1.0, 2.0], k)
