"""US, RS, PPL and ROUGE-L as pure functions of per-sample values; no model, no files."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

SPACELESS = r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff"
"""Thai, Lao, Burmese, Khmer, Japanese, Chinese: a space ends a sentence there, not a word."""

WORD = re.compile(rf"[{SPACELESS}]|[^\W_{SPACELESS}]+")

LARGEST_NLL = 700.0  # exp() of more overflows a float; such text is ruined in any case


def mean(values: Sequence[float]) -> float:
    """Return the mean over samples.

    Raises:
        ValueError: if there is no sample: a mean of nothing is not a result.
    """
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
    """ROUGE-L F1 in percent, without stemming, as the rouge-score package computes it.

    Its own words are of a-z and 0-9 alone, so that no text in another script would be like itself;
    these are of any letters and digits, and equal to its own where the text is ASCII.
    """
    from rouge_score.rouge_scorer import RougeScorer

    score = RougeScorer(["rougeL"], tokenizer=_Words()).score(reference, generation)
    return 100.0 * score["rougeL"].fmeasure


class _Words:
    """Lower-case words of letters and digits; scripts without spaces give a word a character."""

    def tokenize(self, text: str) -> list[str]:
        return WORD.findall(text.lower())
