"""Metrics by hand."""

import math
from unicodedata import normalize

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grail.evaluation.metrics import (
    LARGEST_NLL,
    mean,
    perplexity,
    retain_success,
    rouge_l,
    unlearn_success,
)


def test_successes_are_percentages_of_opposite_things():
    assert unlearn_success([0.25, 0.75, 0.5, 0.0]) == pytest.approx(62.5)
    assert retain_success([0.25, 0.75, 0.5, 0.0]) == pytest.approx(37.5)
    assert (unlearn_success([0.0]), retain_success([0.0])) == (100.0, 0.0)
    assert (unlearn_success([1.0]), retain_success([1.0])) == (0.0, 100.0)


def test_each_sample_counts_once_whatever_its_length():
    assert mean([1.0, 0.0, 0.5]) == pytest.approx(0.5)
    assert mean([1e16, 1.0, -1e16]) == pytest.approx(1 / 3)  # summed without rounding


def test_perplexity_is_exp_of_the_mean_not_the_mean_of_exp():
    assert perplexity([math.log(2), math.log(8)]) == pytest.approx(4.0)
    assert perplexity([0.0]) == 1.0


def test_perplexity_is_capped_where_a_float_ends():
    assert perplexity([LARGEST_NLL + 1]) == perplexity([1e6]) == math.exp(LARGEST_NLL)
    assert perplexity([LARGEST_NLL - 1]) < math.exp(LARGEST_NLL)
    assert math.isfinite(perplexity([1e30]))


@pytest.mark.parametrize("metric", [mean, unlearn_success, retain_success, perplexity])
def test_nothing_has_no_mean(metric):
    with pytest.raises(ValueError, match="no sample"):
        metric([])


def common(one, other):
    """Length of the longest common subsequence, by its definition."""
    if not one or not other:
        return 0
    if one[0] == other[0]:
        return 1 + common(one[1:], other[1:])
    return max(common(one[1:], other), common(one, other[1:]))


WORDS = st.lists(st.sampled_from(["a", "b", "c"]), min_size=0, max_size=6)


@given(WORDS, WORDS)
def test_rouge_l_is_the_f1_of_the_longest_common_subsequence(reference, generation):
    length = common(reference, generation)
    expected = 200 * length / (len(reference) + len(generation)) if length else 0.0
    assert rouge_l(" ".join(reference), " ".join(generation)) == pytest.approx(expected)


ASCII = st.text(st.characters(max_codepoint=126))


@given(ASCII, ASCII)
def test_rouge_l_of_ascii_is_that_of_the_package(reference, generation):
    from rouge_score.rouge_scorer import RougeScorer

    reference += " a"  # against signs alone the package gives 0
    theirs = RougeScorer(["rougeL"]).score(reference, generation)["rougeL"].fmeasure
    assert rouge_l(reference, generation) == 100.0 * theirs


PAIRS = {  # two different answers without a word in common
    "Latin": ("naïve", "native"),
    "Greek": ("ημέρα", "νύχτα"),
    "Cyrillic": ("Привет мир", "Прощай дом"),
    "Arabic": ("كَتَبَ", "كُتُب"),
    "Hebrew": ("שָׁלוֹם", "שָׁלֵם"),
    "Devanagari": ("दिन", "दान"),
    "Tamil": ("நாள்", "நீளம்"),
    "Tibetan": ("བོད", "ཡིག"),
    "Thai": ("วัน", "คืน"),
    "Lao": ("ມື້", "ຄືນ"),
    "Khmer": ("ថ្ងៃ", "យប់"),
    "Burmese": ("နေ့", "ည"),
    "Chinese": ("白天", "黑夜"),
    "Japanese": ("ひる", "ヨル"),
    "Korean": ("한국어", "일본어"),
    "emoji": ("😡😡", "🎉🎂"),
    "signs": ("→ ✓", "← ✗"),
    "ASCII signs": ("->", "?!"),
    "numbers": ("42", "-17"),
}


@pytest.mark.parametrize("script", PAIRS)
def test_rouge_l_means_the_same_in_every_script(script):
    one, other = PAIRS[script]
    for text in (one, other):
        for form in ("NFC", "NFD"):
            assert rouge_l(text, normalize(form, text)) == 100.0
            assert rouge_l(normalize(form, text), text.upper()) == 100.0
        assert 0 < rouge_l(text, f"{text} {text}") < 100
    assert rouge_l(one, other) < 100
    assert rouge_l(other, one) < 100
    assert rouge_l(one, "m ller") == 0.0


def test_an_emoji_is_a_word_beside_others():
    assert rouge_l("I am 😀", "I am 😡") == pytest.approx(100 * 2 / 3)
    assert rouge_l("I am (:", "I am ):") == 100.0


def test_rouge_l_by_hand():
    assert rouge_l("the cat sat on the mat", "the cat lay on a mat") == pytest.approx(100 * 4 / 6)
    assert rouge_l("Same, words!", "same words") == pytest.approx(100.0)
    assert rouge_l("running", "runs") == 0.0  # no stemming
    assert rouge_l("something", "") == 0.0
