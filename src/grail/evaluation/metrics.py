"""US, RS, PPL and ROUGE-L as pure functions of per-sample values."""

import math
from collections.abc import Sequence
from functools import partial
from types import SimpleNamespace
from typing import Any

from grail.data.words import words_of

LARGEST_NLL = 700.0  # nats; exp() of more overflows a float


def mean(values: Sequence[float]) -> float:
    """Return the mean over samples; ValueError if there is none."""
    if not values:
        raise ValueError("no sample to take a mean of")
    return math.fsum(values) / len(values)


def unlearn_success(accuracies: Sequence[float]) -> float:
    """US in percent: 100 minus the mean token accuracy (0-1) on unlearn rows (paper, Eq. 5)."""
    return 100.0 - 100.0 * mean(accuracies)


def retain_success(accuracies: Sequence[float]) -> float:
    """RS in percent: the mean token accuracy (0-1) on retain rows (paper, Eq. 6)."""
    return 100.0 * mean(accuracies)


def perplexity(nlls: Sequence[float]) -> float:
    """Return exp of the mean over samples of the mean token NLL (nats), capped at exp(700)."""
    return math.exp(min(mean(nlls), LARGEST_NLL))


def rouge_l(reference: str, generation: str) -> float:
    """ROUGE-L F1 in percent, without stemming, by the rouge-score package.

    The package's words are runs of a-z and 0-9, so that a text in another script would not even
    match itself. Here they are ``words_of``: the same for ASCII text. Against a reference without
    any word ("->", "?!") signs count as well.
    """
    from rouge_score.rouge_scorer import RougeScorer

    signs = not words_of(reference)
    tokenizer: Any = SimpleNamespace(tokenize=partial(words_of, signs=signs))
    score = RougeScorer(["rougeL"], tokenizer=tokenizer).score(reference, generation)
    return 100.0 * score["rougeL"].fmeasure
